"""The parts of ``tools/drill.py``: damaged inputs, kills, full disks, lost workers, memory limits."""
