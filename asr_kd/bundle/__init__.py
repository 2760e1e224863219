"""Bundles: a trained network with its graph as one folder that asr_kd.runtime recognises with.

- ``network``: samples → scores as one module, which ``export`` writes as ONNX, in float32 and in int8.
- ``sherpa``: the same for sherpa-onnx, from log-mels in chunks to scores.
- ``measure``: words and speed of both forms on dev, beside those of the trained network.
- ``card``: README.md of a bundle.
"""
