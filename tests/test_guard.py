"""What the guard does about an evaluation, from numbers alone and in runs that go wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small import nouns_asked, settings

from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.records import Completion, Prompt
from trueup.train.guard import Evaluation, Guard
from trueup.train.rl import rl

PROMPTS = 40


class FakeLoop:
    """What a guard may ask of a loop, written down."""

    def __init__(self) -> None:
        self.memory: dict = {}
        self.said: list[tuple[str, str]] = []
        self.run = SimpleNamespace(tell=self._say, event=self._say)
        self.scores: list[float] = []
        self.stops: list[str] = []
        self.rollbacks = 0

    def _say(self, kind, reason, **data):
        self.said.append((kind, reason))

    def keep_start(self, score):
        self.scores.append(score)

    def evaluated(self, score):
        self.scores.append(score)

    def log(self, **values):
        self.logged = values

    def stop(self, reason):
        self.stops.append(reason)

    def roll_back(self):
        self.rollbacks += 1
        return 0


def evaluation(step, score, kl=0.0, judge=None, repetition=0.0, length=10.0, distinct=0.9):
    spread = [0.3 * math.sin(i * (1 + step)) for i in range(PROMPTS)]
    spread = [each - sum(spread) / PROMPTS for each in spread]
    judged = [] if judge is None else [judge + each for each in spread]
    return Evaluation(step, [score + each for each in spread], [kl] * PROMPTS, judged, length, repetition, distinct)


def guarded(*evaluations, **given):
    loop = FakeLoop()
    config = settings("rl", **given)
    loop.config = config
    guard = Guard(config.guard, config.kl_coefficient, loop)  # type: ignore[arg-type]
    first, *more = evaluations
    guard.begin(first)
    for each in more:
        guard.look(each)
    return loop


def test_what_got_better_is_held_on_to():
    loop = guarded(evaluation(0, 0.0), evaluation(5, 1.0), evaluation(10, 0.95))
    assert loop.rollbacks == 0 and not loop.stops
    assert loop.memory["good"]["step"] == 5, "a little lower is no reason to go back, nor to hold on to it"
    assert loop.scores == pytest.approx([0.0, 1.0, 0.95], abs=0.02)


def test_it_goes_back_when_an_evaluation_is_worse_beyond_chance():
    loop = guarded(evaluation(0, 0.0), evaluation(5, 1.0), evaluation(10, 0.8))
    assert loop.rollbacks == 1 and loop.memory["rollbacks"] == 1 and loop.memory["lr_scale"] == 0.5
    ((kind, reason),) = loop.said
    assert kind == "rollback" and "step 10 is worse" in reason and "learning rate now 0.5" in reason
    assert len(loop.scores) == 2, "and is no candidate for shipping"


def test_the_price_of_kl_can_make_it_worse():
    assert guarded(evaluation(0, 0.0), evaluation(5, 1.0, kl=2.0), kl_coefficient=0.1).rollbacks == 0
    assert guarded(evaluation(0, 0.0), evaluation(5, 1.0, kl=20.0), kl_coefficient=0.1).rollbacks == 1


def test_the_other_remedy_doubles_the_price_of_kl():
    loop = guarded(
        evaluation(0, 1.0), evaluation(5, 0.0), evaluation(10, 0.0), guard={"remedy": "raise-kl"}, kl_coefficient=0.1
    )
    assert loop.memory["kl_coefficient"] == pytest.approx(0.4) and "lr_scale" not in loop.memory


def test_after_so_many_it_stops():
    loop = guarded(*[evaluation(step, -step) for step in range(5)], guard={"max_rollbacks": 2})
    assert loop.rollbacks == 2 and len(loop.stops) == 2
    assert "worse again after 2 rollbacks" in loop.stops[0]


def test_noise_is_no_reason():
    import random

    chance = random.Random(0)
    noisy = [
        Evaluation(step, [chance.gauss(0, 1) for _ in range(64)], [0.0] * 64, [], 9.0, 0.0, 0.9) for step in range(12)
    ]
    assert guarded(*noisy).rollbacks <= 1


def test_what_is_no_number_is_worse():
    loop = guarded(evaluation(0, 0.0), evaluation(5, math.nan))
    assert loop.rollbacks == 1 and loop.said[-1][0] == "rollback" and "no finite number" in loop.said[-1][1]


def without(found, *prompts):
    """The same evaluation, with no number for these prompts."""
    return replace(found, score=[math.nan if i in prompts else each for i, each in enumerate(found.score)])


def test_one_prompt_without_a_number_does_not_switch_the_guard_off():
    loop = guarded(*[without(evaluation(step, score), 3) for step, score in ((0, 0.0), (5, 1.0), (10, -3.0))])
    assert loop.rollbacks == 1 and loop.memory["good"]["step"] == 5
    assert [kind for kind, _ in loop.said] == ["no number", "rollback"], "said once"
    assert "1 of 40 held-out prompts at step 0" in loop.said[0][1] and "n = 39" in loop.said[1][1]
    assert loop.scores == pytest.approx([0.0, 1.0], abs=0.02) and math.isfinite(loop.logged["heldout_score"])


def test_a_judge_without_a_number_for_one_prompt_judges_all_the_same():
    start = evaluation(0, 0.0, judge=1.0)
    start = replace(start, judge=[math.nan, *start.judge[1:]])
    assert "the judge's score fell" in guarded(start, evaluation(5, 1.0, judge=0.0)).stops[0]


def test_losing_the_numbers_of_low_prompts_makes_no_evaluation_better():
    low = replace(evaluation(0, 0.0), score=[-10.0] * 4 + [1.0] * 36)
    loop = guarded(low, without(replace(low, step=5), 0, 1, 2, 3))
    assert not loop.rollbacks and loop.memory["good"]["step"] == 0 and loop.scores[1] == loop.scores[0]


@pytest.mark.parametrize("lost, worse", ((4, 0), (5, 1)))
def test_losing_the_numbers_of_many_prompts_is_worse(lost, worse):
    loop = guarded(evaluation(0, 0.0), without(evaluation(5, 2.0), *range(lost)))
    assert loop.rollbacks == worse
    assert not worse or "the value of 5 more of 40 held-out prompts" in loop.said[-1][1]


def test_a_start_that_cannot_be_measured_is_nothing_to_go_back_to():
    loop = guarded(evaluation(0, math.nan), evaluation(5, math.nan), evaluation(10, 1.0), evaluation(15, -3.0))
    assert loop.rollbacks == 1 and loop.memory["good"]["step"] == 10, "only from where there is something"


def test_text_that_repeats_itself_is_worse_whatever_its_score():
    loop = guarded(evaluation(0, 0.0), evaluation(5, 3.0, repetition=0.7))
    assert loop.rollbacks == 1 and "repetition 0.70" in loop.said[0][1]
    assert guarded(evaluation(0, 0.0, repetition=0.6), evaluation(5, 3.0, repetition=0.7)).rollbacks == 0, "it was so"


def test_a_judge_that_falls_while_the_score_rises_ends_it():
    """More of the same would only game the scorer more: no going back, but shipping what the judge liked best."""
    rows = [evaluation(0, 0.0, judge=0.0), evaluation(5, 1.0, judge=1.0), evaluation(10, 2.0, judge=0.3)]
    loop = guarded(*rows)
    assert loop.rollbacks == 0 and "the judge's score fell while the score rose" in loop.stops[0]
    assert loop.said[0][0] == "over-optimisation" and loop.memory["good"]["step"] == 5


def test_what_counts_as_gaming_is_what_the_judge_says_and_not_the_price_of_the_kl():
    """The judge rose, but not by as much as the KL costs: a reason to go back, and no over-optimisation."""
    loop = guarded(evaluation(0, 0.0, judge=2.0), evaluation(4, 1.0, kl=5.0, judge=2.1), kl_coefficient=0.1)
    assert not loop.stops and loop.rollbacks == 1
    loop = guarded(evaluation(0, 0.0, judge=2.0), evaluation(4, 1.0, judge=3.0, repetition=0.9))
    assert not loop.stops and loop.rollbacks == 1 and "repetition" in loop.said[0][1]


def test_gaming_ends_a_run_also_where_it_does_not_go_back():
    rows = [evaluation(0, 0.0, judge=1.0), evaluation(5, 1.0, judge=0.0)]
    assert "the judge's score fell" in guarded(*rows, guard={"rollback": False}).stops[0]
    free = guarded(*rows, guard={"rollback": False, "stop_gamed": False})
    assert not free.stops and not free.rollbacks
    assert guarded(*rows, guard={"stop_gamed": False}).rollbacks == 1, "then it is merely worse"


def test_text_that_all_became_one_is_worse_whatever_its_score():
    loop = guarded(evaluation(0, 0.0, distinct=0.8), evaluation(5, 3.0, distinct=0.19))
    assert loop.rollbacks == 1 and "0.190 of two-token runs are distinct, 0.800 at the start" in loop.said[0][1]
    assert not guarded(evaluation(0, 0.0, distinct=0.8), evaluation(5, 3.0, distinct=0.21)).rollbacks
    assert not guarded(
        evaluation(0, 0.0, distinct=0.8), evaluation(5, 3.0, distinct=0.1), guard={"min_distinct": 0}
    ).said


def test_slow_collapse_is_measured_from_the_start_and_not_from_the_last_good_step():
    slow = [evaluation(step, step, distinct=0.8 * 0.7**step) for step in range(6)]
    loop = guarded(*slow)
    assert loop.rollbacks == 2 and loop.memory["good"]["step"] == 3  # 0.8 * 0.7**4 is under a quarter of 0.8


@pytest.mark.parametrize("length", (81.0, 1.2))
def test_text_many_times_as_long_or_as_short_is_worse_whatever_its_score(length):
    loop = guarded(evaluation(0, 0.0), evaluation(5, 3.0, length=length))
    assert loop.rollbacks == 1 and f"{length:.1f} tokens a completion, 10.0 at the start" in loop.said[0][1]
    assert not guarded(evaluation(0, 0.0), evaluation(5, 3.0, length=79.0)).rollbacks
    assert not guarded(evaluation(0, 0.0), evaluation(5, 3.0, length=1.3)).rollbacks


@pytest.mark.parametrize("prompts, told", ((6, True), (7, False)))
def test_too_few_prompts_to_ever_see_a_fall_are_said(prompts, told):
    """Seven prompts that all fell: 1 in 128."""
    few = [Evaluation(step, [-float(step)] * prompts, [0.0] * prompts, [], 9.0, 0.0, 0.9) for step in (0, 5)]
    loop = guarded(*few)
    assert [kind for kind, _ in loop.said] == (["few"] if told else ["rollback"])
    assert not told or "6 held-out prompts" in loop.said[0][1] and "takes 7" in loop.said[0][1]


def test_a_judge_decides_in_place_of_the_score():
    loop = guarded(evaluation(0, 2.0, judge=0.0), evaluation(5, 1.0, judge=1.0))
    assert loop.rollbacks == 0 and loop.scores[-1] == pytest.approx(1.0, abs=0.05)
    assert guarded(evaluation(0, 2.0, judge=1.0), evaluation(5, 1.0, judge=0.0)).rollbacks == 1, "both fell: go back"


def test_a_kl_budget_ends_it_before_shipping_what_is_over():
    loop = guarded(evaluation(0, 0.0), evaluation(5, 9.0, kl=7.0), guard={"max_kl": 5.0}, kl_coefficient=0.01)
    assert "over guard.max_kl = 5" in loop.stops[0] and len(loop.scores) == 1


def test_switched_off_it_only_measures():
    loop = guarded(evaluation(0, 1.0), evaluation(5, -5.0), guard={"rollback": False})
    assert loop.rollbacks == 0 and len(loop.scores) == 2 and not loop.stops


def test_an_evaluation_says_how_the_texts_are():
    prompt = Prompt.user("x")
    texts = [Completion(prompt, "", (1, 2, 3, 4, 1, 2, 3, 4)), Completion(prompt, "", (5, 6))]
    found = Evaluation.of(3, texts, [1.0, 3.0], [0.5, 1.5]).metrics()
    assert found["heldout_score"] == 2 and found["heldout_kl"] == 1 and found["heldout_length"] == 5
    assert found["heldout_repetition"] == pytest.approx(0.1) and found["heldout_distinct"] == pytest.approx(5 / 8)
    assert "heldout_judge" not in found


# --- in real runs


def broken_run(talker, train, scorer, judge=None, heldout=None, **given):
    policy = talker()
    config = settings("rl", **({
        "steps": 12, "prompts_per_step": 8, "samples_per_prompt": 8, "estimator": "rloo", "score_scale": "none",
        "missing_eos_score": None, "sampling": {"max_new_tokens": 8}, "run": {"evaluate_every": 2},
    } | given))  # fmt: skip
    held = heldout if heldout is not None else nouns_asked() * 3
    run = train(rl, config, policy, talker(), Sampler(policy), scorer, nouns_asked(), held, {}, judge)
    return run, policy


def test_a_run_whose_steps_are_far_too_long_goes_back_and_calms_down(talker, train):
    run, policy = broken_run(
        talker, train, FakeScorer(lambda c: c.text.count("e")), optimizer={"lr": 0.3}, kl_coefficient=0.5,
        guard={"max_approx_kl": 1e3, "max_rollbacks": 9},
    )  # fmt: skip
    back = [event for event in run.events() if event["kind"] == "rollback"]
    assert back and back[0]["to"] == 0
    assert run.result["best_step"] == 0 or run.metrics()[-1]["heldout_score"] > 0
    assert all(torch.isfinite(p).all() for p in policy.parameters())


def test_what_is_gamed_is_stopped_and_the_judges_best_is_shipped(talker, train):
    """Paid for every e, judged by how near to three there are: more than enough is gaming."""
    judge = FakeScorer(lambda c: -abs(c.text.count("e") - 3.0))
    run, _ = broken_run(
        talker, train, FakeScorer(lambda c: c.text.count("e")), judge, steps=60, kl_coefficient=0.0,
        optimizer={"lr": 3e-3, "schedule": "constant"},
    )  # fmt: skip
    kinds = [event["kind"] for event in run.events()]
    assert "over-optimisation" in kinds and kinds[-1] == "stop" and len(run.metrics()) < 60
    rows = [row for row in run.metrics() if "heldout_judge" in row]
    best = max(rows, key=lambda row: row["heldout_judge"])
    assert run.result["best_step"] == best["step"] < rows[-1]["step"]
    assert rows[-1]["heldout_score"] > best["heldout_score"], "what it was paid for rose to the end"


def test_a_policy_that_never_got_better_is_not_shipped(talker, train):
    """A scorer of noise: the policy it started from is as good as any other and has no KL to pay for."""
    import zlib

    noise = FakeScorer(lambda c: zlib.crc32(c.text.encode()) % 97 / 97)
    run, policy = broken_run(talker, train, noise, kl_coefficient=5.0, optimizer={"lr": 3e-2}, steps=6)
    assert run.result["best_step"] == 0
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), talker().parameters(), strict=True))


def test_without_anything_held_out_nothing_is_guarded_and_nothing_breaks(talker, train):
    run, _ = broken_run(talker, train, FakeScorer(lambda c: len(c.text)), heldout=[], steps=2)
    assert run.result["best_step"] == 2


@pytest.mark.parametrize("sign", (1.0, -1.0))
def test_a_running_scale_moves_no_evaluation(talker, train, sign):
    """A scorer far from 0 on a running scale: the policy stands still, and so do its evaluations."""
    run, _ = broken_run(
        talker, train, FakeScorer(lambda c: sign * (5.0 + len(c.text) / 100)), steps=8, optimizer={"lr": 1e-7},
        score_scale="running",
    )  # fmt: skip
    assert not [event for event in run.events() if event["kind"] in ("rollback", "stop")]
    scores = [row["heldout_score"] for row in run.metrics() if "heldout_score" in row]
    (start,) = [event["heldout_score"] for event in run.events() if event["kind"] == "start"]
    assert scores == pytest.approx([start] * 4, abs=0.1) and abs(start) < 1.0, "on the scale of the start"


def test_what_was_written_at_an_evaluation_can_be_read(talker, train):
    run, _ = broken_run(talker, train, FakeScorer(lambda c: c.text.count("e")), steps=4)
    assert run.sample_steps(heldout=True) == [0, 2, 4] and run.sample_steps() == [1, 2, 3, 4]
    rows = run.samples(4, heldout=True)
    assert len(rows) == 3 * len(nouns_asked())
    mean = sum(row["score"] for row in rows) / len(rows)
    assert mean == pytest.approx(run.metrics()[-1]["heldout_score"], abs=1e-5)


def test_equal_scores_are_said_once_and_at_once(talker, train, capsys, monkeypatch):
    monkeypatch.setenv("TRUEUP_QUIET", "0")
    run, _ = broken_run(talker, train, FakeScorer(lambda c: 2.5), steps=3)
    said = [event for event in run.events() if event["kind"] == "flat scores"]
    assert [event["step"] for event in said] == [1] and "all 64 completions of step 1" in said[0]["reason"]
    assert "nothing to learn" in capsys.readouterr().err
    run, _ = broken_run(talker, train, FakeScorer(lambda c: c.text.count("e")), steps=1)
    assert not [event for event in run.events() if event["kind"] == "flat scores"]
