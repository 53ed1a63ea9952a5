"""The same rollout through trueup's PPO, through TRL's, and through a float64 implementation of both.

    python -m benchmarks same-ppo [--json]

Five cases, each with random models (policy, reference, reward model and a critic of its own) and a rollout that
trueup's sampler wrote. Compared are log-probs, KL, rewards, values, advantages, returns, losses, the gradient of every
parameter in every update, and the weights after the last one.

- trueup and the float64 implementation have to agree on everything.
- TRL and the float64 implementation have to agree on everything, once that one does as TRL does: each way in which TRL
  departs has a name there. How much a way matters is what leaving it out changes.
- trueup and TRL have to agree directly where both mean the same.

TRL 1.12.0 is the last release with a PPOTrainer. Its environment is made once, in `.peers`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from .peers import trl_python
from .same_ppo_cases import Case, Shape, Weights, cases, random_weights, save, write_rollout
from .same_ppo_ways import MEAN_OF_MEANS, UNLIMITED_KL, WAYS

HERE = Path(__file__).parent
TRL = "1.12.0"
CLOSE = 1e-5
QUANTITIES = {
    "score": "score", "logprobs": "log-probs of the policy", "reference_logprobs": "log-probs of the reference",
    "kl": "KL", "rewards": "rewards", "values": "values", "advantages": "advantages", "returns": "returns",
    "policy_loss": "policy loss", "value_loss": "value loss", "loss": "whole loss",
    "gradient/policy": "gradient of the policy", "gradient/value": "gradient of the value",
    "weights/policy": "weights of the policy", "weights/value": "weights of the value",
    "approx_kl": "logged figures", "real": "logged figures", "log": "logged figures",
}  # fmt: skip
ROLLOUT = ("score", "logprobs", "reference_logprobs", "kl", "rewards", "values", "advantages", "returns")
SHOWN_BY = {MEAN_OF_MEANS: "uneven, accumulated", UNLIMITED_KL: "far away"}  # the others by "uneven"
LOGGED = ("approx_kl", "ratio", "entropy")
Numbers = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """One case by all three. `undone` is trueup with advantages whitened by the sample variance, as TRL's are."""

    case: Case
    weights: Weights
    rows: Sequence[Mapping[str, Any]]
    orders: Sequence[Sequence[int]]
    trueup: Numbers
    undone: Numbers
    trl: Numbers

    def float64(self, ways: Sequence[str] = ()) -> Numbers:
        from .same_ppo_float64 import Ppo

        return Ppo(self.case.to_json(), self.rows, self.weights, ways).run(self.orders)

    def agreement(self) -> dict[str, dict[str, float]]:
        direct = apart(self.undone, self.trl)
        return {
            "trueup and float64": apart(self.trueup, self.float64()),
            "TRL and float64 with TRL's ways": apart(self.trl, self.float64(WAYS)),
            "trueup and TRL": {name: d for name, d in direct.items() if name not in self.case.apart},
        }

    def size(self, way: str) -> dict[str, float]:
        """What one of TRL's ways changes: in the rollout's numbers, and in the first update."""
        others = [other for other in WAYS if other != way]
        changed = apart(_first(self.float64(WAYS)), _first(self.float64(others)))
        return {name: d for name, d in changed.items() if d > CLOSE}


@click.command("same-ppo")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--hidden", type=click.IntRange(16), default=32, show_default=True, help="Width; a multiple of 8.")
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--trl", "python", metavar="PYTHON", help="Python of an environment with TRL 1.12.0; else one is made.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="Also keep TRL's numbers in FILE.json and .safetensors."
)
@click.option("--json", "as_json", is_flag=True)
def same_ppo(seed: int, hidden: int, layers: int, python: str | None, record: Path | None, as_json: bool) -> None:
    """PPO on one rollout, number by number, beside TRL and beside float64."""
    if hidden % 8:
        raise click.BadParameter("four heads of an even width each: a multiple of 8", param_hint="--hidden")
    shape = Shape(hidden, layers)
    with tempfile.TemporaryDirectory() as folder:
        measured, versions = measure(cases(shape), seed, python or trl_python(TRL), Path(folder))
    found = compared(measured) | {"seed": seed, "shape": {"hidden": hidden, "layers": layers}, "versions": versions}
    if record:
        keep(record, measured, seed, versions)
    click.echo(json.dumps(found, indent=1) if as_json else text(found))
    sys.exit(0 if found["ok"] else 1)


def measure(chosen: Sequence[Case], seed: int, python: str, folder: Path) -> tuple[list[Measured], dict[str, str]]:
    from . import same_ppo_trueup as ours

    os.environ.setdefault("TRUEUP_QUIET", "1")
    half, folders = [], []
    for i, case in enumerate(chosen):
        click.echo(f"{case.name}: trueup", err=True)
        weights = random_weights(case, seed)
        rows = write_rollout(case, weights, seed)
        own, orders = ours.run(case, weights, rows)
        undone, _ = ours.run(case, weights, rows, sample_variance=True)
        folders.append(folder / str(i))
        folders[-1].mkdir()
        save(folders[-1], case, weights, rows, orders)
        half.append((case, weights, rows, orders, own, undone))
    click.echo("all cases: TRL", err=True)
    versions, theirs = by_trl(python, folders)
    return [Measured(*each, numbers) for each, numbers in zip(half, theirs, strict=True)], versions


def by_trl(python: str, folders: Iterable[Path]) -> tuple[dict[str, str], list[Numbers]]:
    """What TRL makes of the cases saved in `folders`."""
    from safetensors.numpy import load_file

    folders = list(folders)
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [python, str(HERE / "same_ppo_trl.py"), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
    if done.returncode:
        raise click.ClickException(f"TRL's side failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1]), [load_file(folder / "trl.safetensors") for folder in folders]


def compared(measured: Sequence[Measured]) -> dict[str, Any]:
    agreement = {each.case.name: each.agreement() for each in measured}
    by_name = {each.case.name: each for each in measured}
    uneven = by_name["uneven"]
    sizes = {way: by_name[SHOWN_BY.get(way, "uneven")].size(way) for way in WAYS}
    logs = {name: [float(uneven.trl[f"{of}/{name}"]) for of in ("log", "real")] for name in LOGGED}
    norms = {"by TRL": norm(uneven.trl), "by trueup": norm(uneven.trueup)}
    worst = max(d for pairs in agreement.values() for each in pairs.values() for d in each.values())
    return {
        "agreement": agreement,
        "worst": worst,
        "ways": sizes,
        "padding": 1 - uneven.trl["logprobs"].size / (len(uneven.rows) * max(len(r["tokens"]) for r in uneven.rows)),
        "logged_and_over_tokens": logs,
        "first_gradient_norm": norms | {"limit": uneven.case.optimizer["grad_clip"]},
        "ok": worst < CLOSE and all(sizes.values()),
    }


def norm(numbers: Numbers) -> float:
    """Of the policy's first gradient as the optimizer got it."""
    own = (g for name, g in numbers.items() if name.startswith("0/gradient/policy/"))
    return float(np.sqrt(sum((g**2).sum() for g in own)))


def apart(one: Numbers, other: Numbers) -> dict[str, float]:
    """The largest difference in each quantity that both have: of gradients as a share of the largest entry of their
    model's gradient, of everything else as a share of its largest number where that is above 1."""
    found: dict[str, float] = {}
    for name in one.keys() & other.keys():
        assert one[name].shape == other[name].shape, name
        difference = float(np.abs(one[name] - other[name]).max()) / _scale(name, other)
        found[quantity(name)] = max(found.get(quantity(name), 0.0), difference)
    return {name: found[name] for name in dict.fromkeys(QUANTITIES.values()) if name in found}


def quantity(name: str) -> str:
    """`0/gradient/policy/norm.weight` is of the gradient of the policy."""
    parts = name.removesuffix("_behind").split("/")
    kind = parts[1:] if parts[0].isdigit() else parts
    return QUANTITIES["/".join(kind[:2]) if kind[0] in ("gradient", "weights") else kind[0]]


def _scale(name: str, numbers: Numbers) -> float:
    if "/gradient/" not in name:
        return max(1.0, float(np.abs(numbers[name]).max()))
    model = "/".join(name.split("/")[:3]) + "/"
    largest = max(float(np.abs(each).max()) for other, each in numbers.items() if other.startswith(model))
    return largest or 1.0  # no gradient at all, where every token is clipped


def _first(numbers: Numbers) -> Numbers:
    """The rollout and the first update: in later ones one difference would bring in all the others."""
    return {name: each for name, each in numbers.items() if name.startswith("0/") or name in ROLLOUT}


def keep(path: Path, measured: Sequence[Measured], seed: int, versions: Mapping[str, str]) -> None:
    """Rollouts, and TRL's numbers."""
    from safetensors.numpy import save_file

    told = [{"name": m.case.name, "rows": m.rows, "orders": m.orders} for m in measured]
    shape = {"hidden": measured[0].case.shape.hidden, "layers": measured[0].case.shape.layers}
    path.with_suffix(".json").write_text(
        json.dumps({"seed": seed, "shape": shape, "versions": versions, "cases": told}, indent=1) + "\n"
    )
    numbers = {f"{m.case.name}/{n}": each.astype(np.float32) for m in measured for n, each in _kept(m).items()}
    save_file(numbers, path.with_suffix(".safetensors"))


def _kept(measured: Measured) -> Numbers:
    """Not the later gradients; and the last weights where TRL and trueup are to agree on them."""
    return {
        name: each
        for name, each in measured.trl.items()
        if ("/gradient/" not in name or name.startswith("0/"))
        and (not name.startswith("weights/") or not measured.case.apart)
    }


def text(found: Mapping[str, Any]) -> str:
    """The largest difference of each quantity in any case where the pair is meant to agree, then where it is not."""
    pairs = list(next(iter(found["agreement"].values())))
    lines = [" " * 28 + "  ".join(pairs)]
    for name in dict.fromkeys(QUANTITIES.values()):
        lines.append(f"{name:<28}" + "  ".join(f"{_worst(found, pair, name):<{len(pair)}}" for pair in pairs))
    lines.append("what a way of TRL's changes")
    for way, differences in found["ways"].items():
        lines.append(f"  {way}: " + ", ".join(f"{name} {d:.2g}" for name, d in differences.items()))
    lines.append(f"logged by TRL, and over tokens alone ({found['padding']:.0%} of the places are padding)")
    lines += [f"  {name}: {a:.4g}, {b:.4g}" for name, (a, b) in found["logged_and_over_tokens"].items()]
    norms = found["first_gradient_norm"]
    lines.append(
        f"norm of the policy's first gradient {norms['by TRL']:.3g} in TRL, {norms['by trueup']:.3g} in trueup"
    )
    lines.append(f"largest difference where there should be none: {found['worst']:.1e}")
    return "\n".join(lines)


def _worst(found: Mapping[str, Any], pair: str, name: str) -> str:
    there = [each[pair][name] for each in found["agreement"].values() if name in each[pair]]
    return f"{max(there):.1e}" if there else "-"
