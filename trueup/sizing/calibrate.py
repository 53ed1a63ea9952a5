"""This machine, measured in a few seconds: products at a model's own shapes, attention, memory, and a small call.

Kept in a file, one for each machine, number of threads, number type and shape. On a CPU the seconds are those of the
process, so that what else runs on the machine does not count; they are shared out over the threads.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..config import ModelSettings
from ..models.device import cores, place
from ..store.files import atomic_write
from .machines import Machine
from .passes import Rows, count_pass

ROUNDS, LEAST = 9, 0.2  # measurements of each, the middle one of which counts, and seconds each takes at least
TOKENS, DECODED = 2048, 32  # rows of a product in training, and in sampling
KEPT = 24  # results that are kept, as autograd does: each lies in memory that no cache has
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Matrices (in, out) that products are measured on, and the width and heads of attention."""

    matrices: tuple[tuple[int, int], ...]
    width: int
    heads: int
    row: int


def this_machine(shapes: Measured, settings: ModelSettings, *, threads: int = 0, again: bool = False) -> Machine:
    """The machine at hand, from its file or measured now. `settings` say the device and the number type."""
    placement, threads = place(settings), threads or cores()
    described = describe(placement.device, placement.dtype, threads) | {"shapes": asdict(shapes)}
    path = folder() / f"{_digest(described)}.json"
    if path.is_file() and not again:
        return Machine(**json.loads(path.read_text())["machine"])
    machine = _measure(shapes, placement.device, placement.dtype, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps({"of": described, "machine": asdict(machine)}, indent=1) + "\n").encode())
    return machine


def describe(device: torch.device, dtype: torch.dtype, threads: int) -> dict[str, object]:
    """What a measurement is only good for."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": device.type, "name": name, "threads": threads, "dtype": str(dtype), "torch": torch.__version__}


def folder() -> Path:
    """$TRUEUP_CACHE, else the user's own folder for what can be made again."""
    if given := os.environ.get("TRUEUP_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trueup" / "machines"


def _measure(shapes: Measured, device: torch.device, dtype: torch.dtype, threads: int) -> Machine:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds = _Clock(device, threads)
        return Machine(
            str(describe(device, dtype, threads)["name"]),
            device.type,
            _memory(device),
            _products(seconds, shapes.matrices, TOKENS, device, dtype),
            _products(seconds, shapes.matrices, DECODED, device, dtype),
            _attention(seconds, shapes, device, dtype),
            _bandwidth(seconds, shapes, device, dtype),
            _call(seconds, device),
            how=f"measured here with {threads} CPU threads" if device.type == "cpu" else "measured here",
        )
    finally:
        torch.set_num_threads(before)


class _Clock:
    """Seconds that one call of some work takes: the middle one of a few measurements."""

    def __init__(self, device: torch.device, threads: int) -> None:
        self.device, self.threads = device, threads

    def __call__(self, work: Callable[[], object]) -> float:
        work()
        return median(self._once(work) for _ in range(ROUNDS))

    def _once(self, work: Callable[[], object]) -> float:
        done, start = 0, self._now()
        while self._now() - start < LEAST:
            work()
            done += 1
        return (self._now() - start) / done

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time() / self.threads


def _products(
    seconds: _Clock, matrices: Sequence[tuple[int, int]], tokens: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Operations a second over all the matrices of a layer; in training also those of the backward pass."""
    made = [
        tuple(torch.randn(*size, device=device, dtype=dtype) for size in ((tokens, a), (b, a), (tokens, b)))
        for a, b in matrices
    ]
    trains = tokens == TOKENS

    def work() -> None:
        for x, weight, back in made:
            x @ weight.T
            if trains:
                (back @ weight, back.T @ x)

    return (3 if trains else 1) * sum(2.0 * tokens * a * b for a, b in matrices) / seconds(work)


def _attention(seconds: _Clock, shapes: Measured, device: torch.device, dtype: torch.dtype) -> float:
    """Rows one by one, as they go without padding, forwards and backwards."""
    heads, row = shapes.heads, shapes.row
    dtype = torch.float32 if device.type == "cpu" else dtype
    size = (1, heads, row, shapes.width // heads)
    parts = query, key, value = [torch.randn(size, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    back = torch.randn(size, device=device, dtype=dtype)

    def work() -> None:
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        torch.autograd.grad(found, parts, back)

    return 3.5 * 2.0 * row * row * shapes.width / seconds(work)


def _bandwidth(seconds: _Clock, shapes: Measured, device: torch.device, dtype: torch.dtype) -> float:
    """Bytes read and written by simple operations on states of a pass, whose results stay for a while."""
    a, b = (torch.randn(TOKENS, shapes.width, device=device, dtype=dtype) for _ in range(2))
    wide = torch.randn(TOKENS, max(max(pair) for pair in shapes.matrices), device=device, dtype=dtype)
    kept: deque[torch.Tensor] = deque(maxlen=KEPT)

    def work() -> None:
        for found in (a * b, a + b, torch.nn.functional.silu(wide), wide * wide, a.pow(2), torch.cat((a, b), -1)):
            kept.append(found)

    moved = (3 + 3 + 2 + 4) * a.numel() + (2 + 3) * wide.numel()
    return wide.element_size() * moved / seconds(work)


def _call(seconds: _Clock, device: torch.device) -> float:
    """Starting an operation, with its share of what the modules around it do: a pass whose numbers take no time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SMALL)
    network: Any = LlamaForCausalLM(config)
    trunk = network.to(device).eval().get_decoder()
    tokens = torch.zeros(1, 1, dtype=torch.long, device=device)
    calls = count_pass(config, ModelSettings(), torch.float32, Rows(1, 1), "nothing").calls
    with torch.no_grad():
        return seconds(lambda: trunk(input_ids=tokens, use_cache=False)) / calls


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "CPU")
    except FileNotFoundError:
        return platform.processor() or platform.machine()


def _digest(described: dict[str, object]) -> str:
    from ..records import digest

    return digest(described)
