"""Ranges of settings: declared once, at the field; checked for flags, YAML and Python alike; shown by ``--help``.

>>> rate: Annotated[float, within(above=0)] = 1e-3        # doctest: +SKIP
"""

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from asr_kd.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a field, or each item of a tuple, may have.  A number must be finite unless the range says else.

    Attributes:
        low, high: the smallest and the largest value.
        above, below: whether ``low`` and ``high`` themselves are excluded.
        infinite: whether inf is allowed.
        filled: whether a tuple needs at least one item.
        different: whether the items of a tuple must differ.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False
    filled: bool = False
    different: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether one number is allowed; NaN never is."""
        if value == math.inf:
            return self.infinite
        low = self.low < value if self.above else self.low <= value
        high = value < self.high if self.below else value <= self.high
        return low and high and value > -math.inf

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"{self.low:,g} or more"
        high = f"below {self.high:g}" if self.below else f"at most {self.high:,g}"
        if self.low == -math.inf:
            text = "any number" if self.high == math.inf else high
        elif self.high == math.inf:
            text = low + (", also inf" if self.infinite else "")
        elif self.above or self.below:
            text = f"{low if self.above else f'at least {self.low:g}'} and {high}"
        else:
            text = f"from {self.low:,g} to {self.high:,.12g}"
        return text

    def __call__(self, default: str) -> str:
        """What ``--help`` says after the description of a flag."""
        return f"(default: {default}; {self}{'; all different' if self.different else ''})"

    def fault(self, values: Sequence[float]) -> str:
        """What is wrong with the value of a field, a number or the items of a tuple; "" if nothing is."""
        wrong = next((value for value in values if value not in self), None)
        if wrong is not None:
            return f"is {wrong}, but must be {self}{'' if math.isfinite(wrong) else ', and finite'}"
        if self.filled and not values:
            return f"needs at least one value ({self})"
        if self.different and len(set(values)) < len(values):
            return f"is {' '.join(map(str, values))}, but its values must be different"
        return ""


def within(
    low: float = -math.inf, high: float = math.inf, *, above: float | None = None, below: float | None = None,
    **more: bool,
) -> Any:  # fmt: skip
    """The declaration of a field's range: ``Annotated[float, within(0, below=1)]``.

    Args:
        low, high: the smallest and the largest value.
        above, below: instead, bounds that are themselves excluded.
        more: further attributes of ``Range``.
    """
    first, last = low if above is None else above, high if below is None else below
    return tyro.conf.arg(help_behavior_hint=Range(first, last, above is not None, below is not None, **more))


#: A number of things: none is possible, or not.
Natural = Annotated[int, within(0)]
Count = Annotated[int, within(1)]
#: NumPy, torch and scikit-learn all take these.
Seed = Annotated[int, within(0, 2**32 - 1)]
Seeds = Annotated[tuple[int, ...], within(0, 2**32 - 1, filled=True, different=True)]
Positive = Annotated[float, within(above=0)]
NotNegative = Annotated[float, within(0)]
#: A weight or a share.
Share = Annotated[float, within(0, 1)]
#: A dropout rate.
Dropout = Annotated[float, within(0, below=1)]


class Settings:
    """Base of the dataclasses of flags: checks the ranges of the fields when one is made.

    Raises:
        UserError: a value is out of its range.
    """

    def __post_init__(self) -> None:
        for name, allowed in ranges(type(self)).items():
            value = getattr(self, name)
            if value is None or value is tyro.MISSING:  # MISSING: a flag will give it
                continue
            if fault := allowed.fault(value if isinstance(value, tuple) else (value,)):
                raise UserError(f"{flag_name(name)} {fault}: correct it")


def flag_name(field: str) -> str:
    """``--batch-size`` for ``batch_size``."""
    return f"--{field.replace('_', '-')}"


def ranges(settings: type) -> dict[str, Range]:
    """The range of every numeric field; of those without a declaration, any finite number."""
    kinds = typing.get_type_hints(settings, include_extras=True)
    return {name: declared_range(kind) or Range() for name, kind in kinds.items() if _is_numeric(kind)}


def declared_range(kind: Any) -> Range | None:
    """The range in the annotation of a field, if there is one."""
    hints = (getattr(item, "help_behavior_hint", None) for item in getattr(kind, "__metadata__", ()))
    found = [hint for hint in hints if isinstance(hint, Range)]
    if not found:  # Count | None has it one level down
        found = [hint for part in typing.get_args(kind) if (hint := declared_range(part))]
    return found[0] if found else None


def _is_numeric(kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return False
    arguments = typing.get_args(kind)
    return any(map(_is_numeric, arguments)) if arguments else kind in (int, float)
