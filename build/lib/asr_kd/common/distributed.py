"""Processes that train one network together: those started by ``torchrun``, or this process alone."""

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
    """A process among those that work together.

    Attributes:
        number: from 0 to ``size`` − 1.
        size: number of processes.
    """

    number: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.number == 0


def rank() -> Rank:
    """Return the rank of this process."""
    return Rank(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else Rank()


@contextlib.contextmanager
def process_group(device: str) -> Iterator[Rank]:
    """Connect to the other processes if ``torchrun`` started this one: over NCCL on GPUs, otherwise over gloo.

    Args:
        device: of the network: cpu, cuda, or auto.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Rank()
        return
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, number, size = next(dist.rendezvous("env://"))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # After a restart, torchrun's store still has the addresses of the killed processes, and gloo waits for them.
        store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    # If it is imported later, one of its default arguments keeps the group and the group's threads until the end.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if on_gpus else "gloo", store=store, rank=number, world_size=size)
    try:
        yield rank()
    finally:
        dist.destroy_process_group()
        gc.collect()  # The threads end with the last reference; the interpreter may abort if it ends before them.


def device_mesh(device: str) -> DeviceMesh:
    """Return the devices of all processes, in a group of their own: torch never releases that group and its threads.

    Args:
        device: cpu or cuda.
    """
    return DeviceMesh.from_group(dist.new_group(), device)


def broadcast_from_first(make: Callable[[], Value]) -> Value:
    """Call ``make`` in the first process, and return its result, or raise its exception, in all processes."""
    if rank().size == 1:
        return make()
    result: list[Any] = [None, None]
    if rank().first:
        try:
            result[0] = make()
        except Exception as error:
            result[1] = error
    dist.broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return result[0]


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return ``values`` summed over all processes, as are their gradients."""
    return values if rank().size == 1 else all_reduce(values)
