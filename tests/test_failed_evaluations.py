"""A scorer that fails in the middle of a run costs at most the step it failed in, and resuming repeats nothing."""

from __future__ import annotations

import pytest
from small import nouns_asked, settings

from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.errors import RunError
from trueup.records import Score
from trueup.runs import Run
from trueup.train.online_dpo import online_dpo
from trueup.train.rl import rl
from trueup.train.run_loop import Loop

HELD_OUT = nouns_asked() * 3
SMALL = {
    "score_scale": "running", "missing_eos_score": None, "sampling": {"max_new_tokens": 6}, "optimizer": {"lr": 1e-3},
    "samples_per_prompt": 2, "run": {"evaluate_every": 2, "checkpoint_every": 100, "threads": 1},
}  # fmt: skip
STAGES = {
    "rl": (rl, {"steps": 4, "prompts_per_step": 4, "estimator": "rloo", "kl_target": 0.1}),
    "dpo": (online_dpo, {"online": True, "steps": 4, "batch_size": 4}),
}


class Failing(FakeScorer):
    """Its `number`-th call fails."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(lambda c: c.text.count("e") + len(c.text) / 100)
        self.number, self.calls = number, 0

    def score(self, completions) -> list[Score]:
        self.calls += 1
        if self.calls == self.number:
            raise RunError("the scorer is away", "start it")
        return super().score(completions)


def begun(workspace, stage: str) -> Run:
    config = settings(stage, **(SMALL | STAGES[stage][1]))
    return Run.start(workspace, config.stage, config.model_dump(mode="json"), {}, seed=0)


def trained(run: Run, talker, scorer: FakeScorer, watched=None) -> Run:
    """From its beginning, or from its checkpoint on."""
    config, policy = settings(run.stage, **(SMALL | STAGES[run.stage][1])), talker()
    watched = {} if watched is None else {"watched": watched}
    with run:
        best = STAGES[run.stage][0](
            run, config, policy, talker(), Sampler(policy), scorer, nouns_asked(), HELD_OUT, watched
        )
        run.finish({"best_step": best})
    return run


def left(run: Run) -> dict[str, bytes]:
    streams = {name: (run.path / name).read_bytes() for name in ("metrics.jsonl", "events.jsonl")}
    last = run.checkpoints()[-1][1]
    return streams | {name: (last / name).read_bytes() for name in ("weights.safetensors", "optimizer.safetensors")}


# Calls: the scale, the start, two steps, the evaluation of step 2, two steps, the evaluation of step 4
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("call, kept", ((5, 2), (8, 4), (7, 3)))
def test_what_was_learnt_is_kept_and_a_resumed_run_equals_an_undisturbed_one(workspace, talker, stage, call, kept):
    undisturbed = trained(begun(workspace, stage), talker, Failing())
    run = begun(workspace, stage)
    with pytest.raises(RunError, match="the scorer is away"):
        trained(run, talker, Failing(call))
    assert run.checkpoints()[-1][0] == kept and run.events()[-1]["kind"] == "kept"
    resumed = trained(Run.resume(workspace, run.id), talker, Failing())
    assert left(resumed) == left(undisturbed) and resumed.result == undisturbed.result


@pytest.mark.parametrize("stage", STAGES)
def test_a_watched_scorer_that_fails_after_scores_were_taken_in_changes_nothing(workspace, talker, stage):
    undisturbed = trained(begun(workspace, stage), talker, Failing(), Failing())
    run = begun(workspace, stage)
    with pytest.raises(RunError, match="the scorer is away"):
        trained(run, talker, Failing(), Failing(3))  # the start is looked at, too
    assert run.checkpoints()[-1][0] == 1
    resumed = trained(Run.resume(workspace, run.id), talker, Failing(), Failing())
    assert left(resumed) == left(undisturbed)


def test_ended_there_it_is_a_run_up_to_the_step_that_was_not_evaluated(workspace, talker):
    run = begun(workspace, "rl")
    with pytest.raises(RunError, match="the scorer is away"):
        trained(run, talker, Failing(5))
    resumed = Run.resume(workspace, run.id)
    resumed.goes_on = False
    trained(resumed, talker, Failing(1))
    assert [row["step"] for row in resumed.metrics()] == [1, 2] and "after step 2 of 4" in resumed.events()[-1][
        "reason"
    ]


def test_a_resumed_run_asks_for_the_space_it_will_still_take(workspace, talker, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(Run, "need_space", lambda self, size: asked.append(size))
    run = begun(workspace, "rl")
    with pytest.raises(RunError):
        trained(run, talker, Failing(5))
    assert len(run.checkpoints()) == 2
    for goes_on in (True, False):
        resumed = Run.resume(workspace, run.id)
        resumed.goes_on = goes_on
        Loop(resumed, [talker()], settings("rl", **(SMALL | STAGES["rl"][1])), 4)
        resumed.interrupted()
    assert asked[1:] == [asked[0] // 2], "two of four are there; and none is written when it ends here"
