"""The eSpeak NG synthesiser of ``espeakng_loader`` through ctypes, with exact phone and word times.

The library has global state, so a process can have one synthesiser at a time.  ``espeak_Terminate`` does not reset
all of it (oscillator phases, noise), so ``Espeak`` loads the library again each time: its speech does not depend on
what the process synthesised before.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from dataclasses import dataclass

import espeakng_loader
import numpy as np

RATE = 22050
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_WORD, _PHONEME = 1, 7  # espeak_EVENT_TYPE
_SPEED, _PITCH, _PITCH_RANGE = 1, 3, 4  # espeak_PARAMETER
_UTF8 = 1
#: First letters of eSpeak's phone names.
VOWELS, PLOSIVES = "03@AEIOUVaeiou", "bdgkpt"
CLOSURE = 0.03  # seconds at the end of a pause that count as the closure of the following plosive
#: Seconds from a vowel's onset to its event, after nasals and after liquids and glides.  Measured: the onset is where
#: the spectrum changes most.
TRANSITION = dict.fromkeys("Nmn", 0.024) | dict.fromkeys("jlrwR", 0.014)


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    )  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Phone:
    """One phone: samples [start, end) at ``RATE``, eSpeak's name without stress, index of its word (-1: pause)."""

    start: int
    end: int
    name: str
    word: int


class Espeak:
    """A synthesiser in the state of a new process.  Close it before creating another one.

    Args:
        voice: eSpeak's name, such as "en-us+f2".
        seed: seed of breath and other noises.

    Raises:
        RuntimeError: the library does not have this voice.
    """

    def __init__(self, voice: str, seed: int = 1) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = os.fsencode(os.path.dirname(espeakng_loader.get_data_path()))
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, _PHONEME_EVENTS) != RATE:
            raise RuntimeError("eSpeak NG cannot be initialised")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(seed)
        self._waves: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, str]] = []  # type, sample, text position, phone name
        self._callback = _Callback(self._receive)  # the library does not keep it alive
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice}")

    def close(self) -> None:
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)

    def __enter__(self) -> Espeak:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if wave and count:
            self._waves.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type:
            event = events[i]
            name = event.id.string.decode("ascii", "replace") if event.type == _PHONEME else ""
            self._events.append((event.type, event.sample, event.text_position, name))
            i += 1
        return 0

    def say(
        self, text: str, speed: int = 175, pitch: int = 50, pitch_range: int = 50
    ) -> tuple[np.ndarray, list[Phone]]:
        """Synthesise ``text`` (a comma is a pause; the words of the phones are known for ASCII).

        Args:
            speed: words per minute.
            pitch: 0 to 100; 50 is the natural pitch of the voice.
            pitch_range: 0 to 100, from monotonous to lively.

        Returns:
            int16 samples at ``RATE``, and the phones, which cover all samples.
        """
        self._waves, self._events = [], []
        for parameter, value in ((_SPEED, speed), (_PITCH, pitch), (_PITCH_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        # Bars separate pairs such as OF THE, which are one word in eSpeak's dictionary.
        marked = " |".join(text.split())
        data = marked.encode("utf-8")
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        wave = np.concatenate(self._waves)
        return wave, self._phones(wave, marked)

    def _phones(self, wave: np.ndarray, data: str) -> list[Phone]:
        """Phones from the events, with three corrections of where sounds begin.

        - A phone's event follows the silence before it, which is the closure of a plosive: the silence begins where
          the samples become exactly zero.
        - After a nasal, liquid or glide, a vowel's event follows the transition.
        - The event of a syllable-final l comes when most of the vowel is already coloured: they count as one phone.
        """
        loud = np.flatnonzero(wave)
        marks: list[tuple[int, str, int]] = [(0, "_", -1)]  # start, name, word
        last_event = 0  # sample of the last phone's event
        for kind, sample, position, name in self._events:
            if kind != _PHONEME:
                continue
            name = name.lstrip("',%=")
            before = loud[: np.searchsorted(loud, sample)]
            onset = max(last_event, int(before[-1]) + 1 if len(before) else 0)
            start, last, _ = marks[-1]
            if name.startswith("_"):
                marks.append((onset, "_", -1))
                continue
            if last == "_":  # the silence is a pause, except for its end
                onset = max(onset, sample - (int(CLOSURE * RATE) if name[0] in PLOSIVES else 0))
            elif name[0] in VOWELS and last[0] in TRANSITION:
                onset = max((start + sample) // 2, sample - int(TRANSITION[last[0]] * RATE))
            marks.append((onset, name, len(data[: position - 1].replace("|", " ").split())))
            last_event = sample
        after = [mark[1][0] for mark in marks[1:]] + ["_"]
        marks = [
            mark
            for i, mark in enumerate(marks)
            if mark[1] != "l" or marks[i - 1][1][0] not in VOWELS or marks[i - 1][2] != mark[2] or after[i] in VOWELS
        ]
        starts = [mark[0] for mark in marks] + [len(wave)]
        return [
            Phone(start, end, name, word)
            for (start, name, word), end in zip(marks, starts[1:], strict=True)
            if end > start
        ]
