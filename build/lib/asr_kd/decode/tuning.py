"""Acoustic scale and word insertion penalty with the fewest word errors on the split for tuning."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import kaldialign
import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.decode.pipeline import Decoder, read_records
from asr_kd.decode.worker import SearchOptions
from asr_kd.lang.words import Words

#: The utterances are decoded again when the best scale differs from that of the lattices by more than this factor.
#: On real speech, lattices of scale 0.1 gave a WER of 70.1 % at their best point, 0.05; those of 0.06 gave 68.5 %.
MAX_SCALE_RATIO = 1.5
#: How many times the grid is extended, and by how many values beyond each edge.
MAX_EXTENSIONS, EXTENSION = 3, 2


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of the grid and its word errors."""

    acoustic_scale: float
    insertion_penalty: float
    errors: int
    words: int
    wer: float  # per cent


def tune(
    decoder: Decoder, cuts: Sequence[MonoCut], options: SearchOptions, words: Words, folder: Path
) -> tuple[Point, list[Point], dict[str, list[float]]]:
    """Search the grid ``options.scales`` × ``options.penalties`` by rescoring the lattices of ``cuts``.

    A lattice has the good paths only for scales close to its own.  If the best scale is not close, the utterances are
    decoded once more, with that scale.  If the best point is at an edge of three or more values, values beyond that
    edge are added, and the utterances are decoded once more, too.

    Args:
        decoder: has the model to tune for.
        cuts: have the transcripts in their supervisions.
        words: maps word ids to text, and transcripts to words.
        folder: for the shards.

    Returns:
        The best point, all points, and the added ``scales`` and ``penalties``.  The best point has the fewest errors on
        average over it and its neighbours in the grid, since on a thousand words neighbours differ only by chance; ties
        go to the smaller penalty, then to the smaller scale.
    """
    texts = {cut.id: words.split(cut.supervisions[0].text or "") for cut in cuts}
    added: dict[str, list[float]] = {"scales": [], "penalties": []}
    moved, extensions = False, 0
    for attempt in itertools.count():
        shards = decoder.run(cuts, options, folder / f"{attempt}", "for tuning")
        points = _points(texts, shards, options, words)
        best = _best(points, options)
        wider = options
        if not 1 / MAX_SCALE_RATIO <= best.acoustic_scale / options.acoustic_scale <= MAX_SCALE_RATIO:
            wider = dataclasses.replace(
                options, acoustic_scale=best.acoustic_scale, insertion_penalty=best.insertion_penalty
            )
        if wider != options and not moved:
            moved = True
        elif extensions < MAX_EXTENSIONS and any(more := _beyond_edges(best, options)):
            extensions += 1
            wider = _extend(wider, *more, added)
        else:
            break
        options = wider
    _warn_at_edge("scales", best.acoustic_scale, options.scales)
    _warn_at_edge("penalties", best.insertion_penalty, options.penalties)
    return best, points, added


def _best(points: Sequence[Point], options: SearchOptions) -> Point:
    smoothed = smooth_errors([p.errors for p in points], len(options.scales), len(options.penalties))
    order = [(s, abs(p.insertion_penalty), p.acoustic_scale) for s, p in zip(smoothed, points, strict=True)]
    return points[order.index(min(order))]


def _beyond_edges(best: Point, options: SearchOptions) -> tuple[list[float], list[float]]:
    """Scales and penalties beyond the edges of the grid at which the best point is."""
    return (
        _beyond(best.acoustic_scale, options.scales, lambda inner, edge: edge * edge / inner),
        _beyond(best.insertion_penalty, options.penalties, lambda inner, edge: 2 * edge - inner),
    )


def _beyond(value: float, values: Sequence[float], following: Callable[[float, float], float]) -> list[float]:
    """The next values beyond the edge that ``value`` is, or none; ``following`` gives the one after two others."""
    ordered = sorted(values, reverse=value == min(values))
    if len(values) < 3 or value != ordered[-1]:
        return []
    for _ in range(EXTENSION):
        ordered.append(float(f"{following(*ordered[-2:]):.4g}"))
    return ordered[-EXTENSION:]


def _extend(
    options: SearchOptions, scales: list[float], penalties: list[float], added: dict[str, list[float]]
) -> SearchOptions:
    """The options with further scales and penalties, which are also added to ``added``."""
    for name, values in (("scales", scales), ("penalties", penalties)):
        if values:
            logging.info(
                "the best value is at the edge of --%s: trying %s, too", name, ", ".join(f"{v:g}" for v in values)
            )
            added[name] = sorted([*added[name], *values])
    scales, penalties = sorted([*options.scales, *scales]), sorted([*options.penalties, *penalties])
    return dataclasses.replace(options, scales=tuple(scales), penalties=tuple(penalties))


def smooth_errors(errors: Sequence[float], scales: int, penalties: int) -> list[float]:
    """The mean of each grid point and its eight neighbours; penalties vary fastest.

    Beyond the edges the errors are extrapolated with the same slope.  A mean over only the neighbours inside the grid
    would be too low at an edge from which the errors fall inwards.
    """
    padded = np.pad(np.array(errors, dtype=float).reshape(scales, penalties), 1, mode="reflect", reflect_type="odd")
    return [float(padded[i : i + 3, j : j + 3].mean()) for i in range(scales) for j in range(penalties)]


def _points(texts: dict[str, list[str]], shards: Sequence[Path], options: SearchOptions, words: Words) -> list[Point]:
    grid = [(scale, penalty) for scale in options.scales for penalty in options.penalties]
    errors = [0] * len(grid)
    for name, record in read_records(shards):
        decoded = record["words"] is not None  # a failed utterance counts as an empty hypothesis
        hypotheses = [words.text(ids).split() for ids in record["grid"]] if decoded else [[]]
        counts = [kaldialign.edit_distance(texts[name], hyp)["total"] for hyp in hypotheses]
        for place in range(len(grid)):
            errors[place] += counts[record["grid_index"][place] if decoded else 0]
    num_words = sum(len(text) for text in texts.values())
    if num_words == 0:
        raise UserError("the transcripts of the split for tuning have no words: name another split by --tune-on")
    return [
        Point(scale, penalty, count, num_words, round(100 * count / num_words, 3))
        for (scale, penalty), count in zip(grid, errors, strict=True)
    ]


def _warn_at_edge(name: str, value: float, values: Sequence[float]) -> None:
    if len(values) > 2 and value in (min(values), max(values)):
        logging.warning("the best value, %g, is still at the edge of --%s", value, name)
