"""trueup's side of `benchmarks speed` on a tiny shape: every job runs, and says what it did."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import benchmarks.speed_trueup as program
from benchmarks.lengths import Natural
from benchmarks.speed_material import Places, let_end, places
from benchmarks.speed_rows import OURS, Size, rows
from benchmarks.speed_run import Plan, told

SMALL = Size(shape="tiny", large="tiny", prompts=8, iterations=1, steps=4, skip=1, sampled=12)
NATURAL = Natural(mean=6, low=2, high=16)
LENGTHS = (6, 10)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan("tiny", 1, 1, LENGTHS, NATURAL.mean, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def material(plan) -> Places:
    return places(plan.folder / "material", "tiny", LENGTHS, NATURAL.mean)


def job_of(name: str, plan: Plan) -> dict:
    (row,) = (row for row in rows(SMALL, NATURAL) if row.name == name)
    assert row.sides[0].name == OURS
    return told(row, row.sides[0], 0, plan)


def test_material_is_made_once(plan, material):
    again = places(plan.folder / "material", "tiny", LENGTHS, NATURAL.mean)
    assert again == material and len({*asdict(material).values()}) == 6


@torch.no_grad()
def test_the_ending_checkpoint_ends_with_its_probability_at_every_token(material):
    tokenizer = AutoTokenizer.from_pretrained(material.ending_model)
    network = AutoModelForCausalLM.from_pretrained(material.ending_model)
    tokens = torch.randint(10, 2000, (16, 40), generator=torch.Generator().manual_seed(0))
    share = network(tokens).logits.softmax(-1)[:, :, tokenizer.eos_token_id]
    assert float(share.mean()) == pytest.approx(1 / NATURAL.mean, rel=0.25)
    assert share.min() > 1 / NATURAL.mean / 3 and share.max() < 3 / NATURAL.mean


@torch.no_grad()
def test_any_model_can_be_made_to_end(material):
    tokenizer = AutoTokenizer.from_pretrained(material.language_model)
    plain = AutoModelForCausalLM.from_pretrained(material.language_model)
    eos, row = tokenizer.eos_token_id, [[5, 9, 40, 300, 7]]
    before = float(plain(torch.tensor(row)).logits.softmax(-1)[..., eos].mean())
    let_end(plain, eos, 0.2, row)
    after = float(plain(torch.tensor(row)).logits.softmax(-1)[..., eos].mean())
    assert before < 0.01 and after == pytest.approx(0.2, rel=0.15)


@pytest.mark.parametrize(("name", "updates"), [("ppo-equal", 16), ("ppo-natural", 16), ("grpo", 16)])
def test_rollouts_have_the_lengths_and_the_updates_that_were_asked_for(name, updates, plan, material):
    job = job_of(name, plan) | {"new_tokens": 16}
    found = program.rl(job)
    wanted = NATURAL.lengths(0, 1, 8) if name == "ppo-natural" else [16] * 8
    assert found["lengths"] == wanted, "of the iteration that was timed, the second"
    assert found["updates"] == updates and found["work"] == 8
    assert found["cpu_seconds"] > 0 and 0 < found["mib"] < found["raw_mib"]
    prompts = 2 if name == "grpo" else 8
    assert found["tokens"]["prompts"] == prompts and found["tokens"]["completion"] == sum(wanted)
    assert 6 * prompts <= found["tokens"]["prompt"] <= 10 * prompts


@pytest.mark.parametrize("name", ["reward", "dpo", "sft"])
def test_offline_jobs_count_their_rows_and_say_losses(name, plan, material):
    found = getattr(program, name)(job_of(name, plan))
    assert found["updates"] == 3 and len(found["losses"]) == 8 and len(set(found["losses"])) == 8
    counted = found["tokens"]
    assert counted["prompts"] == 24 and counted["completions"] == (24 if name == "sft" else 48)
    assert found["work"] == (counted["prompt"] + counted["completion"] if name == "sft" else 24)
    assert found["cpu_seconds"] > found.get("charged", {"cpu_seconds": 0})["cpu_seconds"] >= 0
    assert ("charged" in found) == (name == "dpo"), "what the reference says of a pair costs its share"


def test_the_sampler_writes_every_prompt_to_its_length(plan, material):
    found = program.sampler(job_of("sampler", plan))
    assert found["lengths"] == NATURAL.lengths(0, 1, 12) and found["work"] == sum(found["lengths"])
