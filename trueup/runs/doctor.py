"""Reads a run and says in words what is wrong with it, and what to try. It looks; it changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import RunError
from ..store import Workspace
from .loss_checks import LOSS_CHECKS, Check
from .reading import Finding, Reading
from .rl_checks import RL_CHECKS
from .run import Run

USUAL = ("score", "kl", "length", "loss", "heldout_score", "heldout_loss")  # what is shown where nothing is wrong
LOSSES = ("pretrain", "sft", "reward", "dpo", "kto", "ilql")


@dataclass(frozen=True)
class Diagnosis:
    """Findings in order: what stands first explains what stands behind it. `curves` are metrics they speak of."""

    run: str
    stage: str
    status: str
    steps: int
    findings: tuple[Finding, ...]
    curves: dict[str, list[float]]

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "fault"]

    @property
    def sound(self) -> bool:
        return not self.faults


def doctor(ws: Workspace, run: str) -> Diagnosis:
    """What is wrong with a run, by its id or the beginning of it: the cause first, then what may only follow from it.

    A fault is something to act on, a note something to know.
    """
    return diagnose(Run.load(ws, run))


def diagnose(run: Run) -> Diagnosis:
    checks = _checks(run)
    reading = Reading(run)
    found = [_addressed(finding, run) for check in checks if (finding := check(reading))]
    found.sort(key=lambda finding: finding.severity != "fault")  # stable: the order of the checks otherwise stays
    return Diagnosis(run.id, run.stage, run.status, reading.steps, tuple(found), _curves(reading, found))


def _addressed(finding: Finding, run: Run) -> Finding:
    """Commands that can be copied as they are."""
    return replace(finding, tries=tuple(each.replace(" RUN`", f" {run.id}`") for each in finding.tries))


def _checks(run: Run) -> Sequence[Check]:
    online = run.stage == "dpo" and run.config.get("online")
    if run.stage == "rl" or online:
        return RL_CHECKS
    if run.stage in LOSSES:
        return LOSS_CHECKS
    raise RunError(
        f"run {run.id} is of stage '{run.stage}', which learns nothing",
        f"the doctor reads runs of {', '.join(('rl', *LOSSES))}: `trueup runs list`",
    )


def _curves(reading: Reading, findings: Sequence[Finding]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for finding in findings for name in finding.metrics) or dict.fromkeys(USUAL)
    curves = {name: reading.values(name).tolist() for name in names}
    return {name: values for name, values in curves.items() if len(values) > 1}
