"""Processes that train one network together: those that ``torchrun`` starts, or this one alone."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.nn.functional import all_reduce

Value = TypeVar("Value")


@dataclass(frozen=True)
class Rank:
    """Attributes: number, of so many (``size``)."""

    number: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what all have made."""
        return self.number == 0


def rank() -> Rank:
    """This process's."""
    return Rank(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else Rank()


@contextlib.contextmanager
def process_group(device: str) -> Iterator[Rank]:
    """Join the other processes, if ``torchrun`` started this one: over NCCL on GPUs, else over gloo.

    Args:
        device: where the network will be: cpu, cuda, or auto.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Rank()
        return
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, number, size = next(dist.rendezvous("env://"))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # After a restart torchrun's store still holds the addresses of the killed processes, and gloo waits for them.
        store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    # Imported later, it would keep the group as a default argument, and so the group's threads, for ever.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if on_gpus else "gloo", store=store, rank=number, world_size=size)
    try:
        yield rank()
    finally:
        dist.destroy_process_group()
        gc.collect()  # The threads end with the last reference; an interpreter that ends before them may abort.


def device_mesh(device: str) -> DeviceMesh:
    """All processes' devices, in a group of their own: torch keeps it, and its threads, for ever.

    Args:
        device: cpu or cuda.
    """
    return DeviceMesh.from_group(dist.new_group(), device)


def broadcast_from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, for all; an exception there is raised in all."""
    if rank().size == 1:
        return make()
    found: list[Any] = [None, None]
    if rank().first:
        try:
            found[0] = make()
        except Exception as error:
            found[1] = error
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


def all_reduce_sum(values: Tensor) -> Tensor:
    """``values`` summed over all processes; gradients are, too."""
    if rank().size == 1:
        return values

    return all_reduce(values)
