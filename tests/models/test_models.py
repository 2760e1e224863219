"""The paper's network, its checkpoints, and the logits of ensembles."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from training import remark

from asr_kd.common.errors import UserError
from asr_kd.common.storage import save_array, write_json
from asr_kd.models.checkpoints import load_log_prior, load_model, load_tensors, save_tensors
from asr_kd.models.dnn import DNN, dnn
from asr_kd.models.network import num_parameters
from asr_kd.models.posteriors import check_finite, ensemble_logits, posteriors
from asr_kd.models.windows import context_windows


def test_the_network_trains_in_a_plain_loop():
    """It needs nothing of asr_kd.train."""
    torch.manual_seed(0)
    network = dnn(4, 6, layers=2, width=32, left=1, right=1, dropout=0.1, batch_norm=True)
    model = network.build().train()
    windows, labels = torch.randn(64, 12), torch.arange(64) % 6
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(50):
        loss = F.cross_entropy(model.forward_windows(windows), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert num_parameters(model) == network.num_parameters()


def test_weights_have_the_names_of_checkpoints():
    model = DNN(40, 5, 2, 8, batch_norm=True)
    names = set(model.state_dict())
    layers = {f"hidden.{n}.{name}" for n in (0, 1) for name in ("weight", "bias")}
    norms = {f"norms.{n}.{name}" for n in (0, 1) for name in nn.BatchNorm1d(8).state_dict()}
    assert names == layers | norms | {"output.weight", "output.bias"}


@pytest.mark.parametrize("frames", [1, 31, 32, 33, 100])
def test_an_ensemble_scores_utterances_of_any_length(frames):
    torch.manual_seed(frames)
    models = [dnn(40, 6, layers=2, width=16, left=left, right=2).build().eval() for left in (1, 3)]
    for model in models:
        torch.nn.init.normal_(model.output.weight)
    features = torch.randn(frames, models[0].network.feature_dim)
    found = ensemble_logits(models, features.numpy())
    for model, logits in zip(models, found, strict=True):
        expected = model.forward_windows(context_windows(features, model.left, model.right))
        torch.testing.assert_close(logits, expected)
        assert logits.shape == (frames, 6)


def test_a_network_that_is_not_finite_is_no_network(teachers, tmp_path):
    shutil.copytree(teachers / "seed-0", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_tensors(weights)
    (tmp_path / "model" / "stage.json").unlink()
    tensors["output.bias"][1] = torch.nan
    with pytest.raises(UserError, match=r"would be no network \(output.bias is not finite\): lower the learning rate"):
        save_tensors(weights, tensors)
    load_model(tmp_path / "model")  # the file is still the old one
    save_file(tensors, weights)
    with pytest.raises(UserError, match=r"is no finished network \(output.bias is not finite\)"):
        load_model(tmp_path / "model")


def test_posteriors_that_are_not_finite_are_refused(teachers):
    model = load_model(teachers / "seed-0")
    features = np.zeros((5, model.network.feature_dim), np.float32)
    check_finite(posteriors([model], features), "a")
    features[2, 3] = np.nan
    with pytest.raises(UserError, match="posteriors of b are not finite"):
        check_finite(posteriors([model], features), "b")


def test_damaged_checkpoint_is_refused(teachers, tmp_path):
    shutil.copytree(teachers / "seed-0", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model.safetensors has changed since .* run that stage \(train\) again"):
        load_model(tmp_path / "model")
    weights.unlink()
    with pytest.raises(UserError, match="missing"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("network", [{"name": "dnn"}, {**dnn(40, 6).to_json(), "depth": 3}, None])
def test_a_description_of_another_version_is_named(teachers, tmp_path, network):
    shutil.copytree(teachers / "seed-0", tmp_path / "net")
    write_json(tmp_path / "net" / "model.json", {"preset": "tiny"} if network is None else {"network": network})
    remark(tmp_path / "net")
    with pytest.raises(UserError, match=r"model.json is damaged or of another version"):
        load_model(tmp_path / "net")


def test_a_prior_of_other_senones_is_named(teachers, tmp_path):
    shutil.copytree(teachers / "seed-0", tmp_path / "net")
    prior = load_log_prior(tmp_path / "net")
    save_array(tmp_path / "net" / "log_prior.npy", prior[:-1])
    remark(tmp_path / "net")
    with pytest.raises(UserError, match=rf"log_prior.npy .* the network has {len(prior)} senones"):
        load_log_prior(tmp_path / "net")
