"""The clock of the measurements: seconds that a core computes, so that other work on the machine does not count.

A plan is for cores that have nothing else to do, and it counts the time of the disk by itself.
"""

import resource
import time
from collections.abc import Callable

import torch

#: Minimum seconds of a measurement.
MIN_SECONDS = 1.0


def computed() -> float:
    """Seconds that cores have computed for this process and for those that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Mean seconds of a call, of a core or of the GPU, over several calls after one to warm up."""
    clock = computed if device == "cpu" else time.perf_counter
    function()
    calls, begun = 0, clock()
    while (taken := clock() - begun) < MIN_SECONDS or calls < 3:
        function()
        calls += 1
        if device != "cpu":
            torch.cuda.synchronize()
    return taken / calls
