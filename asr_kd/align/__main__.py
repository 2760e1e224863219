"""``python -m asr_kd.align``: aligns recordings with their transcripts."""

import io
import logging
import sys
from pathlib import Path

from asr_kd.align.config import Config
from asr_kd.common.cli import log_to, run
from asr_kd.common.errors import UserError
from asr_kd.features.front_end import FrontEnd

#: Highest exit status that counts failed recordings; shells use those above 125.
MAX_STATUS = 100


def main(config: Config) -> None:
    log_to(sys.stderr, "%(message)s", instead=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # print names of files as they are, whatever bytes they have
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    from asr_kd.align.aligner import RecordingAligner
    from asr_kd.align.outputs import write_all
    from asr_kd.align.recordings import find_pairs
    from asr_kd.common.parallel import run_in_order
    from asr_kd.decode.recordings import message
    from asr_kd.lang.formats import escape

    pairs = find_pairs(config.recordings, config.text)
    gmm = _models(config)
    aligner = RecordingAligner(config.model, gmm, config.lang, config.features, config.mean)
    with config.executor(len(pairs)) as executor:
        results = run_in_order(executor, aligner, pairs, "alignment", "recording", shown=False)
        failed = guessed = 0
        for aligned in write_all(results, config.out, config.formats):
            if aligned.error:
                failed += 1
                print(message(aligned.pair.audio, aligned.error), file=sys.stderr, flush=True)
                continue
            guessed += len(aligned.guessed)
            doubtful = " ".join(word.label for word in aligned.words if word.score < config.doubtful)
            print(f"{escape(aligned.pair.audio)}\t{aligned.score:.3f}\t{doubtful}", flush=True)
    if guessed:
        logging.warning("pronunciations were guessed: see %s", config.out / "guessed.tsv")
    if failed:
        logging.warning("%d of %d recordings could not be aligned", failed, len(pairs))
    sys.exit(min(failed, MAX_STATUS))


def _models(config: Config) -> Path:
    """The folder of the tree and the transition model, which fit the other folders.

    Raises:
        UserError: they do not, or the features were made elsewhere.
    """
    from asr_kd.hmm.graph.build import check_phones
    from asr_kd.hmm.kaldi_io import read_transition_model
    from asr_kd.lang.folder import Lang
    from asr_kd.models.front_end import check_same_front_end
    from asr_kd.models.senones import check_same_senones

    gmm = config.gmm or config.model[0]
    if not (gmm / "hmm.json").is_file():
        raise UserError(f"{gmm} has no hmm.json, and so no tree: give the folder of asr_kd.hmm by --gmm")
    if FrontEnd.load(config.features).settings is None:
        raise UserError(
            f"{config.features} has features that were made elsewhere, so those of recordings cannot be computed: "
            "make features with asr_kd.features"
        )
    for model in config.model:
        check_same_senones(model, gmm)
    check_same_front_end(config.model, config.features)
    check_phones(Lang.load(config.lang), read_transition_model(gmm / "tri.mdl").phones)
    return gmm


if __name__ == "__main__":
    run(Config, main)
