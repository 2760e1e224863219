"""The dtype of matrix products: measured, remembered, and the same for all processes of a machine."""

import json

import pytest
import torch

from asr_kd.models import device
from asr_kd.models.device import MIN_SPEEDUP, device_and_dtype, largest_layer, speedup
from asr_kd.models.dnn import DNN


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    speedup.cache_clear()
    yield tmp_path / "asr_kd" / "products.json"
    speedup.cache_clear()


def test_products_are_measured_once_a_machine(cache):
    size = largest_layer(DNN(8, 5, layers=2, width=64))
    assert size == (26 * 8, 64)
    ratio = speedup("cpu", size)
    assert ratio > 0
    ((key, written),) = json.loads(cache.read_text()).items()
    assert written == ratio and "208×64" in key and torch.__version__ in key
    expected = torch.bfloat16 if ratio >= MIN_SPEEDUP else torch.float32
    assert device_and_dtype("cpu", "auto", size) == ("cpu", expected)


@pytest.mark.parametrize(("ratio", "dtype"), [(0.53, torch.float32), (1.19, torch.float32), (1.2, torch.bfloat16)])
def test_what_was_measured_decides_whatever_the_processor_announces(cache, ratio, dtype):
    speedup("cpu", (16, 8))
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: ratio}))
    speedup.cache_clear()
    assert device_and_dtype("cpu", "auto", (16, 8))[1] == dtype
    assert device_and_dtype("cpu", "float32", (16, 8))[1] == torch.float32
    assert device_and_dtype("cpu", "bfloat16", (16, 8))[1] == torch.bfloat16


@pytest.mark.parametrize("content", ["", "[1]", '{"a": "b"}', None])
def test_a_damaged_or_missing_cache_is_measured_again(cache, content):
    if content is None:
        cache.parent.parent.joinpath("asr_kd").write_text("a file in the folder's place")
    else:
        cache.parent.mkdir()
        cache.write_text(content)
    assert speedup("cpu", (16, 8)) > 0


def test_a_user_without_a_home_measures_every_time(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    speedup.cache_clear()
    assert speedup("cpu", (16, 8)) > 0
    assert not list(tmp_path.iterdir())
    speedup.cache_clear()


def test_measuring_draws_no_random_numbers():
    before = torch.get_rng_state()
    device._measure("cpu", (16, 8))
    assert torch.equal(before, torch.get_rng_state())
