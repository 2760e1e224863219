"""Grapheme-to-phoneme conversion with the rules of eSpeak NG, which comes as a wheel and works offline."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import re

_SYNCHRONOUS, _UTF8 = 2, 1
_SEPARATOR = ord("_") << 8
#: eSpeak's phones of American English, without stress, in the notation of the CMU dictionary.
ARPABET = {
    "0": "AA", "0#": "AA", "3": "ER", "3:": "ER", ";": "", "?": "T", "@": "AH", "@-": "AH", "@2": "AH", "@5": "AH",
    "@L": "AH L", "A:": "AA", "A@": "AA R", "A~": "AA N", "D": "DH", "E": "EH", "E2": "EH", "I": "IH", "I#": "IH",
    "I2": "IH", "IR": "ER", "N": "NG", "O": "AO", "O2": "AO", "O:": "AO", "O@": "AO R", "OI": "OY", "O~": "AO N",
    "Q": "G", "S": "SH", "T": "TH", "U": "UH", "U@": "UH R", "V": "AH", "VR": "ER", "Z": "ZH", "a": "AE",
    "a#": "AH", "aI": "AY", "aI2": "AY", "aI3": "AY ER", "aI@": "AY AH", "aU": "AW", "aU@": "AW ER", "aa": "AE",
    "b": "B", "d": "D", "dZ": "JH", "e": "EH", "e@": "EH R", "eI": "EY", "f": "F", "g": "G", "h": "HH", "i": "IY",
    "i:": "IY", "i@": "IY AH", "i@3": "IH R", "j": "Y", "k": "K", "l": "L", "l#": "L", "m": "M", "m-": "AH M",
    "n": "N", "n-": "AH N", "o": "OW", "o@": "AO R", "oU": "OW", "p": "P", "r": "R", "r-": "R", "s": "S",
    "t": "T", "t#": "T", "t2": "T", "tS": "CH", "u": "UW", "u:": "UW", "v": "V", "w": "W", "w#": "W", "x": "K",
    "y": "IY", "z": "Z",
}  # fmt: skip
#: The phones of the CMU dictionary.
PHONES = frozenset(" ".join(ARPABET.values()).split())
_SPLIT = re.compile(r"[_ |]+|\([a-z-]+\)")  # marks such as "(en)" switch the language


class Pronouncer:
    """Pronounces words with the en-us rules of eSpeak NG.

    The library has one global state per process: use this class in a ``with`` block.

    Raises:
        ImportError: the wheel is not installed.
        RuntimeError: the library or its data cannot be loaded.
    """

    def __init__(self) -> None:
        import espeakng_loader  # guesses are optional where words are only recognised

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = os.fsencode(os.path.dirname(espeakng_loader.get_data_path()))
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, 0) < 0:
            raise RuntimeError("eSpeak NG cannot be initialised")
        if self._library.espeak_SetVoiceByName(b"en-us"):
            raise RuntimeError("eSpeak NG has no en-us voice")
        self._translate = self._library.espeak_TextToPhonemes
        self._translate.restype = ctypes.c_char_p
        self._translate.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]

    def __enter__(self) -> Pronouncer:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)  # whoever loads it next finds it as new

    def phones(self, word: str) -> tuple[str, ...]:
        """Return ARPAbet phones without stress; empty if ``word`` has no sound or one outside ``ARPABET``."""
        text = ctypes.create_string_buffer(word.lower().encode("utf-8", "ignore"))
        pointer = ctypes.c_void_p(ctypes.addressof(text))
        names: list[str] = []
        while pointer.value:
            output: bytes | None = self._translate(ctypes.byref(pointer), _UTF8, _SEPARATOR)
            names += [name.lstrip("',%=") for name in _SPLIT.split((output or b"").decode("ascii", "replace"))]
        names = [name for name in names if name]
        if any(name not in ARPABET for name in names):
            return ()
        phones = " ".join(ARPABET[name] for name in names).split()
        # eSpeak inserts a linking "R" (ER R IY) that the CMU dictionary does not have.
        return tuple(b for a, b in zip(["", *phones], phones, strict=False) if b != "R" or a not in ("R", "ER"))
