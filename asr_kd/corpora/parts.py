"""Which folders make up a split.  Needs no heavy package, so that an up-to-date stage returns at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.errors import UserError


def read_group(text: str) -> tuple[int, int]:
    """i and n of "i/n", the i-th of n groups.

    Raises:
        UserError: it is of another form, or i is not one of 1 to n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    group, groups = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= group <= groups:
        raise UserError(
            f"{text!r} is no group: write i/n, such as 1/2 for the first of two (NAME:1/2 for that of a part)"
        )
    return group, groups


@dataclass(frozen=True)
class Part:
    """A part of a corpus, or one of ``groups`` disjoint groups of its speakers (``group`` counts from 1)."""

    folder: Path
    group: int = 1
    groups: int = 1

    @classmethod
    def parse(cls, root: Path, spec: str) -> Part:
        """``NAME`` or ``NAME:i/n`` under ``root``.

        Raises:
            UserError: no such folder, or i/n makes no sense.
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
        return self.folder.name + (f":{self.group}/{self.groups}" if self.groups > 1 else "")
