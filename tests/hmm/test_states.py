"""The best path through a few states, against all paths."""

import itertools

import numpy as np
import pytest

from asr_kd.hmm.states import States, best_path

STEPS = [
    [(0, -0.1)], [(1, -0.5), (0, -1.0)], [(2, -np.inf), (0, -0.7), (1, -0.2)], [(3, -0.3), (2, -0.4), (1, -1.1)],
]  # fmt: skip
STATES = States.of([1, 0, 2, 1], STEPS, {0: -0.2, 1: -0.4}, {2: -0.6, 3: 0.0})


def score(path: tuple[int, ...], scores: np.ndarray) -> float:
    steps = [dict(reversed(own)) for own in STEPS]
    total = {0: -0.2, 1: -0.4}.get(path[0], -np.inf) + {2: -0.6, 3: 0.0}.get(path[-1], -np.inf)
    total += sum(steps[b].get(a, -np.inf) for a, b in itertools.pairwise(path))
    return float(total + sum(scores[frame, STATES.columns[state]] for frame, state in enumerate(path)))


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_the_best_path_is_the_best_of_all(frames: int) -> None:
    rng = np.random.default_rng(frames)
    for _ in range(20):
        scores = rng.normal(size=(frames, 3))
        best = max(itertools.product(range(4), repeat=frames), key=lambda path: score(path, scores))
        found = best_path(STATES, [scores[:1], scores[1:]], np.inf)
        if score(best, scores) == -np.inf:
            assert found is None
        else:
            assert found and tuple(found[0]) == best and found[1] == pytest.approx(score(best, scores))


def test_a_narrow_beam_loses_the_path_and_many_steps_are_kept() -> None:
    scores = np.zeros((6, 3))
    scores[:3, 1] = 5.0  # staying in the first state seems right
    scores[3:, 2] = -50.0
    assert best_path(STATES, [scores], 100.0)
    chain = States.of([0] * 4, [[(0, 0.0)], [(1, -np.inf), (0, 0.0)], [(2, -np.inf), (1, 0.0)], [(3, 0.0), (2, 0.0)]],
                      {0: 0.0, 3: -8.0}, {3: 0.0})  # fmt: skip
    assert best_path(chain, [np.zeros((3, 1))], 100.0)[0].tolist() == [3, 3, 3]
    assert best_path(chain, [np.zeros((3, 1))], 5.0) is None  # three frames do not reach the end
    assert best_path(chain, [np.zeros((4, 1))], 5.0)[0].tolist() == [0, 1, 2, 3]
    assert best_path(chain, [], 5.0) is None
    assert best_path(chain, [np.zeros((4, 1))], np.inf)[0].tolist() == [0, 1, 2, 3]
    leaving = States.of([0, 0], [[(0, -np.inf)], [(1, 0.0), (0, 0.0)]], {0: 0.0}, {1: 0.0})  # nobody stays in the first
    assert best_path(leaving, [np.zeros((3, 1))], np.inf)[0].tolist() == [0, 1, 1]
    wide = States.of([0] * 301, [[(0, 0.0)]] * 1 + [[(s, -np.inf)] for s in range(1, 300)]
                     + [[(300, -np.inf), *((s, -abs(s - 280.0)) for s in range(300))]],
                     {s: 0.0 for s in range(300)}, {300: 0.0})  # fmt: skip
    assert best_path(wide, [np.zeros((2, 1))], np.inf)[0].tolist() == [280, 300]
