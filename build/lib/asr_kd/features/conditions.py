"""Conditions of recording that ``--degrade`` names, as KIND or KIND:VALUE."""

from __future__ import annotations

from typing import NamedTuple

from asr_kd.common.errors import UserError

#: Smallest and largest kbit/s of a channel at 16 kHz, between which libsndfile's level of compression chooses.
BIT_RATES: dict[str, tuple[float, float]] = {"mp3": (8, 160), "opus": (6, 256)}
#: Kinds, and the smallest and largest value of those that have one.
KINDS: dict[str, tuple[float, float] | None] = {
    "band": (500, 100_000),
    "telephone": None,
    "gsm": None,
    "mp3": BIT_RATES["mp3"],
    "opus": BIT_RATES["opus"],
    "room": (0.15, 2),
    "gain": (1e-6, 1e6),
    "tight": None,
    "margins": (0.1, 60),
}


class Condition(NamedTuple):
    """A kind of ``KINDS`` with its value; 0 if it has none."""

    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.value:g}" if KINDS[self.kind] else self.kind


def parse_condition(text: str) -> Condition:
    """The condition that a text names.

    Raises:
        UserError: there is no such kind, or its value is missing, needless, no number or out of its range.
    """
    kind, colon, value = text.partition(":")
    if kind not in KINDS:
        raise UserError(f"--degrade has no kind {kind!r}: give {', '.join(map(_form, KINDS))}")
    if (allowed := KINDS[kind]) is None:
        if colon:
            raise UserError(f"--degrade {text}: {kind} has no value: give {kind}")
        return Condition(kind, 0.0)
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not allowed[0] <= number <= allowed[1]:
        raise UserError(
            f"--degrade {text}: {kind} needs a number from {allowed[0]:g} to {allowed[1]:g}, as in {_form(kind)}"
        )
    return Condition(kind, number)


def _form(kind: str) -> str:
    examples = {"band": 6000, "mp3": 32, "opus": 32, "room": 0.3, "gain": 0.1, "margins": 2}
    return f"{kind}:{examples[kind]:g}" if kind in examples else kind
