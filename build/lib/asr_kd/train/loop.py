"""The training loop of one network, which can be resumed after every epoch.

Everything random in an epoch follows from the seed and the epoch, so a run that was killed and resumed ends with the
same weights as one that was not.
"""

import functools
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from asr_kd.common import distributed
from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import (
    atomic_open,
    load_array,
    path_fingerprint,
    save_array,
    stage_fingerprint,
    write_json,
)  # fmt: skip
from asr_kd.models.checkpoints import load_tensors, save_tensors
from asr_kd.models.dnn import DNN
from asr_kd.models.front_end import front_end_of
from asr_kd.models.network import num_parameters
from asr_kd.models.posteriors import compute_logits
from asr_kd.models.senones import senones_of
from asr_kd.train.augment import SpecAugment
from asr_kd.train.config import Config, cuts_of, training_cuts
from asr_kd.train.fit import Loader, one_cycle
from asr_kd.train.loaders import make_loader, open_source
from asr_kd.train.network import device_and_dtype_of, dtype_name, initial_network
from asr_kd.train.pools import Streams
from asr_kd.train.sequence import SequenceStep, sequence_criterion
from asr_kd.train.step import Step
from asr_kd.train.targets import open_targets
from asr_kd.train.tensor_parallel import TensorParallelStep, parallelize
from asr_kd.train.utterances import utterance_loader

ADAM = "adam."  # prefix of the names of the optimiser's moments in last.safetensors


def train_network(job: tuple[Config, int]) -> dict[str, Any]:
    """Train the network of one seed into OUT/seed-N, or resume after its last finished epoch.

    Returns:
        Figures for the completion mark: parameters, updates, the best dev frame accuracy and its epoch.
    """
    config, seed = job
    trainer = Trainer(config, seed)
    if config.lattices is not None and not trainer.epoch:
        print(f"{trainer.out} before training: {json.dumps(trainer.evaluate())}", flush=True)
    while trainer.epoch < config.epochs:
        trainer.train_epoch()
    best = max(trainer.log, key=lambda entry: entry[trainer.best_by])
    return {
        "parameters": num_parameters(trainer.model),
        "updates": trainer.updates,
        "best_epoch": best["epoch"],
        "dev_accuracy": best["dev_accuracy"],
    }


class Trainer:
    """The training of one network: model, optimiser, loaders and log."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.seed, self.rank = config, seed, distributed.rank()
        self.tensor_parallel = config.tensor_parallel and self.rank.size > 1
        self.out = config.out / f"seed-{seed}"
        torch.manual_seed(seed)
        self.model = initial_network(config)
        choose = functools.partial(device_and_dtype_of, config, self.model, self.out)
        self.device, self.dtype = distributed.broadcast_from_first(choose)
        self.soft_targets = open_targets(config, self.model, self.device)
        self.train_loader, self.dev_loader = self._loaders()
        self.best_by = "dev_accuracy" if config.lattices is None else "dev_criterion"
        self.updates_planned = config.epochs * len(self.train_loader)
        self.epoch, self.updates, self.log = 0, 0, []  # type: ignore[var-annotated]
        saved = self._load()
        if saved:
            self.model.load_state_dict({n: t for n, t in saved.items() if not n.startswith(ADAM)})
        self.step = self._step()
        for name, parameter in self.model.named_parameters():
            prefix = f"{ADAM}{name}."
            self.step.optimizer.state[parameter] = {
                key.removeprefix(prefix): self.step.scatter(value.to(self.device), parameter)
                for key, value in saved.items()
                if key.startswith(prefix)
            }
        distributed.broadcast_from_first(self._write_description)

    def _loaders(self) -> tuple[Loader, Loader]:
        """Return the batches of train and of dev."""
        config, bootstrap = self.config, self.seed if self.config.bootstrap else None
        if config.lattices is not None:
            train = utterance_loader(config, "train", self.device, self.out, self.soft_targets, bootstrap)
            return train, utterance_loader(config, "dev", self.device, self.out)
        streams = Streams(config.streams, *((0, 1) if self.tensor_parallel else (self.rank.number, self.rank.size)))
        loader = functools.partial(make_loader, config, self.model, self.dtype, self.device, streams)
        source = open_source(training_cuts(config), bootstrap, self.soft_targets, self.out)
        augment = SpecAugment.of(config, self.model)
        return loader(source, self.soft_targets, augment), loader(open_source([cuts_of(config, "dev")]))

    def _step(self) -> Step:
        config = self.config
        temperature = self.soft_targets.temperature if self.soft_targets is not None else 1.0
        settings = (temperature, config.hard_weight, self.dtype, config.weight_decay, config.clip)
        if self.tensor_parallel:
            assert isinstance(self.model, DNN)
            shard = parallelize(self.model, distributed.device_mesh(self.device))
            return TensorParallelStep(self.model.to(self.device), shard, *settings)
        if config.lattices is not None:
            criterion = sequence_criterion(config, self.device)
            return SequenceStep(criterion, config.smoothing, self.model.to(self.device), *settings)
        return Step(self.model.to(self.device), *settings)

    def train_epoch(self) -> None:
        """Train on all frames once; evaluate, write the checkpoints and a line of log.jsonl."""
        title = f"{self.config.out.name} seed {self.seed} epoch {self.epoch + 1}/{self.config.epochs}"
        started = time.time()
        frames, means = self._train_batches(title)
        seconds = time.time() - started
        self.epoch += 1
        entry = {
            "epoch": self.epoch,
            "updates": self.updates,
            "seconds": round(seconds, 1),
            "frames_per_second": round(frames / seconds),
            **means,
            **self.evaluate(),
        }
        correct, labelled = entry.pop("train_correct"), entry.pop("train_labelled")
        entry["train_accuracy"] = 100 * correct / labelled if labelled else 0.0
        if not all(map(math.isfinite, entry.values())):
            raise UserError(
                f"the loss of {self.out} is not finite in epoch {self.epoch}: lower --learning-rate; if that does not "
                "help, look for features or soft targets that are not finite"
            )
        self.log.append(entry)
        self._save()
        if self.rank.first:
            left = seconds * (self.config.epochs - self.epoch)
            criterion = f"{self.config.criterion} {entry['dev_criterion']:.4f} on dev, " if self.config.lattices else ""
            print(
                f"{title}: {criterion}frame accuracy {entry['dev_accuracy']:.2f} % on dev, "
                f"{entry['train_accuracy']:.2f} % on train; {seconds:.0f} s, about {left / 60:.1f} min left",
                flush=True,
            )

    def _train_batches(self, title: str) -> tuple[float, dict[str, float]]:
        """Train on all frames once; return their number and the means of what ``Step`` returns."""
        self.model.train()
        self.step.reseed(self.seed * 1000 + self.epoch)
        sums: dict[str, Tensor] = {}
        frames = 0
        batches = self.train_loader.epoch((0 if self.config.same_order else self.seed) * 1000 + self.epoch)
        for batch in progress(batches, title, len(self.train_loader), "batch", shown=self.rank.first):
            # The sums stay on the device, so that the loop does not wait for it.
            for name, value in self.step(batch, self.learning_rate()).items():
                sums[name] = sums.get(name, 0.0) + value.double() * len(batch.labels)
            self.updates += 1
            frames += len(batch.labels)
        names = sorted(sums)
        total, *totals = self._sum_over_processes([frames, *(sums[name].item() for name in names)])
        return total, {f"train_{name}": value / total for name, value in zip(names, totals, strict=True)}

    def learning_rate(self) -> float:
        return self.config.learning_rate * one_cycle(self.updates / self.updates_planned)

    def evaluate(self) -> dict[str, float]:
        """Return the frame accuracy in per cent and the mean cross-entropy in nats on the dev cuts; with lattices also
        the criterion."""
        self.model.eval()
        loss = correct = frames = criterion = 0.0
        for batch in self.dev_loader.epoch(0):
            logits = compute_logits(self.model, batch.inputs, self.dtype, batch.chunks)
            loss += self.step.cross_entropy(logits, batch.labels).item() * len(batch.labels)
            correct += (self.step.argmax(logits) == batch.labels).sum().item()
            frames += len(batch.labels)
            if isinstance(self.step, SequenceStep):
                criterion += self.step.criterion_of(logits, batch).item() * len(batch.labels)
        loss, correct, frames = self._sum_over_processes([loss, correct, frames])
        figures = {"dev_accuracy": 100 * correct / frames, "dev_loss": loss / frames}
        return figures | ({"dev_criterion": criterion / frames} if isinstance(self.step, SequenceStep) else {})

    def _write_description(self) -> None:
        """Write what decoding needs in addition to the weights: model.json and the senone prior."""
        config = self.config
        write_json(
            self.out / "model.json",
            {
                "network": self.model.network.to_json(),
                "features": stage_fingerprint(config.features),
                "front_end": front_end_of(config.features),
                "senones": senones_of(config.cuts),
                "precision": dtype_name(self.dtype),
                "soft_targets": path_fingerprint(config.soft_targets) if config.soft_targets else None,
            },
        )
        counts = load_array(config.cuts / "pdf_counts.npy").astype(np.float64) + 1.0
        save_array(self.out / "log_prior.npy", np.log(counts / counts.sum()).astype(np.float32))

    def _sum_over_processes(self, values: Sequence[float]) -> list[float]:
        if self.tensor_parallel:
            return list(values)
        return distributed.all_reduce_sum(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def _save(self) -> None:
        weights: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        if self.rank.first or self.tensor_parallel:  # a split network is gathered by all processes
            weights = self._gather(self.model.state_dict())
            for name, parameter in self.model.named_parameters():
                state = self.step.optimizer.state[parameter]
                moments |= self._gather({f"{ADAM}{name}.{key}": value for key, value in state.items()})
        distributed.broadcast_from_first(lambda: self._write(weights, moments))

    def _gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.step.gather(value.detach()).cpu().contiguous() for name, value in tensors.items()}

    def _write(self, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        entry = self.log[-1]
        if entry[self.best_by] >= max(e[self.best_by] for e in self.log):
            save_tensors(self.out / "model.safetensors", weights)
        # One file holds weights, moments and log, so a kill at any moment leaves one consistent epoch.
        save_tensors(self.out / "last.safetensors", weights | moments, {"log": json.dumps(self.log)})
        with atomic_open(self.out / "log.jsonl") as file:
            file.writelines(json.dumps(line) + "\n" for line in self.log)
        with atomic_open(self.out / "tensorboard" / f"events.out.tfevents.{self.epoch:05d}", "wb") as file:
            board = RecordWriter(file)
            board.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            values = [Summary.Value(tag=name, simple_value=value) for name, value in entry.items()]
            event = Event(wall_time=time.time(), step=self.updates, summary=Summary(value=values))
            board.write(event.SerializeToString())

    def _load(self) -> dict[str, Tensor]:
        """Return the weights and moments of the last finished epoch, if there is one, and restore its log."""
        last = self.out / "last.safetensors"
        if not last.is_file():
            return {}
        tensors = load_tensors(last)
        with safe_open(last, "pt") as file:
            self.log = json.loads(file.metadata()["log"])
        self.epoch, self.updates = self.log[-1]["epoch"], self.log[-1]["updates"]
        if self.rank.first:
            print(f"{self.out}: resuming after epoch {self.epoch}", flush=True)
        return tensors
