"""Tar shards give the same frames as manifests, from a disk or from an address."""

from __future__ import annotations

import pytest
import torch
from training import config, inline_jobs, remark

from asr_kd.common.errors import UserError
from asr_kd.common.storage import stage_figures
from asr_kd.corpora.shar import __main__ as shar
from asr_kd.corpora.shar.shards import Shards
from asr_kd.features.normalise import Normaliser
from asr_kd.train import __main__ as train
from asr_kd.train.batches import FrameLoader
from asr_kd.train.pools import PoolReader, Streams
from asr_kd.train.sources import Manifests

FRAMES = 1000  # per shard


@pytest.fixture(scope="module", params=["disk", "address"])
def sharded(request, prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("shar")
    url = (out / "remote").as_uri() if request.param == "address" else ""
    (out / "remote" / "train").mkdir(parents=True)
    (out / "remote" / "dev").mkdir(parents=True)
    with inline_jobs():
        shar.main(shar.Config(cuts=prepared.senones, out=out / "local", url=url, shard_frames=FRAMES))
    return out / "local"


def read_frames(source, prepared, **options):
    """All windows with their labels, sorted."""
    loader = FrameLoader(PoolReader(source, Normaliser.load(prepared.features), **options), batch_size=64)
    batches = list(loader.epoch(0))
    rows = torch.cat([torch.cat([batch.inputs, batch.labels[:, None].float()], 1) for batch in batches])
    return rows[torch.argsort(rows[:, 500], stable=True)]


@pytest.mark.parametrize("pool_frames", [10**6, 4 * FRAMES])
def test_frames_are_those_of_the_manifest(prepared, sharded, pool_frames):
    source = Shards(sharded / "train")
    assert len(source.sizes) == 24, "one cut per shard: small splits stay divisible among many streams"
    expected = read_frames(Manifests([prepared.senones / "cuts_train.jsonl.gz"]), prepared)
    found = read_frames(source, prepared, pool_frames=pool_frames)
    assert torch.equal(found.sort(0).values, expected.sort(0).values)
    dealt = [read_frames(source, prepared, streams=Streams(2, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat(dealt).sort(0).values, expected.sort(0).values)


def test_a_network_learns_from_shards(prepared, sharded, store, tmp_path, inline):
    settings = config(prepared, tmp_path / "network", epochs=2, soft_targets=store, temperature=2.0)
    settings.cuts = sharded
    train.main(settings)
    assert stage_figures(tmp_path / "network" / "seed-0")["dev_accuracy"] > 70


def test_an_interrupted_stage_writes_the_missing_shards(prepared, tmp_path, inline):
    settings = shar.Config(cuts=prepared.senones, out=tmp_path / "shar", shard_frames=FRAMES, splits=("dev",))
    shar.main(settings)
    folder = tmp_path / "shar" / "dev"
    (folder / "000001.done").unlink()
    remark(tmp_path / "shar", "running")
    kept, again = folder / "features.000000.tar", folder / "features.000001.tar"
    before, content = kept.stat().st_mtime_ns, again.read_bytes()
    shar.main(settings)
    assert kept.stat().st_mtime_ns == before and again.read_bytes() == content


def test_damaged_shards_and_incompatible_flags_are_refused(prepared, tmp_path, inline):
    with pytest.raises(UserError, match="no cuts_eval"):
        shar.main(shar.Config(cuts=prepared.senones, out=tmp_path / "none", splits=("eval",)))
    with pytest.raises(UserError, match="cannot be reached"):
        shar.main(shar.Config(cuts=prepared.senones, out=tmp_path / "far", url="nowhere://place"))
    out = tmp_path / "shar"
    shar.main(shar.Config(cuts=prepared.senones, out=out))
    settings = config(prepared, tmp_path / "network", bootstrap=True)
    settings.cuts = out
    with pytest.raises(UserError, match="give no --bootstrap"):
        train.main(settings)
    tar = out / "train" / "features.000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"shard 0 of .* cannot be read"):
        Shards(out / "train").read(0)
