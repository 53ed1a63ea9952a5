"""Recursive reward modelling, first form: judges with help are more often right, a model that learns from them is a
better model, and it names what the lower one gets wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small import WORDS, add_small_data, settings

from trueup import api, auditing, helping, loading
from trueup.config.audit import AuditConfig
from trueup.errors import TrueupError
from trueup.evals.assistance import assisted_judges
from trueup.evals.audit import audit
from trueup.evals.rivals import compare_scorers
from trueup.records import Completion, Judgement, Prompt, Score
from trueup.reports.card import reward_card
from trueup.store import Workspace, queue

SMALL = {"hidden": 32, "layers": 1, "heads": 2, "mlp": 48, "vocabulary": 320, "context": 96}
NOUNS = ["dog", "birds", "mat", "rain", "red", "house", "town", "old"]
GOOD = "cat"


class By:
    """A scorer made of a function of one text."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        return [Score(float(self.value(completion.text))) for completion in completions]


def is_good(text: str) -> float:
    return float(GOOD in text)


def pairs(n: int, seed: int) -> Iterator[tuple[Prompt, tuple[str, str], tuple[int, int]]]:
    """Two texts of which one has the word that makes it good, and which differ in length whichever that is."""
    chance = random.Random(seed)
    for i in range(n):
        short, long = ([chance.choice(NOUNS) for _ in range(k)] for k in (3, 7))
        chance.choice([short, long]).insert(1, GOOD)
        texts = tuple(" ".join(words) for words in chance.sample([short, long], 2))
        yield Prompt.user(f"{chance.choice(WORDS)} {seed} {i}"), texts, (1, 2) if GOOD in texts[0] else (2, 1)


def crowd(n: int, seed: int, alone: float = 0.2, helped: float = 0.95) -> list[Judgement]:
    """Alone, people look for the word so often, and else prefer the longer text; a critique makes nearly all look. By
    turns with help and without, two of each on every pair."""
    chance, found = random.Random(seed), []
    for prompt, texts, right in pairs(n, seed):
        longer = (1, 2) if len(texts[0]) > len(texts[1]) else (2, 1)
        for turn in range(4):
            looks = chance.random() < (helped if turn % 2 else alone)
            meta = {"assisted": ["helper A"] if turn % 2 else [], "expected": list(right)}
            found.append(Judgement(prompt, texts, right if looks else longer, f"j{turn}", "human", meta=meta))
    return found


def rows(judgements: Sequence[Judgement], split: str) -> list[str]:
    return [json.dumps(j.to_json() | {"split": split, "id": f"{split} {i}"}) for i, j in enumerate(judgements)]


def the_right_ones(n: int, seed: int) -> list[Judgement]:
    return [Judgement(prompt, texts, right, "gold", "rule") for prompt, texts, right in pairs(n, seed)]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Iterator[Workspace]:
    """A lower model from judges who had no help, a higher one from judges who had, and golds that neither has seen."""
    folder: Path = tmp_path_factory.mktemp("models")
    said, heldout = crowd(80, 1), crowd(12, 2)
    sets = {
        "lower": [each for each in said if not each.meta["assisted"]],
        "higher": [each for each in said if each.meta["assisted"]],
    }
    with Workspace.create(folder / "workspace") as ws:
        add_small_data(ws, folder, prompts=12)
        api.pretrain(ws, data="demonstrations", name="base", config=settings("pretrain", steps=4, architecture=SMALL))
        for name, learnt in sets.items():
            kept = [each for each in heldout if bool(each.meta["assisted"]) == (name == "higher")]
            file = folder / f"{name}.jsonl"
            file.write_text("\n".join(rows(learnt, "train") + rows(kept, "heldout")))
            api.add_data(ws, str(file), "preferences", name=f"{name}-votes")
            config = settings("reward", steps=24, optimizer={"lr": 3e-3})
            api.reward(ws, base="base", data=f"{name}-votes", name=name, config=config)
        file = folder / "golds.jsonl"
        file.write_text("\n".join(rows(the_right_ones(120, 3), "heldout")))
        api.add_data(ws, str(file), "preferences", name="golds")
        yield ws


def test_a_model_that_learnt_from_helped_judges_checks_the_lower_one(models):
    found = auditing.compare_rewards(models, a="lower", b="higher", data="golds", threads=1, shown=8)
    assert found["difference"]["ci"][1] < 0 and found["b"]["ci"][0] > found["a"]["ci"][1]
    checked = found["opposed"]
    assert checked["n"] > 20 and checked["b_right"]["value"] > 0.9
    assert checked["a_takes_longer"]["ci"][0] > 0.8  # what is wrong with the lower one
    assert len(checked["pairs"]) == 8
    for pair in checked["pairs"]:
        assert pair["margin_a"] < 0 < pair["margin_b"] and GOOD in pair["chosen"]
        assert len(pair["chosen"]) < len(pair["rejected"])


def test_the_check_is_printed(models, capsys):
    from trueup.cli.main import main

    with pytest.raises(SystemExit):
        main(["--workspace", str(models.path), "eval", "rewards", "lower", "higher", "golds", "--show", "2"])
    said = capsys.readouterr().out
    assert "ordered differently:" in said and "the judges side with B" in said and "A takes the longer one in" in said


# Help by models


@pytest.fixture(scope="module")
def asked(models, tmp_path_factory) -> Workspace:
    """A collection of pairs, one of which is longer than the models read."""
    asked = [*pairs(6, 9), (Prompt.user("rain " * 120), ("cat", "dog"), (1, 2))]
    file = tmp_path_factory.mktemp("asked") / "completions.jsonl"
    lines = (json.dumps({"prompt": prompt.text, "completions": list(texts)}) for prompt, texts, _ in asked)
    file.write_text("\n".join(lines))
    api.add_data(models, str(file), "completions", name="drafts")
    api.collect(models, "titles", completions=["drafts"])
    return models


def help_of(ws: Workspace) -> list[Any]:
    return queue.items(ws.database, queue.collection(ws.database, "titles").id)


def test_a_reward_model_says_what_it_prefers(asked):
    found = helping.help_from_scores(asked, "titles", "higher", threads=1)
    assert found.outputs == 6 and found.helpers == ("helper A",)
    assert found.left_out.counts == {"items with a completion that is longer than the reward model reads": 1}
    for item in help_of(asked):
        for said in item.help or ():
            best = said["places"][[GOOD in text for text in item.texts].index(True)]
            assert "prefers this one, by" in best and "standard deviations" in best
            assert said["ranks"][[GOOD in text for text in item.texts].index(True)] == 1


def test_a_model_writes_about_each_completion_by_the_ordinary_stage(asked):
    writer = helping.Writer("critique", "{prompt}: {completion}", {"temperature": 1.0, "max_new_tokens": 8})
    before = sum(row.stage == "sample" for row in asked.run_rows())
    found = helping.help_from_writer(asked, "titles", "base", writer, helper="the critic")
    assert found.helpers == ("the critic",) and 0 < found.outputs <= 6
    assert "items that are longer than the writer reads" in found.left_out.counts
    again = helping.help_from_writer(asked, "titles", "base", writer, helper="the critic")
    assert (again.outputs, again.known) == (0, found.outputs)  # nothing was sampled again
    assert sum(row.stage == "sample" for row in asked.run_rows()) == before + 1
    texts = {text for item in help_of(asked) for said in item.help or () if said["kind"] == "critique"
             for text in said["places"]}  # fmt: skip
    made = {c.text.strip() for c in loading.read_completions(asked.artifacts("completions")[-1])}
    assert texts and texts <= made
    with pytest.raises(TrueupError, match="no prompt leaves room"):
        helping.help_from_writer(asked, "titles", "base", helping.Writer(), helper="no room")


# Judges with help and without


def test_the_audit_compares_judges_with_help_and_without():
    judgements = crowd(60, 4)
    found = audit(By(is_good), judgements, AuditConfig(probes=5))
    helped = found["assistance"]
    assert helped["verdict"] == "higher" and helped["difference"]["ci"][0] > 0.1
    assert (helped["assisted"]["n"], helped["alone"]["n"]) == (120, 120)
    right = [each.ranks == tuple(each.meta["expected"]) for each in judgements if each.meta["assisted"]]
    assert helped["assisted"]["value"] == pytest.approx(sum(right) / len(right))
    slices = {each["name"]: each["value"] for each in found["slices"] if each["kind"] == "help"}
    assert slices["with help"] > slices["without help"] + 0.2
    json.dumps(found, allow_nan=False)
    assert "Judges with help and without" in reward_card(found, "m", "d")


def test_help_that_does_nothing_is_not_praised():
    found = assisted_judges(crowd(60, 5, alone=0.6, helped=0.6))
    assert found["verdict"] == "no difference seen" and found["difference"]["ci"][0] < 0 < found["difference"]["ci"][1]


def test_what_is_right_comes_from_the_row_or_from_a_gold_score():
    judgements = crowd(30, 6)
    bare = [Judgement(j.prompt, j.completions, j.ranks, j.judge, j.source, meta={"assisted": j.meta["assisted"]})
            for j in judgements]  # fmt: skip
    assert assisted_judges(bare) is None
    assert assisted_judges(bare, By(is_good)) == assisted_judges(judgements)
    assert assisted_judges(the_right_ones(10, 0), By(is_good)) is None  # nobody noted who had help
    odd = [Judgement(j.prompt, j.completions, j.ranks, "j", "human", meta=j.meta | {"expected": ["x"]})
           for j in judgements]  # fmt: skip
    assert assisted_judges(odd) is None


# The check itself


def test_pairs_are_listed_by_margin_and_only_those_in_another_order():
    judgements = the_right_ones(60, 7)
    found = compare_scorers(By(len), By(is_good), judgements, shown=5)
    short = [j for j in judgements if len(j.completions[j.ranks.index(1)]) < len(j.completions[j.ranks.index(2)])]
    checked = found["opposed"]
    assert checked["n"] == len(short) and checked["b_right"]["value"] == checked["a_takes_longer"]["value"] == 1
    apart = [abs(pair["margin_a"] - pair["margin_b"]) for pair in checked["pairs"]]
    assert apart == sorted(apart, reverse=True) and len(apart) == 5
    largest = max(len(j.completions[j.ranks.index(2)]) - len(j.completions[j.ranks.index(1)]) for j in short)
    first = checked["pairs"][0]
    assert len(first["rejected"]) - len(first["chosen"]) == largest


def test_two_that_agree_oppose_nothing():
    found = compare_scorers(By(is_good), By(lambda text: 3 * is_good(text)), the_right_ones(20, 8))
    assert found["opposed"]["n"] == 0 and found["opposed"]["pairs"] == []
    assert found["opposed"]["b_right"]["value"] is None and found["same_order"] == 1
    json.dumps(found, allow_nan=False)
