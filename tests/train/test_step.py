"""One update of a network, and the loss that it minimises."""

import pytest
import torch
from torch.nn import functional as F

from asr_kd.losses import frame_kd_loss
from asr_kd.losses.frames import UNLABELLED
from asr_kd.models.dnn import dnn
from asr_kd.train.batches import Batch
from asr_kd.train.step import Step


@pytest.fixture
def step() -> Step:
    torch.manual_seed(0)
    model = dnn(40, 6, layers=1, width=16, left=1, right=1, dropout=0.0).build()
    return Step(model, temperature=2.0, hard_weight=0.3, dtype=torch.float32, weight_decay=0.0)


def test_frames_without_a_label_learn_from_soft_targets_alone(step):
    logits, soft = torch.randn(10, 6), torch.randn(10, 6).softmax(1)
    labels = torch.randint(6, (10,))
    labels[4:] = UNLABELLED
    values = step.loss(logits, Batch(logits, labels, soft))
    cross_entropy = -(soft * F.log_softmax(logits / 2, 1)).sum(1) * 4
    hard = F.cross_entropy(logits[:4], labels[:4], reduction="none")
    expected = (0.7 * cross_entropy[:4] + 0.3 * hard).sum() + cross_entropy[4:].sum()
    torch.testing.assert_close(values["loss"], expected / 10)
    torch.testing.assert_close(values["kl"], frame_kd_loss(logits, soft, temperature=2.0).kl)
    torch.testing.assert_close(values["hard"], hard.mean())


def test_updates_reduce_the_loss_and_count_correct_frames(step):
    windows, labels = torch.randn(40, 3 * 40), torch.arange(40) % 6
    labels[:10] = UNLABELLED
    batch = Batch(windows, labels, torch.randn(40, 6).softmax(1))
    first, *_, last = (step(batch, 1e-2) for _ in range(20))
    assert last["loss"] < first["loss"]
    assert first["labelled"] == 0.75 and 0 <= first["correct"] <= last["correct"] <= 0.75
