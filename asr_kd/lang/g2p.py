"""Pronunciations of any word from the rules of eSpeak NG, which comes with a wheel and needs no network."""

from __future__ import annotations

import ctypes
import os
import re

import espeakng_loader

_SYNCHRONOUS, _UTF8 = 2, 1
_SEPARATOR = ord("_") << 8
#: eSpeak's phones of American English, stress taken off, as the CMU dictionary would write them.
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
_SPLIT = re.compile(r"[_ |]+|\([a-z-]+\)")  # "(en)" and the like mark a change of language


class Pronouncer:
    """eSpeak NG's en-us rules.  The library has one state a process: use it in a ``with`` block.

    Raises:
        RuntimeError: the library or its data do not load.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = os.fsencode(os.path.dirname(espeakng_loader.get_data_path()))
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, 0) < 0:
            raise RuntimeError("eSpeak NG does not start")
        if self._library.espeak_SetVoiceByName(b"en-us"):
            raise RuntimeError("eSpeak NG has no en-us voice")
        self._translate = self._library.espeak_TextToPhonemes
        self._translate.restype = ctypes.c_char_p
        self._translate.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]

    def __enter__(self) -> Pronouncer:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.espeak_Terminate()

    def phones(self, word: str) -> tuple[str, ...]:
        """ARPAbet without stress; empty when there is nothing to say or a sound that English lacks."""
        text = ctypes.create_string_buffer(word.lower().encode("utf-8", "ignore"))
        pointer = ctypes.c_void_p(ctypes.addressof(text))
        names: list[str] = []
        while pointer.value:
            found: bytes | None = self._translate(ctypes.byref(pointer), _UTF8, _SEPARATOR)
            names += [name.lstrip("',%=") for name in _SPLIT.split((found or b"").decode("ascii", "replace"))]
        names = [name for name in names if name]
        if any(name not in ARPABET for name in names):
            return ()
        phones = " ".join(ARPABET[name] for name in names).split()
        # "R" links two syllables (ER R IY) where the dictionary hears one sound.
        return tuple(b for a, b in zip(["", *phones], phones, strict=False) if b != "R" or a not in ("R", "ER"))
