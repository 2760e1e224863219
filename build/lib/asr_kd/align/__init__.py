"""Alignment of any recording with its transcript: words, phones and senones with times.

- ``recordings``: finds recordings and their transcripts.
- ``aligner``: the states that a transcript may pass through, the best path, and how well its phones fit.
- ``outputs``: CTM, TextGrid and JSON.
"""
