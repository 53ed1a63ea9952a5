"""What a machine can do: known GPUs as their makers publish them, and this machine as it was measured."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError, nearest

GIB = 2**30
# How much of the published figures work like this reaches. Dense transformers in bfloat16 train at 40 to 50% of the
# published operations (arXiv 2104.04473 reports 44 to 52% on A100); a decoder reads memory at 50 to 70% of its speed.
REACHED_PRODUCTS, REACHED_ATTENTION, REACHED_BANDWIDTH = 0.45, 0.3, 0.6
CALL_ON_GPU = 8e-6  # seconds that Python and the driver take to start one operation


@dataclass(frozen=True)
class Machine:
    """Speeds that are reached, a second: operations of products, those of decoding, of attention; bytes moved."""

    name: str
    kind: str  # cpu or cuda
    memory: int
    products: float
    decoding: float
    attention: float
    bandwidth: float
    call: float  # seconds an operation takes to start
    link: float = 0.0  # bytes a second to the other GPUs of one machine
    how: str = ""


@dataclass(frozen=True)
class Gpu:
    memory: int  # GiB
    bfloat16: float  # dense operations a second, in 10^12
    float32: float
    bandwidth: float  # of its memory, in 10^9 bytes a second
    link: float  # one way, in 10^9 bytes a second


# NVIDIA's data sheets of each card; dense figures, without sparsity. RTX cards: bfloat16 with sums in float32.
GPUS = {
    "a100-40g": Gpu(40, 312, 19.5, 1555, 300),
    "a100-80g": Gpu(80, 312, 19.5, 2039, 300),
    "h100": Gpu(80, 989, 67, 3350, 450),
    "h200": Gpu(141, 989, 67, 4800, 450),
    "b200": Gpu(180, 2250, 80, 7700, 900),
    "l4": Gpu(24, 121, 30.3, 300, 32),
    "l40s": Gpu(48, 362, 91.6, 864, 32),
    "a10": Gpu(24, 125, 31.2, 600, 32),
    "a6000": Gpu(48, 155, 38.7, 768, 56),
    "rtx-4090": Gpu(24, 165, 82.6, 1008, 32),
    "rtx-3090": Gpu(24, 71, 35.6, 936, 56),
}


def known_gpu(name: str, dtype: str) -> Machine:
    """A GPU of the table, at the share of its published speeds that is usually reached."""
    key = name.lower()
    if key not in GPUS:
        raise ConfigError(
            f"no GPU called '{name}' is known{nearest(key, GPUS)}",
            f"known are {', '.join(GPUS)}; 'cpu' and 'this' measure the machine you are on",
        )
    gpu = GPUS[key]
    peak = (gpu.bfloat16 if dtype == "bfloat16" else gpu.float32) * 1e12
    return Machine(
        key,
        "cuda",
        gpu.memory * GIB,
        peak * REACHED_PRODUCTS,
        peak * REACHED_PRODUCTS,
        peak * REACHED_ATTENTION,
        gpu.bandwidth * 1e9 * REACHED_BANDWIDTH,
        CALL_ON_GPU,
        gpu.link * 1e9 * REACHED_BANDWIDTH,
        f"published figures; {REACHED_PRODUCTS:.0%} of the operations and {REACHED_BANDWIDTH:.0%} of the bandwidth",
    )
