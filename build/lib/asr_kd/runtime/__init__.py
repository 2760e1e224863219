"""Recognising speech with a bundle: needs NumPy, onnxruntime, kaldi-decoder and soundfile, no torch.

>>> recogniser = Recogniser.from_bundle("my_bundle")     # doctest: +SKIP
>>> recogniser("speech.flac").text                       # doctest: +SKIP
'WE PARK THE CAR'
>>> stream = recogniser.stream()                         # doctest: +SKIP
>>> for samples in microphone:                           # doctest: +SKIP
...     stream.accept(samples)
...     print(stream.partial())
>>> stream.finish().text                                 # doctest: +SKIP
"""

from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.search import Result, Word
from asr_kd.runtime.stream import Stream

__all__ = ["Recogniser", "Result", "Stream", "Word"]
