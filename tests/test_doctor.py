"""The doctor on runs that really ran: each planted fault is what it names first, and on sound runs it names none."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import pytest
import torch
from small import nouns, nouns_asked, settings
from test_docs import parse

from trueup.cli.main import run as command
from trueup.config import STAGES, Objective, Scoring
from trueup.config.keys import settings as config_keys
from trueup.engines.combined import CombinedScorer
from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.errors import RunError, TrueupError
from trueup.models.adapters import add_lora
from trueup.models.language_model import LanguageModel
from trueup.runs import Run, loss_checks, rl_checks, scorer_checks, value_checks
from trueup.runs.doctor import Diagnosis, diagnose, doctor
from trueup.store import Workspace
from trueup.train import experience, improve, rl, scores, sft
from trueup.train.rl import rl as rl_stage
from trueup.train.sft import sft as sft_stage

LIKED = {"cat", "rain", "mat", "sat"}
HELD = nouns_asked() * 3


def liked(completion) -> float:
    """Share of the words that are liked."""
    words = completion.text.split()
    return sum(word in LIKED for word in words) / max(len(words), 1)


def mostly_numbers(completion) -> float:
    return float("nan") if "rain" in completion.text else liked(completion)


def commonest(completion) -> int:
    words = completion.text.split()
    return max([words.count(word) for word in words], default=0)


def of_the_prompt(completion) -> float:
    return float(len(completion.prompt.text))


def by_chance() -> Callable[[Any], float]:
    chance = random.Random(1)
    return lambda completion: chance.random()


def by_the_clock() -> Callable[[Any], float]:
    calls = itertools.count()
    return lambda completion: liked(completion) + next(calls) / 100


def with_a_floor(at_least: float) -> CombinedScorer:
    """What is liked, where a text has to be short as well."""
    floors = (Objective(name="liked"), Objective(name="short", weight=0.0, at_least=at_least))
    parts = {"liked": FakeScorer(liked), "short": FakeScorer(lambda c: -len(c.text.split()))}
    return CombinedScorer(parts, Scoring(objectives=floors, floor="multiplier", multiplier_rate=0.3))


FLOOR = {"scoring": {"objectives": [{"name": "short", "at_least": 9.0}], "floor": "multiplier"}}


# --- bugs


def engine_with(**changed: Any) -> Callable[[LanguageModel], Any]:
    """A sampler that does not do as it is told."""

    class Other(Sampler):
        def sample(self, prompts, sampling, **rest):
            return super().sample(prompts, sampling.model_copy(update=changed), **rest)

    return Other


def turned_advantage() -> AbstractContextManager:
    honest = rl.with_advantages

    def turned(*arguments):
        found = honest(*arguments)
        return replace(found, advantage_cl=-found.advantage_cl)

    return patch.object(rl, "with_advantages", turned)


def shuffled_advantages() -> AbstractContextManager:
    honest = rl.with_advantages

    def shuffled(*arguments):
        found = honest(*arguments)
        other = torch.randperm(len(found.advantage_cl), generator=torch.Generator().manual_seed(0))
        return replace(found, advantage_cl=found.advantage_cl[other] * found.mask_cl)

    return patch.object(rl, "with_advantages", shuffled)


def unfrozen_reference() -> AbstractContextManager:
    """The reference is the very model that is trained."""
    honest = rl.observe
    return patch.object(rl, "observe", lambda c, s, policy, reference, *rest: honest(c, s, policy, policy, *rest))


def turned_value_loss(told: bool) -> AbstractContextManager:
    """The sign of its gradient, and that of the number too or not."""
    honest = improve.value_loss

    def turned(*arguments):
        loss = honest(*arguments)
        return -loss if told else 2 * loss.detach() - loss

    return patch.object(improve, "value_loss", turned)


def swapped_in_the_kl() -> AbstractContextManager:
    honest = experience.per_token_penalty

    def swapped(policy, reference, *rest, **named):
        return honest(reference, policy, *rest, **named)

    return patch.object(experience, "per_token_penalty", swapped)


def wandering_logprobs() -> AbstractContextManager:
    honest = rl.observe

    def wandering(*arguments):
        found = honest(*arguments)
        return replace(found, logp_cl=found.logp_cl + 0.02)

    return patch.object(rl, "observe", wandering)


def reference_at_another_temperature() -> AbstractContextManager:
    honest = rl.observe

    def mixed(completions, score_c, policy, reference, value_head, temperature, batch):
        found, other = (
            honest(completions, score_c, policy, reference, value_head, at, batch) for at in (temperature, 0.6)
        )
        return replace(found, reference_cl=other.reference_cl)

    return patch.object(rl, "observe", mixed)


def wrong_scale() -> AbstractContextManager:
    honest = scores.mean_and_std
    return patch.object(scores, "mean_and_std", lambda raw: (honest(raw)[0], 30 * honest(raw)[1]))


def another(model: LanguageModel) -> LanguageModel:
    """The same model, a little different: another checkpoint."""
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    return model


@dataclass(frozen=True)
class Plan:
    """A small run, and what is wrong with it."""

    config: dict[str, Any] = field(default_factory=dict)
    score: Callable[[Any], float] = liked
    scorer: Callable[[], Any] | None = None  # in place of `score`, where it remembers something
    judge: Callable[[Any], float] | None = None
    engine: Callable[[LanguageModel], Any] = Sampler
    reference: Callable[[LanguageModel], LanguageModel] = lambda model: model
    lora: bool = False
    prompts: list = field(default_factory=nouns_asked)
    heldout: list = field(default_factory=lambda: HELD)
    bug: Callable[[], AbstractContextManager] = nullcontext


def seeded(seed: int) -> dict[str, int]:
    """Where the run of the usual seed is near a limit: docs/doctor.md says how many of several are named."""
    return {"seed": seed, "evaluate_every": 4}


PLANTED: dict[str, tuple[str, Plan]] = {
    "scorer says NaN": ("score-not-finite", Plan(score=mostly_numbers, heldout=[])),
    "log-probs wander": ("ratio-not-one", Plan(bug=wandering_logprobs)),
    "sampler colder than it says": ("sampler-disagrees", Plan({"steps": 2}, engine=engine_with(temperature=0.7))),
    "sampler with top_p": ("sampler-disagrees", Plan({"steps": 2}, engine=engine_with(top_p=0.9))),
    "another reference": ("kl-at-start", Plan({"steps": 2}, reference=another)),
    "reference at another temperature": ("kl-at-start", Plan({"steps": 2}, bug=reference_at_another_temperature)),
    "KL the wrong way round": ("kl-negative", Plan({"steps": 8}, bug=swapped_in_the_kl)),
    "too few tokens": ("texts-cut", Plan({"steps": 3, "sampling": {"max_new_tokens": 3}})),
    "constant scorer": ("score-constant", Plan({"steps": 6}, score=lambda c: 0.3)),
    "unfrozen reference": ("kl-stays-zero", Plan({"steps": 5}, bug=unfrozen_reference)),
    "unfrozen reference, one update a rollout": (
        "kl-stays-zero",
        Plan({"epochs": 1, "minibatches": 1, "optimizer": {"lr": 4e-3}}, bug=unfrozen_reference),
    ),
    "scorer reads the prompt alone": ("score-by-prompt", Plan({"steps": 4}, of_the_prompt)),
    "scorer draws at random": ("score-random", Plan({"steps": 10}, scorer=lambda: FakeScorer(by_chance()))),
    "scorer drifts": ("score-drifts", Plan({"steps": 12}, scorer=lambda: FakeScorer(by_the_clock()))),
    "floor out of reach": ("floor-unreachable", Plan({"steps": 12, **FLOOR}, scorer=lambda: with_a_floor(9.0))),
    "advantages of others": ("moves-without-gain", Plan({"run": seeded(6)}, bug=shuffled_advantages)),
    "value loss turned": (
        "value-runs-away", Plan({"steps": 8, "estimator": "ppo"}, bug=lambda: turned_value_loss(told=True))
    ),
    "value's gradient turned": (
        "value-runs-away",
        Plan({"estimator": "ppo", "value": {"lr": 5e-3}}, bug=lambda: turned_value_loss(told=False)),
    ),
    "wrong scale": ("score-scale", Plan({"steps": 2}, bug=wrong_scale)),
    "lr 0.3": ("steps-too-long", Plan({"steps": 6, "optimizer": {"lr": 0.3}})),
    "lr 1e-9": ("nothing-moves", Plan({"steps": 6, "optimizer": {"lr": 1e-9}})),
    "value lr 5": ("value-harmful", Plan({"steps": 8, "estimator": "ppo", "value": {"lr": 5.0}})),
    "advantage turned, guarded": ("score-falls", Plan({"run": seeded(9)}, bug=turned_advantage)),
    "advantage turned, unguarded": ("score-falls", Plan({"steps": 10}, heldout=[], bug=turned_advantage)),
    "KL 50": ("kl-too-tight", Plan({"steps": 10, "kl_coefficient": 50.0})),
    "judge disagrees": (
        "scorer-gamed",
        Plan({"kl_coefficient": 0.05}, lambda c: c.text.count("e"), judge=lambda c: -abs(c.text.count("e") - 3.0)),
    ),
    "judge disagrees, unguarded": (
        "scorer-gamed",
        Plan(
            {"kl_coefficient": 0.05, "guard": {"rollback": False}},
            lambda c: c.text.count("e"), judge=lambda c: -abs(c.text.count("e") - 3.0),
        ),
    ),
    "two prompts": (
        "overfits-prompts",
        Plan(
            {"guard": {"rollback": False}}, lambda c: liked(c) if c.prompt.text in ("cat", "dog") else -liked(c),
            prompts=nouns_asked()[:2], heldout=nouns_asked()[2:] * 4,
        ),
    ),
    "paid for length": (
        "length-hacked",
        Plan({"steps": 12, "missing_eos_score": None, "sampling": {"max_new_tokens": 32}}, lambda c: len(c.text)),
    ),
    "no KL": ("kl-too-loose", Plan({"steps": 20, "kl_coefficient": 0.0, "optimizer": {"lr": 5e-3}})),
    "paid for repetition": (
        "collapsed",
        Plan({"steps": 20, "missing_eos_score": None, "kl_coefficient": 0.05, "optimizer": {"lr": 4e-3}}, commonest),
    ),
    "paid for not ending": ("endless", Plan({"missing_eos_score": 4.0})),
    "KL target far off": ("kl-off-target", Plan({"steps": 8, "kl_target": 1.0, "kl_coefficient": 20.0})),
}  # fmt: skip

SOUND: dict[str, Plan] = {
    "ppo": Plan({"estimator": "ppo"}),
    "rloo": Plan({"estimator": "rloo"}),
    "grpo": Plan({"estimator": "grpo"}),
    "reinforce++": Plan({"estimator": "reinforce++"}),
    "one update a rollout": Plan({"epochs": 1, "minibatches": 1, "optimizer": {"lr": 4e-3}}),
    "a reference that follows": Plan({"reference_rate": 1.0}),
    "a scale that runs": Plan({"score_scale": "running"}),
    "a floor within reach": Plan(
        {"scoring": {"objectives": [{"name": "short", "at_least": 0.3}], "floor": "multiplier"}},
        scorer=lambda: with_a_floor(0.3),
    ),
    "lora": Plan({"optimizer": {"lr": 5e-3}}, lambda c: -abs(len(c.text.split()) - 2), lora=True),
    "unseen prompts": Plan(
        {"estimator": "ppo", "prompt_baseline": True, "kl_in": "loss", "kl_estimator": "k2"},
        prompts=nouns_asked()[4:], heldout=nouns_asked()[:4],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[Workspace]:
    with Workspace.create(tmp_path_factory.mktemp("doctor") / "w") as made:
        yield made


@contextmanager
def started(workspace, config) -> Iterator[Run]:
    """A run that may fail: what failed is what the doctor is there for."""
    with Run.start(workspace, config.stage, config.model_dump(mode="json"), {}, seed=config.run.seed) as run:
        yield run


@pytest.fixture(scope="module")
def play(workspace, talker) -> Callable[[Plan], Run]:
    def call(plan: Plan) -> Run:
        usual = {
            "steps": 16, "estimator": "rloo", "prompts_per_step": 8, "samples_per_prompt": 8, "kl_coefficient": 0.1,
            "sampling": {"max_new_tokens": 16}, "optimizer": {"lr": 2e-3}, "run": {"evaluate_every": 4},
        }  # fmt: skip
        config = settings("rl", **(usual | plan.config))
        policy, reference = talker(), plan.reference(talker())
        if plan.lora:
            policy, reference = with_lora(policy), None
        judge = None if plan.judge is None else FakeScorer(plan.judge)
        with plan.bug(), started(workspace, config) as run:
            try:
                engine = plan.engine(policy)
                best = rl_stage(
                    run,
                    config,
                    policy,
                    reference,
                    engine,
                    FakeScorer(plan.score) if plan.scorer is None else plan.scorer(),
                    plan.prompts,
                    plan.heldout,
                    {},
                    judge,
                )
                run.finish({"best_step": best})
            except TrueupError as error:
                run.fail(error)
        return run

    return call


def with_lora(model: LanguageModel) -> LanguageModel:
    return LanguageModel(model.network, model.encoder, adapter=add_lora(model.network, settings("rl").model, seed=0))


def told(found: Diagnosis) -> str:
    return "\n".join(f"{each.severity} {each.code}: {each.says}" for each in found.findings)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_first(play, name):
    code, plan = PLANTED[name]
    found = diagnose(play(plan))
    assert found.faults and found.findings[0].code == code, told(found)
    assert found.findings[0].tries and "RUN" not in " ".join(found.findings[0].tries)


@pytest.mark.parametrize("name", SOUND)
def test_on_a_sound_run_nothing_is_named(play, name):
    run = play(SOUND[name])
    found = diagnose(run)
    assert found.sound, told(found)
    rows = run.metrics()
    assert rows[-1]["score"] > rows[0]["score"] + 0.3, "it did learn: a run of which nothing can be said shows nothing"
    assert set(found.curves) >= {"score", "kl"} or found.findings


def test_planted_faults_cover_the_checks():
    """Every fault of reinforcement learning is planted above; a loss that is no number is, in sft, below."""
    sources = [Path(module.__file__).read_text() for module in (rl_checks, scorer_checks, value_checks)]
    faults = {code for text in sources for code in re.findall(r'return fault\(\s*"([\w-]+)"', text)}
    assert faults == {code for code, _ in PLANTED.values()} and len(faults) >= 25


SOURCES = [Path(module.__file__).read_text() for module in (rl_checks, scorer_checks, value_checks, loss_checks)]
CODES = {code for text in SOURCES for code in re.findall(r'return (?:fault|note)\(\s*"([\w-]+)"', text)}


def test_every_finding_is_in_the_docs_and_no_other():
    page = (Path(__file__).parents[1] / "docs" / "doctor.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) | {"short", "unfinished-run"} == CODES


def test_what_is_to_be_tried_exists():
    """Commands that parse, settings that are there."""
    lines = [line for text in SOURCES for line in re.findall(r"`(trueup [^`{]+)`", text)]
    for line in lines:
        try:
            parse(line.split()[1:])
        except click.MissingParameter:
            continue  # a command in passing, without its arguments
    known = {key for config in STAGES.values() for key in config_keys(config)}
    keys = [key for text in SOURCES for key in re.findall(r"--set ([\w.]+)", text)]
    assert len(lines) >= 5 and len(keys) >= 10 and set(keys) <= known


# --- the stages that make a loss fall


@pytest.fixture(scope="module")
def taught(workspace, talker, encoder) -> Callable[..., Diagnosis]:
    chance = random.Random(5)

    def groups(count: int) -> list:
        rows = [(prompt, nouns(chance, 4)) for prompt in (nouns_asked() * count)[:count]]
        return [(encoder.prompt(prompt), [encoder.completion(prompt, text)]) for prompt, text in rows]

    def call(rows: int = 60, heldout: int = 20, bug: AbstractContextManager | None = None, **given: Any) -> Diagnosis:
        config = settings("sft", **({"steps": 24, "batch_size": 8, "run": {"evaluate_every": 4}} | given))
        with bug or nullcontext(), started(workspace, config) as run:
            try:
                run.finish({"best_step": sft_stage(run, config, talker(), groups(rows), groups(heldout))})
            except RunError as error:
                run.fail(error)
        return diagnose(run)

    return call


def test_a_sound_sft_run_has_no_fault(taught):
    found = taught(optimizer={"lr": 3e-4})
    assert found.sound, told(found)
    assert "heldout_loss" in found.curves


@pytest.mark.parametrize("code, given", [
    ("overfits", {"rows": 4, "optimizer": {"lr": 2e-2, "schedule": "constant"}}),
    ("nothing-learnt", {"optimizer": {"lr": 1e-9}}),
    ("steps-too-long", {"optimizer": {"lr": 3.0, "schedule": "constant"}}),
    ("loss-not-finite", {"bug": patch.object(sft, "language_model_loss", lambda logp, _: logp.sum() * float("nan"))}),
])  # fmt: skip
def test_a_fault_of_sft_is_named_first(taught, code, given):
    found = taught(**given)
    assert found.faults and found.findings[0].code == code, told(found)


def test_a_run_without_heldout_rows_is_told_so(taught):
    codes = [each.code for each in taught(heldout=0, optimizer={"lr": 3e-4}).findings]
    assert "evaluation-missing" in codes


def metrics_of(workspace, stage: str, rows: list[dict[str, float]], **events: list[dict[str, Any]]) -> Diagnosis:
    with started(workspace, settings(stage)) as run:
        for kind, told in events.items():
            for data in told:
                run.event(kind, "as it was told", **data)
        for step, row in enumerate(rows, 1):
            run.log(step, row)
        run.finish({})
    return diagnose(run)


def test_a_reward_model_that_learns_the_opposite(workspace):
    rows = [{"loss": 0.7 - 0.01 * i, "accuracy": 0.8} for i in range(20)]
    for at in (9, 19):
        rows[at] |= {"heldout_loss": 1.1, "heldout_accuracy": 0.3}
    assert metrics_of(workspace, "reward", rows).findings[0].code == "order-reversed"


def test_what_dpo_does_to_better_completions_is_a_note(workspace):
    rows = [
        {"loss": 0.69 - 0.01 * i, "chosen_logp": -6 - 0.4 * i, "rejected_logp": -7 - i, "margin": 0.1 * i}
        for i in range(20)
    ]
    rows[19] |= {"heldout_loss": 0.55, "heldout_accuracy": 0.7}
    found = metrics_of(workspace, "dpo", rows)
    assert found.sound and [each.code for each in found.findings] == ["chosen-falls"]


def test_a_value_that_explains_nothing_is_a_note_and_only_after_long(workspace):
    row = {"score": 1.0, "kl": 0.0, "value_explained": 0.0, "heldout_score": 1.0}
    assert "value-idle" not in [each.code for each in metrics_of(workspace, "rl", [row] * 60).findings]
    found = metrics_of(workspace, "rl", [row] * 120)
    assert found.sound and "value-idle" in [each.code for each in found.findings]


def evaluated(workspace, *scores: float, back: tuple[int, ...] = (), kl: float = 2.0) -> Diagnosis:
    """A run whose training score shows nothing, with an evaluation every fourth step, some of them taken back."""
    rows = [{"score": 0.1 * (step % 2), "kl": 0.0} for step in range(4 * len(scores))]
    for i, score in enumerate(scores):
        rows[4 * i + 3] |= {"kl": kl, "heldout_score": score}
    taken = [{"step": 4 * i + 4, "heldout_score": scores[i]} for i in back]
    return metrics_of(workspace, "rl", rows, start=[{"heldout_score": 0.0, "prompts": 32}], rollback=taken)


@pytest.mark.parametrize("scores, back, kl, code", [
    ((-0.9, -0.7, 0.1, -0.1), (0, 1), 2.0, "score-falls"),
    ((-0.4, -0.3, 0.1, -0.1), (0, 1), 2.0, "moves-without-gain"),
    ((-0.4, -0.3, 0.0, -0.1), (0, 1), 0.5, "moves-without-gain"),  # twice, however near
    ((-0.4, 0.1, 0.0, -0.1), (0,), 2.0, "moves-without-gain"),  # once, from far away
    ((-0.4, 0.1, 0.0, -0.1), (0,), 0.5, None),  # once, from near: that is what a guard is there for
    ((-0.9, -0.7, 0.5, 1.0), (0, 1), 2.0, None),  # with shorter steps it did learn
    ((1.0, 1.5, 0.2, 1.4), (2,), 2.0, None),
    ((-0.4, float("nan"), 0.1, -0.1), (1,), 0.5, None),  # what cannot be measured is not known to be worse
])  # fmt: skip
def test_a_guard_that_took_back_what_was_learnt(workspace, scores, back, kl, code):
    found = evaluated(workspace, *scores, back=back, kl=kl)
    assert [each.code for each in found.faults] == ([code] if code else []), told(found)


def test_a_guard_that_had_nothing_to_compare_with_says_nothing(workspace):
    rows = [{"score": 0.0, "kl": 2.0 * (step % 4 == 3), "heldout_score": -0.9} for step in range(12)]
    again = [{"step": 4, "heldout_score": -0.9}] * 2
    assert metrics_of(workspace, "rl", rows, rollback=again).sound
    unmeasured = [{"heldout_score": float("nan"), "prompts": 32}]
    assert metrics_of(workspace, "rl", rows, start=unmeasured, rollback=again).sound


def test_one_unlikely_token_is_no_long_step(workspace):
    """`kl_k3` of a token is exponential in how unlikely it is under the policy; the KL itself is not."""
    rows = [{"score": 0.2 * i, "kl": 0.2 * i, "kl_k3": 0.02 * i, "length": 10.0} for i in range(12)]
    rows[5] |= {"kl_k3": 4.0}
    assert metrics_of(workspace, "rl", rows).sound
    rows[5] |= {"kl": 14.0}
    assert metrics_of(workspace, "rl", rows).faults[0].code == "steps-too-long"


def test_a_run_that_has_not_begun_is_no_crash(workspace):
    for stage in ("rl", "sft", "reward", "dpo", "kto", "ilql", "pretrain"):
        assert metrics_of(workspace, stage, []).sound


def test_what_learns_nothing_has_no_doctor(workspace):
    with started(workspace, settings("sample")) as run:
        run.finish({})
    with pytest.raises(RunError, match="of stage 'sample', which learns nothing"):
        doctor(workspace, run.id)


# --- what is kept of a rollout


def test_tokens_and_their_logprobs_are_kept_on_request(play):
    run = play(Plan({"steps": 2, "run": {"keep_logprobs": True, "evaluate_every": 4}}, heldout=[]))
    rows = run.samples(2)
    assert len(rows) == 64
    for row in rows:
        assert len(row["tokens"]) == row["length"] == len(row["logprobs"]) == len(row["sampler_logprobs"])
        assert row["logprobs"] == pytest.approx(row["sampler_logprobs"], abs=1e-4)
        apart = sum(p - r for p, r in zip(row["logprobs"], row["reference_logprobs"], strict=True))
        assert apart == pytest.approx(row["kl"], abs=1e-4), "the KL of a completion is what its tokens say"
    assert any(abs(row["kl"]) > 0.01 for row in rows)
    metrics = run.metrics()[-1]
    assert metrics["kl"] == pytest.approx(sum(row["kl"] for row in rows) / 64, abs=1e-5)
    assert metrics["length"] == pytest.approx(sum(row["length"] for row in rows) / 64)
    tokens = [value for row in rows for value in row["logprobs"]]
    assert metrics["entropy"] == pytest.approx(-sum(tokens) / len(tokens), rel=1e-5), "a mean over tokens, not padding"


def test_without_a_value_there_is_no_explained_variance(play):
    assert "value_explained" not in play(Plan({"steps": 1}, heldout=[])).metrics()[0]


# --- the command


def test_the_command_draws_what_it_speaks_of_and_can_be_a_gate(workspace, play, capsys):
    run = play(PLANTED["lr 0.3"][1])
    before = {path: path.read_bytes() for path in run.path.glob("*.jsonl")}
    assert command(["--workspace", str(workspace.path), "runs", "doctor", run.id]) == 0
    printed = capsys.readouterr().out
    assert "fault steps-too-long" in printed and "try: a lower rate: --set optimizer.lr=0.03" in printed
    curve = next(line for line in printed.splitlines() if line.startswith("approx_kl"))
    assert set("▁█") <= set(curve) or set("_@") <= set(curve)
    assert command(["--workspace", str(workspace.path), "runs", "doctor", run.id, "--gate", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["findings"][0]["code"] == "steps-too-long" and not found["sound"]
    assert f"run {run.id} has " in err and "hint: a lower rate" in err
    assert {path: path.read_bytes() for path in run.path.glob("*.jsonl")} == before, "it looks and changes nothing"
