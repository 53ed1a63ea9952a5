"""trueup's side of `benchmarks gold`: `trueup.rl(...)` with the demo's recipe, its policy kept every few iterations.

The clock starts where the loop is made, before the scale of scores is measured and the first evaluation is written:
both belong to the stage. The last evaluation comes after the last lap and gold is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import transformers.models.llama.modeling_llama  # noqa: F401  what importing costs is not what a stage costs
import transformers.models.qwen3.modeling_qwen3  # noqa: F401

import trueup
import trueup.train.rl
from trueup.runs import runs
from trueup.store import Workspace
from trueup.train.run_loop import Loop

from .gold_laps import Laps
from .job import Job, run


def ppo(job: Job) -> dict[str, Any]:
    laps = Laps(job["weights"], job["every"])

    class Watched(Loop):
        """The run's own loop, with a lap after each step."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            laps.start()

        def steps(self, examine: Callable[[], None] | None = None) -> Iterator[int]:
            for step in super().steps(examine):
                yield step
                laps.lap(step, self.modules[0].network)

    with Workspace.open(job["workspace"]) as ws, patch.object(trueup.train.rl, "Loop", Watched):
        trueup.rl(ws, policy=job["policy_id"], reward=job["reward_id"], prompts=job["prompts_id"], **job["rl"])
        kl = [row["kl"] for row in runs(ws)[-1].metrics()]
    return {"laps": laps.laps, "kl": kl, "version": f"trueup {trueup.__version__}"}


if __name__ == "__main__":
    run({"ppo": ppo})
