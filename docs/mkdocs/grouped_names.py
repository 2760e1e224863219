"""Extension of griffe, which reads the docstrings: entries of several names are shown as one entry for each."""

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)+)(:.*(?:\n {8}.*)*)", re.MULTILINE)


class GroupedNames(griffe.Extension):
    """Reads ``low, high: text`` in Args and Attributes as ``low: text`` and ``high: text``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ENTRY.sub(_separate, obj.docstring.value)


def _separate(entry: re.Match[str]) -> str:
    return "\n".join(f"    {name}{entry[2]}" for name in entry[1].split(", "))
