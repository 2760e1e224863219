"""What the tests of bundles and of their users share."""

import shutil
from pathlib import Path

import kaldifst

from asr_kd.common.storage import read_json, write_json

SENONES = 6
#: Weights of what is measured of a word, and an offset.
CONFIDENCE = [2.0, 1.0, 0.5, -1.0]


def write_graph(folder: Path) -> Path:
    """A graph of five words that last as long as their senone; the first senone is silence."""
    lines = []
    for senone in range(SENONES):
        state, word = senone + 1, senone + 1 if senone else 0
        lines += [f"0 {state} {senone + 1} {word} 0.5", f"{state} {state} {senone + 1} 0", f"{state} 0 0 0 1.5"]
    fst = kaldifst.compile("\n".join([*lines, "0", *map(str, range(1, SENONES + 1))]))
    gap = fst.add_state()  # of new words
    fst.write(str(folder / "HCLG.fst"))
    words = ["<eps>", *(f"W{i}" for i in range(1, SENONES + 1))]
    (folder / "words.txt").write_text("".join(f"{word} {i}\n" for i, word in enumerate(words)))
    write_json(folder / "graph.json", {"num_pdfs": SENONES, "silence_pdfs": [0], "text": "upper"})
    phones, lexicon = ({f"{kind}{i}": value(i) for i in range(2, SENONES + 1)} for kind, value in (
        ("P", lambda i: [[i - 1]]), ("W", lambda i: [[f"P{i}"]]),
    ))  # fmt: skip
    write_json(folder / "pronunciations.json", {"silence": [0], "phones": phones, "lexicon": lexicon})
    ids = {name: number for number, name in enumerate(phones, 1)} | {"SIL": len(phones) + 1}
    leaves = [["leaf", 0], *(["leaf", number] for number in (*range(1, SENONES), 0))]
    slots = {
        "begins": [[0, number, 0, gap, 0, 0.5] for number in ids.values()],
        "ends": [[number, 0, gap, 0, 0, 1.5] for number in ids.values()],
        "phones": ids, "pause": "SIL", "guesses": False, "positions": False, "topologies": [[[*ids], [0]]],
        "loops": [0.5] * SENONES, "self_loop_scale": 0.0, "sets": [],
        "nodes": [*leaves, ["table", 1, *range(len(leaves))]], "root": len(leaves),
    }  # fmt: skip
    write_json(folder / "new_words.json", slots)
    return folder


#: Runs a module as a program where the packages that recognition does not need are missing.
WITHOUT_TORCH = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchaudio", "lhotse", "k2", "scipy", "tyro", "yaml", "onnx", "tqdm"):
            raise ModuleNotFoundError(f"{name} is not for the runtime")
sys.meta_path.insert(0, Refuse())
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def with_confidences(bundle: Path, copy: Path) -> Path:
    """A copy of a bundle whose words have confidences, though those of its corpus were too few to fit any."""
    shutil.copytree(bundle, copy)
    (copy / "stage.json").unlink()  # it has the checksums
    write_json(copy / "decode.json", {**read_json(copy / "decode.json"), "confidence": CONFIDENCE})
    return copy
