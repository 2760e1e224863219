"""Small random lattices, as lines of a Kaldi text archive, and all their paths one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def random_lattice(random: np.random.Generator, frames: int, pdfs: int = 5, states: int = 3) -> list[bytes]:
    """The lines of a lattice in which all states of a frame are joined by one or two arcs, if at all."""
    first, lines = 1, []
    before = [0]
    for _ in range(frames):
        costs = random.uniform(-5, 5, pdfs)  # a senone has one score in a frame
        after = list(range(first, first + int(random.integers(1, states + 1))))
        first += len(after)
        pairs = [pair for pair in itertools.product(before, after) if random.random() < 0.7]
        pairs += [(int(random.choice(before)), state) for state in after] + [
            (s, int(random.choice(after))) for s in before
        ]
        for source, target in pairs:
            pdf, word = int(random.integers(pdfs)), int(random.integers(3))
            lines.append(f"{source} {target} {pdf + 1} {word} {random.uniform(0, 3):.6g},{costs[pdf]:.6g}\n")
        before = after
    lines += [f"{state} {first} 0 0 {random.uniform(0, 3):.6g},0\n" for state in before]
    return [*(line.encode() for line in lines), f"{first} 0,0\n".encode()]


def all_paths(lines: list[bytes]) -> Iterator[list[tuple[int, int, float, float]]]:
    """Each path from state 0 to a final state, as its arcs' (pdf, word, graph score, acoustic score)."""
    arcs, ends = {}, set()
    for line in lines:
        parts = line.decode().replace(",", " ").split()
        if len(parts) == 6:
            source, target, label, word = map(int, parts[:4])
            arcs.setdefault(source, []).append((target, (label - 1, word, -float(parts[4]), -float(parts[5]))))
        else:
            ends.add(int(parts[0]))

    def onwards(state: int) -> Iterator[list]:
        if state in ends:
            yield []
        for target, arc in arcs.get(state, ()):
            yield from ([arc, *rest] for rest in onwards(target))

    return onwards(0)
