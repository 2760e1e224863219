"""Entries of the YAML files of systems and studies: their keys, the kinds of their values, and ``each``."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError

#: What a value must be, in words, and whether it is that.
Kind = tuple[str, Callable[[Any], bool]]


def is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    """Whether a value is a list of at least one item, all of which are like this."""
    return isinstance(value, list) and bool(value) and all(map(of, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_text, value.values()))


def _is_runs(value: Any) -> bool:
    return isinstance(value, str) or is_list(value, lambda one: isinstance(one, str) or is_list(one, is_text))


TEXT: Kind = ("text", is_text)
TEXTS: Kind = ("a list of names", lambda value: is_list(value, is_text))
TEXTS_OR_NONE: Kind = ("a list of names", lambda value: value == [] or is_list(value, is_text))
MAPPING: Kind = ("a mapping {NAME: VALUE, …}", _is_mapping)
ENTRIES: Kind = ("a list of entries", lambda value: is_list(value, lambda one: isinstance(one, dict)))
ENTRIES_OR_NONE: Kind = ("a list of entries", lambda value: value == [] or ENTRIES[1](value))
NUMBER: Kind = ("a whole number, 0 or more", lambda value: str(value).isdecimal())
SWITCH: Kind = ("true or false", lambda value: isinstance(value, bool))
RUNS: Kind = ("NAME:SEEDS, or a list of those (for ensembles, of lists)", _is_runs)


def one_of(*names: str) -> Kind:
    return f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names


def check_keys(path: Path, entry: Any, known: Mapping[str, Kind], needed: set[str], others: bool = False) -> None:
    """Check the keys and the values of an entry.

    Args:
        path: of the file, for messages.
        known: kinds of the values by key.
        needed: keys that it must have.
        others: whether it may have other keys.

    Raises:
        UserError: it is no mapping, lacks a key, or has an unknown one or a value of another kind.
    """
    if not isinstance(entry, dict) or not needed <= set(entry) or not (others or set(entry) <= set(known)):
        allowed = "" if others else f", and may have {', '.join(sorted(known))}"
        raise UserError(f"{path}: {entry!r} needs {', '.join(sorted(needed))}{allowed}: mend it")
    for key, (words, holds) in known.items():
        if key in entry and not holds(entry[key]):
            name = f" of {entry['name']}" if "name" in entry else ""
            raise UserError(f"{path}: {key}{name} must be {words}, not {entry[key]!r}: mend it")


def check_names(path: Path, kind: str, names: Sequence[str]) -> None:
    """Raise UserError when two things have the same name."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: two {kind}s are called {twice}: give each its own name")


def expand_each(path: Path, entry: Any, variables: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """The entry for every value of its ``each``: a mapping of lists gives all combinations, a list of mappings one
    entry after the other.

    Raises:
        UserError: ``each`` has another form, or text has braces without a variable of it.
    """
    each = entry.get("each") if isinstance(entry, dict) else None
    rest = {key: value for key, value in entry.items() if key != "each"} if isinstance(entry, dict) else entry
    if isinstance(each, dict) and all(isinstance(values, list) for values in each.values()):
        each = [dict(zip(each, values, strict=True)) for values in itertools.product(*each.values())]
    if each is not None and not is_list(each, lambda one: isinstance(one, dict)):
        raise UserError(f"{path}: each must be lists by variable, or a list of mappings, not {each!r}: mend it")
    for at in each or [{}]:
        values = {**variables, **at}
        try:
            yield at, _filled(rest, values) if values else rest
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise UserError(f"{path}: {error} is not a variable of each: mend the braces in {rest!r}") from None


def _filled(value: Any, at: Mapping[str, Any]) -> Any:
    """``value`` with {variables} filled in; a text that is nothing but a variable takes its value of any kind."""
    if isinstance(value, str):
        alone = re.fullmatch(r"\{(\w+)\}", value)
        return at[alone[1]] if alone else value.format(**at)
    if isinstance(value, dict):
        return {key: _filled(one, at) for key, one in value.items()}
    return [_filled(one, at) for one in value] if isinstance(value, list) else value
