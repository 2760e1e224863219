"""Acoustic scale and word insertion penalty with the fewest errors on a split kept for tuning."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import kaldialign
import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.decode.output import Words
from asr_kd.decode.pipeline import Decoder, utterances
from asr_kd.decode.worker import SearchOptions

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

#: Decoded again around the best scale when that is further from the lattices' own than this factor.  On real
#: speech, lattices of scale 0.1 gave 70.1 % WER at their best point, 0.05, and those of 0.06 gave 68.5 %.
NEAR = 1.5


@dataclasses.dataclass(frozen=True)
class Point:
    """One pair of values and its errors."""

    acoustic_scale: float
    insertion_penalty: float
    errors: int
    words: int
    wer: float  # per cent


def tune(
    decoder: Decoder,
    cuts: Sequence[MonoCut],
    options: SearchOptions,
    words: Words,
    folder: Path,
) -> tuple[Point, list[Point]]:
    """Search the grid ``options.scales`` × ``options.penalties`` on the lattices of ``cuts``.

    The lattices hold what is good near their own acoustic scale only; so when the best one is far from it,
    the utterances are decoded once more with that.

    Args:
        decoder: with the scores to tune for.
        cuts: with the transcripts in their supervisions.
        words: word ids to text.
        folder: for shards.

    Returns:
        The best point (fewest errors on average over it and its neighbours in the grid, since a thousand words
        tell neighbours apart by chance alone; then the smaller penalty, the smaller scale), and all of them.
    """
    texts = {cut.id: cut.supervisions[0].text.split() for cut in cuts}
    for attempt in range(2):
        shards = decoder.run(cuts, options, folder / f"{attempt}", "for tuning")
        points = _points(texts, shards, options, words)
        around = _smoothed([p.errors for p in points], len(options.scales), len(options.penalties))
        order = [(a, abs(p.insertion_penalty), p.acoustic_scale) for a, p in zip(around, points, strict=True)]
        best = points[order.index(min(order))]
        if 1 / NEAR <= best.acoustic_scale / options.acoustic_scale <= NEAR:
            break
        options = dataclasses.replace(
            options, acoustic_scale=best.acoustic_scale, insertion_penalty=best.insertion_penalty
        )
    _warn_at_edge("scales", best.acoustic_scale, options.scales)
    _warn_at_edge("penalties", best.insertion_penalty, options.penalties)
    return best, points


def _smoothed(errors: Sequence[int], scales: int, penalties: int) -> list[float]:
    """The mean of each grid point and its eight neighbours; penalties run fastest.

    Beyond the edges the errors are taken to go on as steeply: over the neighbours inside alone, an edge would look
    better than it is wherever the errors fall from it inwards.
    """
    padded = np.pad(np.array(errors, dtype=float).reshape(scales, penalties), 1, mode="reflect", reflect_type="odd")
    return [float(padded[i : i + 3, j : j + 3].mean()) for i in range(scales) for j in range(penalties)]


def _points(texts: dict[str, list[str]], shards: Sequence[Path], options: SearchOptions, words: Words) -> list[Point]:
    grid = [(scale, penalty) for scale in options.scales for penalty in options.penalties]
    errors = [0] * len(grid)
    for name, record in utterances(shards):
        found = record["words"] is not None  # what failed counts as nothing recognised
        hypotheses = [words.text(ids).split() for ids in record["grid"]] if found else [[]]
        counts = [kaldialign.edit_distance(texts[name], hyp)["total"] for hyp in hypotheses]
        for place in range(len(grid)):
            errors[place] += counts[record["grid_index"][place] if found else 0]
    spoken = sum(len(text) for text in texts.values())
    if spoken == 0:
        raise UserError("the utterances to tune on have no words: name another split by --tune-on")
    return [
        Point(scale, penalty, count, spoken, round(100 * count / spoken, 3))
        for (scale, penalty), count in zip(grid, errors, strict=True)
    ]


def _warn_at_edge(name: str, value: float, values: Sequence[float]) -> None:
    if len(values) > 2 and value in (min(values), max(values)):
        logging.warning("the best value, %g, is at the edge of --%s: widen it", value, name)
