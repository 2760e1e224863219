"""One bit flipped in any file of an experiment is named, or changes nothing."""

import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from training import inline_jobs, store_config

from asr_kd.check.__main__ import main
from asr_kd.check.config import Config
from asr_kd.check.experiment import Check
from asr_kd.common.errors import UserError
from asr_kd.common.locks import LOCK
from asr_kd.common.storage import load_array, read_json
from asr_kd.corpora.cuts import load_cuts, load_senones
from asr_kd.corpora.shar import __main__ as shar
from asr_kd.corpora.shar.config import Config as SharConfig
from asr_kd.corpora.shar.shards import Shards
from asr_kd.features.cuts import read_cuts
from asr_kd.features.normalise import Normaliser
from asr_kd.models.checkpoints import load_log_prior, load_model
from asr_kd.soft_targets import __main__ as soft_targets
from asr_kd.soft_targets.store import SoftTargets

Use = Callable[[], object]


@contextmanager
def flipped(path: Path, seed: int) -> Iterator[None]:
    """A bit of a file is another one."""
    content = path.read_bytes()
    place = int(np.random.default_rng(seed).integers(8 * len(content)))
    damaged = bytearray(content)
    damaged[place // 8] ^= 1 << place % 8
    path.write_bytes(damaged)
    try:
        yield
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def shards(prepared, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "shar"
    with inline_jobs():
        shar.main(SharConfig(cuts=prepared.senones, out=out, splits=("dev",)))
    return out


def uses(prepared, teachers, store, shards) -> dict[Path, Use]:
    """Folder -> what later stages read of it."""
    splits = ("train", "dev", "test")
    return {
        prepared.data: lambda: [c.to_dict() for s in splits for c in read_cuts(prepared.data, s, 16000)],
        prepared.features: lambda: [
            (cut.id, zlib.crc32(Normaliser.load(prepared.features)(cut)))
            for split in splits
            for cut in load_cuts(prepared.features, split)
        ],
        prepared.senones: lambda: [
            read_json(prepared.senones / "hmm.json"),
            load_array(prepared.senones / "pdf_counts.npy").tolist(),
            *(load_senones(cut).tolist() for split in splits for cut in load_cuts(prepared.senones, split)),
        ],
        teachers / "seed-0": lambda: [
            load_log_prior(teachers / "seed-0").tolist(),
            *(value.tolist() for value in load_model(teachers / "seed-0").state_dict().values()),
        ],
        store: lambda: [
            getattr(targets.read(cut), name).tobytes()
            for temperature in (1.0, 2.0)
            for targets in [SoftTargets(store, prepared.features, temperature)]
            for cut in targets
            for name in ("codes", "classes", "tails")
            if hasattr(targets.read(cut), name)
        ],
        shards: lambda: [
            (cut.id, load_senones(cut).tolist(), zlib.crc32(Normaliser.load(prepared.features)(cut)))
            for number in range(len(Shards(shards / "dev").sizes))
            for cut in Shards(shards / "dev").read(number)
        ],
    }


def written(folder: Path) -> list[Path]:
    """The files that stages wrote: not the locks, where those who read now have signed."""
    files = (path for path in sorted(folder.rglob("*")) if path.name != LOCK)
    return [path for path in files if path.is_file() and path.stat().st_size]


def test_a_flipped_bit_is_named_by_the_check_and_by_who_reads_it(prepared, teachers, store, shards):
    files = 0
    for folder, use in uses(prepared, teachers, store, shards).items():
        expected = use()
        check = Check(folder)
        check.run()
        assert not check.faults and "all files are as they were written" in check.report()
        for number, path in enumerate(written(folder)):
            files += 1
            with flipped(path, number):
                check = Check(folder)
                check.run()
                if path.suffix == ".tar" and not check.faults:  # padding, which nobody reads
                    assert use() == expected
                    continue
                assert folder in check.faults, path
                array = "/storage/" in str(path) or "/senones/" in str(path)
                name = path.stem if array else path.name
                assert name in check.report() or path.suffix == ".tar", (path, check.report())
                if array and number % 8:  # there are many of them, all of one kind
                    continue
                try:
                    read = use()
                except UserError as error:
                    assert "again" in str(error) or "delete" in str(error)
                else:
                    assert read == expected, path
        assert use() == expected
    assert files > 130


def test_missing_unknown_and_unfinished_files_are_named_and_a_rerun_mends_them(
    prepared, teachers, tmp_path, inline, capsys
):
    exp = tmp_path / "exp"
    shutil.copytree(teachers, exp / "teachers")
    soft_targets.main(store_config(prepared, exp / "teachers", exp / "store"))
    main(Config(exp))
    assert "3 stages" in capsys.readouterr().out
    store, before = exp / "store", (exp / "store" / "cuts.keys.npy").read_bytes()
    (store / "cuts.keys.npy").unlink()
    (store / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(Config(exp))
    report = capsys.readouterr().out
    assert f"{store}: cuts.keys.npy is missing" in report and "unknown file notes.txt" in report
    assert f"delete {store} and run its stage (soft_targets) again" in report
    soft_targets.main(store_config(prepared, exp / "teachers", store))
    assert "cuts.keys.npy is missing or incomplete): rebuilding" in capsys.readouterr().out
    assert (store / "cuts.keys.npy").read_bytes() == before
    Path(exp / "teachers" / "seed-0" / "stage.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(Config(exp))
    assert "1 folders have faults" in capsys.readouterr().out


def test_a_stage_whose_input_was_made_again_is_named(prepared, tmp_path, inline):
    from asr_kd.common.storage import Stage

    for size in (1, 2):
        first = Stage("first", tmp_path / "first", {"size": size})
        assert first.begin()
        first.finish()
        if size == 1:
            second = Stage("second", tmp_path / "second", {}, [tmp_path / "first"])
            assert second.begin()
            second.finish()
    check = Check(tmp_path)
    check.run()
    assert list(check.faults) == [tmp_path / "second"]
    assert "made from another" in check.report() and "run its stage (second) again" in check.report()


def test_a_folder_without_stages_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder of a stage"):
        Check(tmp_path)
