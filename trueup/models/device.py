"""Where to compute and in which type: chosen once, said plainly."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from functools import cache

import torch

from ..config import ModelSettings
from ..errors import ModelError

WORTH_IT = 0.7  # everything else but the products takes as long in 16 bits
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype
    why: str


ON_CPU = Placement(torch.device("cpu"), torch.float32, "float32 on the CPU, where nothing else is said")


def place(settings: ModelSettings) -> Placement:
    """Device and dtype for these settings. `auto` never surprises: its reason is in `why` and in `trueup env`."""
    gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not gpu:
        raise ModelError("model.device is 'cuda' but torch sees no GPU", "set model.device to 'cpu' or 'auto'")
    device = torch.device("cuda" if gpu and settings.device != "cpu" else "cpu")
    if settings.dtype != "auto":
        chosen, why = fastest(settings) if settings.dtype == "fastest" else (settings.dtype, "as was asked for")
        return Placement(device, getattr(torch, chosen), why)
    if device.type == "cpu":
        return Placement(device, torch.float32, "float32 is exact and, on most CPUs, as fast as bfloat16")
    if torch.cuda.is_bf16_supported():
        return Placement(device, torch.bfloat16, "this GPU computes bfloat16")
    return Placement(device, torch.float32, "this GPU has no bfloat16")


def fastest(settings: ModelSettings) -> tuple[str, str]:
    """The dtype for `fastest`, and why: settled once, when a run begins, so that resuming it measures nothing."""
    placement = place(settings.model_copy(update={"dtype": "auto"}))
    if placement.device.type != "cpu":
        return str(placement.dtype).removeprefix("torch."), placement.why
    share = _product_seconds(torch.bfloat16) / _product_seconds(torch.float32)
    dtype = "bfloat16" if share < WORTH_IT else "float32"
    return dtype, f"a matrix product in bfloat16 takes {share:.2f} of its time in float32 on this CPU"


def _product_seconds(dtype: torch.dtype) -> float:
    """CPU seconds of products of the size that layers have; the best of five, as the machine may be busy."""
    tokens, matrix = torch.ones(1024, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype)
    found = []
    for _ in range(6):
        before = time.process_time()
        for _ in range(4):
            tokens @ matrix.T
        found.append(time.process_time() - before)
    return min(found[1:])


def cores() -> int:
    """CPU cores that this process may use; a container or `taskset` allows fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int) -> int:
    """Set torch's CPU threads (0: all cores) and return how many. Part of what bitwise equality depends on."""
    torch.set_num_threads(count or cores())
    _keep_freed_memory()
    _sum_in_order()
    return torch.get_num_threads()


def _sum_in_order() -> None:
    """Gradients of a state that is read several times are summed in one order, whatever the threads do.

    By default torch adds them atomically, in the order the threads come: with two threads on a busy machine two equal
    runs parted after twenty steps. On a GPU this would refuse operations, and equality is not promised there.
    """
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # for debugging, and slow


def release_freed_memory() -> None:
    """Give what is free back to the system, on a CPU: for between two large passes that have nothing in common.

    The blocks that one leaves seldom fit the other, and kept, as they are within a pass, they would count twice. Taken
    again they cost a fifth of the time: this is for runs that were made small, those of adapters.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


@cache
def _keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of giving each large tensor back to the system and faulting it in again.

    That giving and taking was 5 to 10% of a training step on a CPU. Other allocators are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        mallopt(option, 1 << 30)


def out_of_memory(error: Exception) -> bool:
    """Did memory run out? Of a GPU the type tells, on a CPU only the words, which differ with the system."""
    said = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)
