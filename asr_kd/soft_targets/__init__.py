"""Soft targets: an ensemble's averaged, tempered posteriors for every frame of a transfer set.

``python -m asr_kd.soft_targets`` writes them to a compact store, ``python -m asr_kd.soft_targets.inspect`` says
what a store holds, ``SoftTargets`` reads one, and ``OnlineTargets`` computes the same beside the student instead.
"""
