"""Soft targets: an ensemble's averaged posteriors at temperature T for every frame of a transfer set.

``python -m asr_kd.soft_targets`` writes them to a compact store, and ``python -m asr_kd.soft_targets.inspect`` shows
what a store contains.  ``SoftTargets`` reads a store; ``OnlineTargets`` runs the teachers during training instead.
"""
