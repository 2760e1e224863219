"""The folders of a split.  Imports no heavy package, so that an up-to-date stage returns at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.errors import UserError


def read_group(text: str) -> tuple[int, int]:
    """i and n of "i/n", which names the i-th of n groups.

    Raises:
        UserError: the text does not have this form, or i is not between 1 and n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    group, groups = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= group <= groups:
        raise UserError(
            f"{text!r} is no group: write i/n, such as 1/2 for the first of two (NAME:1/2 for a group of a part)"
        )
    return group, groups


@dataclass(frozen=True)
class Part:
    """A part of a corpus, or one of ``groups`` disjoint groups of its speakers (``group`` starts at 1)."""

    folder: Path
    group: int = 1
    groups: int = 1

    @classmethod
    def parse(cls, root: Path, spec: str) -> Part:
        """The part ``NAME``, or the group ``NAME:i/n`` of it, under ``root``.

        Raises:
            UserError: there is no such folder or group.
        """
        name, _, share = spec.partition(":")
        group, groups = read_group(share) if share else (1, 1)
        if not root.is_dir():
            raise UserError(f"{root} does not exist: check --corpus-dir (or --also)")
        if not name or not (root / name).is_dir():
            known = sorted(p.name for p in root.iterdir() if p.is_dir())
            raise UserError(f"{root} has no part {name!r}: it has {', '.join(known) or 'none'}")
        return cls((root / name).resolve(), group, groups)

    @property
    def label(self) -> str:
        """The part as flags name it."""
        return self.folder.name + (f":{self.group}/{self.groups}" if self.groups > 1 else "")
