"""What all tests of the losses share."""

import pytest

from asr_kd.losses import lean


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    """Chunks of few frames, so that every example takes several."""
    monkeypatch.setattr(lean, "CPU_CHUNK", 20)
