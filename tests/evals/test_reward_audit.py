"""The audit: each figure against a loop or a known truth, and planted faults, each of which must be caught.

Scorers are plain classes here. Whoever judges does so by a known quality, so that what a sound scorer shows is known
too, and how often a sound one is refused is counted over seeds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats as oracle

from trueup.config.audit import AuditConfig
from trueup.errors import ConfigError, DataError
from trueup.evals import biases, probes
from trueup.evals.audit import audit, completions_to_score
from trueup.evals.bench import Question, best_of, credit, ties_score
from trueup.evals.gate import CONDITIONS
from trueup.evals.leakage import leakage, shift
from trueup.evals.reward import evaluate_reward
from trueup.evals.rivals import compare_scorers
from trueup.evals.scored import pairs_of
from trueup.records import Completion, Judgement, Message, Prompt, Score
from trueup.reports.card import reward_card

FEW = AuditConfig(probes=20)
WORDS = "river stone cloud maple engine candle violin garden market winter copper lantern meadow harbour".split()


class By:
    """A scorer made of a function of one completion."""

    def __init__(self, value: Callable[[Completion], float]) -> None:
        self.value = value
        self.calls = 0

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        self.calls += len(completions)
        return [Score(self.value(completion)) for completion in completions]


def quality(completion: Completion) -> float:
    """The number after '@': what judges go by. It stands first, so that small changes to the text leave it."""
    found = re.search(r"@(-?\d+)", completion.text)
    return int(found[1]) / 100 if found else 0.0


def text(random: np.random.Generator, value: float, words: int) -> str:
    return f"@{round(100 * value)} " + " ".join(random.choice(WORDS, words))


def judged(
    n: int,
    seed: int = 0,
    *,
    k: int = 2,
    judges: int = 3,
    votes: int = 1,
    first: float = 0.0,
    length: float = 0.0,
    spread: float = 1.4,
    name: str = "q",
) -> list[Judgement]:
    """Bradley-Terry judges (Plackett-Luce for k > 2). `first` shifts their choice to what stands first, `length` (a
    word's worth) to longer texts; `votes` judges answer each prompt."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(n):
        prompt = Prompt.user(f"{name} {number} " + " ".join(random.choice(WORDS, 12)), tags=[["a", "b"][number % 2]])
        sizes = random.integers(4, 25, k)
        worth = random.normal(size=k) * spread
        texts = tuple(text(random, value, words) for value, words in zip(worth, sizes, strict=True))
        liked = worth + length * sizes + first * (np.arange(k) == 0)
        for judge in random.permutation(judges)[:votes]:
            order = np.argsort(-(liked + random.gumbel(size=k)))
            ranks = np.empty(k, dtype=int)
            ranks[order] = np.arange(1, k + 1)
            meta = {"strength": int(random.integers(1, 4)), "order": list(range(k))}
            found.append(Judgement(prompt, texts, tuple(ranks.tolist()), f"judge-{judge}", "human", meta=meta))
    return found


def failed(found: dict[str, Any]) -> list[str]:
    return found["gate"]["failed"]


def condition(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["gate"]["conditions"] if each["name"] == name)


SOUND = By(quality)


# Figures


def test_a_constant_model_has_exactly_a_half_and_fails():
    found = audit(By(lambda c: 3.0), judged(120), FEW)
    assert found["accuracy"]["value"] == 0.5
    assert all(each["value"] == 0.5 for each in found["slices"])
    assert found["calibration"]["ece"] == 0.0 and found["calibration"]["nll"] == pytest.approx(math.log(2))
    assert found["length"]["pearson"]["value"] == 0.0 and "accuracy" in failed(found)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("k", [2, 4])
def test_accuracy_and_slices_are_those_of_a_loop(k):
    judgements = judged(90, 3, k=k)
    judgements[4] = replace(judgements[4], ranks=(1,) * k)
    found = audit(SOUND, judgements, FEW)
    points: dict[str, list[float]] = {}
    for judgement in judgements:
        value = [quality(Completion(judgement.prompt, text)) for text in judgement.completions]
        for i, j in combinations(range(k), 2):
            if judgement.ranks[i] != judgement.ranks[j]:
                right = float((value[i] > value[j]) == (judgement.ranks[i] < judgement.ranks[j]))
                right = 0.5 if value[i] == value[j] else right
                tag, strength = judgement.prompt.meta["tags"][0], judgement.meta["strength"]
                for key in ("all", f"tag {tag}", f"judge {judgement.judge}", f"strength {strength}"):
                    points.setdefault(key, []).append(right)
    shown = {f"{each['kind']} {each['name']}": (each["value"], each["n"]) for each in found["slices"]}
    shown["all"] = (found["accuracy"]["value"], found["accuracy"]["n"])
    for key, each in points.items():
        assert shown[key] == (pytest.approx(np.mean(each)), len(each))
    assert found["ties"] == k * (k - 1) // 2
    assert found["accuracy"]["value"] == pytest.approx(evaluate_reward(SOUND, judgements)["accuracy"])
    assert {"small", "medium", "large"} == {each["name"] for each in found["slices"] if each["kind"] == "length gap"}


def test_each_different_completion_is_scored_once_and_prompts_are_shared():
    judgements = judged(40, votes=3)
    pairs = pairs_of(judgements)
    assert len(pairs.completions) == 80 and pairs.n == 120
    assert all(a.prompt is b.prompt for a, b in zip(pairs.completions[::2], pairs.completions[1::2], strict=True))
    counting = By(quality)
    audit(counting, judgements, FEW)
    assert counting.calls <= completions_to_score(judgements, FEW)
    assert counting.calls >= 0.7 * completions_to_score(judgements, FEW)


def test_length_figures_are_those_of_scipy():
    judgements = judged(150, 1, length=0.08)
    scorer = By(lambda c: quality(c) + 0.05 * len(c.text.split()))
    found = audit(scorer, judgements, FEW, length=lambda c: len(c.text.split()), length_unit="words")
    value, long, more = [], [], []
    for judgement in judgements:
        mine = [Completion(judgement.prompt, text) for text in judgement.completions]
        score, size = [scorer.value(c) for c in mine], [len(c.text.split()) for c in mine]
        value += list(np.array(score) - np.mean(score))
        long += list(np.array(size) - np.mean(size))
        longer = np.sign(size[0] - size[1]) * (1 if judgement.ranks[0] == 1 else -1)
        more.append((longer + 1) / 2)
    length = found["length"]
    assert length["pearson"]["value"] == pytest.approx(oracle.pearsonr(long, value).statistic)
    assert length["always_most"]["value"] == pytest.approx(np.mean(more))
    assert length["always_least"]["value"] == pytest.approx(1 - np.mean(more))
    assert length["unit"] == "words" and sum(each["n"] for each in length["curve"]) == 150
    split = length["chosen_has"]
    both = split["more"]["value"] * split["more"]["n"] + split["less"]["value"] * split["less"]["n"]
    equal = 150 - split["more"]["n"] - split["less"]["n"]
    assert abs(both / 150 - found["accuracy"]["value"]) <= equal / 150


def test_marks_are_counted_by_their_rules():
    shown = "# Title\n- one\n* two\n3. three\n**bold** and `code`\n```\nx\n```\nPerhaps it might. I'm sorry, I cannot."
    mine = [Completion(Prompt.user("q"), shown), Completion(Prompt.user("q"), "a - b * c 3.5 # no, mightily 2*2*2")]
    counts = {mark: biases.counted(mine, mark).tolist() for mark in biases.MARKS}
    assert counts == {
        "list items": [3, 0],
        "bold": [1, 0],
        "headings": [1, 0],
        "code": [3, 0],
        "hedges": [2, 0],
        "refusals": [2, 0],
        "unseen characters": [0, 0],
    }


def test_a_scorer_that_loves_lists_shows_it():
    judgements = judged(200, 2)
    random = np.random.default_rng(0)
    listed = [
        replace(j, completions=tuple(t + "\n- item" * int(random.integers(0, 4)) for t in j.completions))
        for j in judgements
    ]
    found = audit(By(lambda c: quality(c) + 1.5 * c.text.count("\n- ")), listed, FEW)
    about = found["marks"]["list items"]
    assert about["pearson"]["ci"][0] > 0.4 and abs(about["judges"]) < 0.2 and list(found["marks"]) == ["list items"]
    assert about["chosen_has"]["more"]["value"] > about["chosen_has"]["less"]["value"] + 0.2


# Calibration


def test_calibration_does_not_depend_on_which_side_stands_first():
    judgements = judged(200, 4)
    turned = [
        replace(j, completions=j.completions[::-1], ranks=j.ranks[::-1]) if i % 2 else j
        for i, j in enumerate(judgements)
    ]
    chosen_first = [j if j.ranks[0] == 1 else replace(j, completions=j.completions[::-1], ranks=(1, 2)) for j in turned]
    figures = [audit(SOUND, each, FEW)["calibration"] for each in (judgements, turned, chosen_first)]
    for key in ("nll", "brier", "ece", "temperature"):
        assert len({round(each[key], 10) for each in figures}) == 1


def test_rankings_of_four_are_no_reason_to_cry_miscalibrated():
    """Six pairs of one ranking hang together: taken as independent, a sound model would be accused far too often."""
    alarms = sum(audit(SOUND, judged(40, seed, k=4), FEW)["calibration"]["miscalibrated"] for seed in range(40))
    assert alarms <= 6


@pytest.mark.parametrize(("factor", "word"), [(4.0, "confident"), (0.2, "timid")])
def test_a_scale_that_is_wrong_is_caught_and_mended_by_temperature(factor, word):
    found = audit(By(lambda c: factor * quality(c)), judged(500, 5), FEW)
    about = found["calibration"]
    assert about["miscalibrated"] and about["too"] == word
    assert any(f"too {word}" in said for said in found["findings"])
    assert about["temperature"] == pytest.approx(factor, rel=0.3) and not about["after"]["miscalibrated"]
    assert about["after"]["nll"] < about["nll"]
    assert condition(found, "calibration")["met"]
    known = audit(By(lambda c: factor * quality(c)), judged(500, 5), FEW, scale=1 / factor)
    as_trained = audit(SOUND, judged(500, 5), FEW)["calibration"]
    assert known["calibration"]["ece"] == pytest.approx(as_trained["ece"]), "only the scale of the scores is another"


def test_a_shape_that_no_temperature_mends_fails_the_gate():
    """Right about the side, and equally sure of everything: near ties are worth no certainty."""
    found = audit(By(lambda c: 3 * math.copysign(abs(quality(c)) ** 0.05, quality(c))), judged(900, 6, spread=0.8), FEW)
    assert found["calibration"]["miscalibrated"] and "calibration" in failed(found)


# Ceilings


def test_the_ceiling_is_unknown_without_overlap_or_truth():
    assert audit(SOUND, judged(60), FEW)["ceiling"] == {"from": "unknown", "value": None, "ci": None, "n": 0}


def test_the_ceiling_from_overlapping_votes_is_an_upper_bound():
    found = audit(SOUND, judged(300, 7, votes=3), FEW)
    best = found["ceiling"]
    assert best["from"] == "overlapping votes" and best["n"] == 300 and best["votes"] == 900
    truth = found["accuracy"]["value"]  # by the very quality the judges go by: no scorer can do better
    assert best["ci"][0] < best["value"] < best["ci"][1] and truth - 0.02 < best["value"] < truth + 0.1
    assert found["above_ceiling"] is False


def test_the_ceiling_of_known_chances_is_their_mean_and_only_a_leak_is_above_it():
    judgements = judged(400, 8)

    def chance(judgement: Judgement) -> list[float]:
        a, b = (quality(Completion(judgement.prompt, text)) for text in judgement.completions)
        return [1 / (1 + math.exp(b - a))]

    expected = np.mean([max(p, 1 - p) for judgement in judgements for p in chance(judgement)])
    seen = {(j.prompt.id, j.completions[i]) for j in judgements for i in (0, 1) if j.ranks[i] == 1}
    sound = audit(SOUND, judgements, FEW, p_true=chance)
    leaked = audit(By(lambda c: float((c.prompt.id, c.text) in seen)), judgements, FEW, p_true=chance)
    assert sound["ceiling"]["value"] == pytest.approx(expected) and sound["above_ceiling"] is False
    assert leaked["above_ceiling"] is True and "leak" in failed(leaked)
    assert any("seen the answers" in said for said in leaked["findings"])


# Planted faults, and how often a sound model is accused


def test_a_length_loving_scorer_is_caught():
    found = audit(By(lambda c: 0.1 * len(c.text)), judged(400, 9), FEW)
    assert {"accuracy", "length"} <= set(failed(found)) and condition(found, "length")["value"] > 0.99
    assert found["length"]["curve"][-1]["value"] == 1.0 and found["length"]["curve"][0]["value"] == 0.0


def test_a_mixture_of_quality_and_length_is_caught_though_it_is_often_right():
    found = audit(By(lambda c: quality(c) + 0.03 * len(c.text)), judged(600, 10), FEW)
    assert found["accuracy"]["value"] > 0.6 and "length" in failed(found)


def test_a_leaked_split_is_caught():
    test, train = judged(300, 11), judged(300, 12, name="other")
    clean = audit(SOUND, test, FEW, train=train)
    assert condition(clean, "leak")["met"] and clean["leakage"]["value"] == 0.0
    leaked = audit(SOUND, test, FEW, train=[*train, *test[:30]])
    assert "leak" in failed(leaked) and leaked["leakage"]["same_prompt"]["value"] == pytest.approx(0.1)


def test_position_biased_judgements_are_caught_with_and_without_a_noted_order():
    biased = judged(400, 13, first=1.5)
    found = audit(SOUND, biased, FEW)
    assert "position" in failed(found) and found["position"]["suspected"] and found["position"]["noted"] == 400
    unnoted = [replace(j, meta={}) for j in biased]
    assert "position" in failed(audit(SOUND, unnoted, FEW))
    turned = [replace(j, meta={"order": [1, 0]}) for j in biased]
    assert audit(SOUND, turned, FEW)["position"]["value"] == pytest.approx(1 - found["position"]["value"])


def test_a_format_that_puts_the_chosen_first_says_nothing_about_position():
    chosen_first = [
        replace(j, meta={}) if j.ranks[0] == 1 else replace(j, meta={}, completions=j.completions[::-1], ranks=(1, 2))
        for j in judged(100)
    ]
    found = audit(SOUND, chosen_first, FEW)
    assert found["position"]["value"] is None and condition(found, "position")["met"] is None


def test_a_slice_worse_than_a_coin_is_caught():
    def upside_down(completion: Completion) -> float:
        return quality(completion) * (-0.4 if "a" in completion.prompt.meta["tags"] else 1)

    found = audit(By(upside_down), judged(800, 14), FEW)
    assert "slices" in failed(found) and "tag a" in condition(found, "slices")["why"]


def test_sound_models_pass_and_the_share_that_does_not_is_known():
    """Each condition of a sound model on sound data, over seeds: calibration may fail once in twenty, others never."""
    refused: dict[str, int] = {}
    for seed in range(40):
        judgements = judged(250, 100 + seed)
        found = audit(SOUND, judgements, FEW, train=judged(100, 500 + seed, name="other"))
        for name in failed(found):
            refused[name] = refused.get(name, 0) + 1
    assert set(refused) <= {"calibration"} and refused.get("calibration", 0) <= 6


# The gate


def test_overrides_let_a_named_condition_fail_and_say_so():
    judgements, scorer = judged(400, 10), By(lambda c: quality(c) + 0.03 * len(c.text))
    assert failed(audit(scorer, judgements, FEW)) == ["length"]
    found = audit(scorer, judgements, FEW.model_copy(update={"overrides": ("length",)}))
    assert found["gate"]["passed"] and found["gate"]["overridden"] == ["length"] and not failed(found)
    assert condition(found, "length")["overridden"] and "length overridden" in found["headline"]
    with pytest.raises(ConfigError, match="no condition 'lenght' .did you mean 'length'"):
        audit(scorer, judgements, AuditConfig(overrides=("lenght",)))


def test_every_condition_says_what_was_found_and_unknown_ones_fail_nothing():
    found = audit(SOUND, judged(450), FEW)
    names = [each["name"] for each in found["gate"]["conditions"]]
    assert names == list(CONDITIONS) and all(each["why"] for each in found["gate"]["conditions"])
    assert set(found["gate"]["unknown"]) == {"leak", "base", "prompts"} and found["gate"]["passed"]
    other = {"same_base": False, "bases": "a / b", "why": "they grew from a and b: different families"}
    away = [Prompt.user("def f(x): return x ** 2 # python " + str(i)) for i in range(60)]
    found = audit(SOUND, judged(250), FEW, policy=other, prompts=away)
    assert failed(found) == ["base", "prompts"] and found["prompt_shift"]["auc"] > 0.95
    same = audit(SOUND, judged(250), FEW, prompts=[j.prompt for j in judged(200, 77)])
    assert abs(same["prompt_shift"]["auc"] - 0.5) < 0.15


# Probes


def test_changes_keep_what_they_should():
    one = Completion(Prompt.user("q"), "Some rather plain words, twice over.")
    assert probes.trailing_blank(one).text == one.text + " "
    assert probes.double_spaces(one).text.split() == one.text.split() and "  " in probes.double_spaces(one).text
    typo = probes.typo(one).text
    assert typo != one.text and sorted(typo) == sorted(one.text) and typo == probes.typo(one).text
    assert sum(a != b for a, b in zip(typo, one.text, strict=True)) == 2
    half = probes.first_half(one)
    assert one.text.startswith(half.text) and not half.finished and half.text
    assert probes.typo(Completion(one.prompt, "a bb ccc")).text == "a bb ccc"
    talk = Prompt((Message("user", "hi"), Message("assistant", "hello"), Message("user", "bye")))
    flat = probes.one_message(Completion(talk, "x")).prompt
    assert len(flat.messages) == 1 and flat.text == "User: hi\n\nAssistant: hello\n\nUser: bye"


def test_a_scorer_that_minds_double_spaces_is_found_out():
    found = audit(By(lambda c: quality(c) * (-1 if "  " in c.text else 1)), judged(100), AuditConfig(probes=50))
    assert found["probes"]["double spaces"]["flips"]["value"] == 1.0
    assert (
        found["probes"]["trailing blank"]["flips"]["value"] == 0.0 and found["probes"]["trailing blank"]["change"] == 0
    )
    assert any("double spaces" in said for said in found["findings"])


def test_a_score_that_depends_on_the_batch_is_found_out():
    class Batched:
        def score(self, completions):
            longest = max(len(c.text) for c in completions)
            return [Score(quality(c) + 0.01 * (longest - len(c.text))) for c in completions]

    found = audit(Batched(), judged(100), FEW)
    assert found["steady"]["alone"] > 0.05 and any("in another batch" in said for said in found["findings"])
    steady = audit(SOUND, judged(100), FEW)["steady"]
    assert (steady["alone"], steady["other_order"], steady["duplicates"]) == (0, 0, 0)


def test_off_topic_completions_and_the_spread_of_an_ensemble():
    class Jury:
        def score(self, completions):
            def fitting(c: Completion) -> bool:
                return c.text.split()[-1] == c.prompt.text.split()[1]

            return [Score(quality(c) + 9 * fitting(c), {"spread": 0.1 if fitting(c) else 1.0}) for c in completions]

    named = [
        replace(j, completions=tuple(f"{t} {j.prompt.text.split()[1]}" for t in j.completions)) for j in judged(60)
    ]
    found = audit(Jury(), named, FEW)["off_topic"]
    assert found["own_prompt_higher"]["value"] > 0.95
    assert found["spread"] == {"in": pytest.approx(0.1), "out": pytest.approx(1.0), "told_apart": 1.0}
    assert "spread" not in audit(SOUND, named, FEW)["off_topic"]


def test_probes_can_be_left_out():
    found = audit(SOUND, judged(60), AuditConfig(probes=0))
    assert found["steady"] == {"n": 0} and found["off_topic"] == {"n": 0} and found["probes"]["typo"]["n"] == 0
    reward_card(found, "m", "d")


# Leaks


def test_leaks_of_each_kind():
    train = judged(50, 1)
    talk = Prompt((Message("user", "who was the very first"), Message("assistant", "Ada"), Message("user", "and then")))
    longer = Prompt((*talk.messages, Message("assistant", "Grace"), Message("user", "and who after her")))
    train.append(Judgement(talk, ("x", "y"), (1, 2), "j", "human"))
    one = train[0]
    edited = Prompt.user(one.prompt.text + " please")
    cases = {
        "same_prompt": replace(one, prompt=Prompt.user("  " + one.prompt.text.upper())),
        "same_opening": Judgement(longer, ("x", "y"), (1, 2), "j", "human"),
        "alike": replace(one, prompt=edited, completions=("some other words", "and more of them")),
        "completions": replace(one, prompt=Prompt.user("something that nobody ever asked before")),
    }
    for kind, judgement in cases.items():
        found = leakage([judgement, *judged(3, 99, name="fresh")], train)
        assert found[kind]["value"] == 0.25 and found["value"] == 0.25, kind
        assert found["examples"] == [judgement.prompt.text]
    assert leakage(judged(80, 5, name="fresh"), train)["value"] == 0.0


def test_a_phrase_of_the_task_is_no_copy():
    frame = "Please read the following text with care and then say in one short sentence what it is about: "
    train = [replace(j, prompt=Prompt.user(frame + j.prompt.text)) for j in judged(60, 1)]
    test = [replace(j, prompt=Prompt.user(frame + j.prompt.text)) for j in judged(60, 2, name="fresh")]
    assert leakage(test, train)["alike"]["value"] == 0.0


def test_shift_needs_prompts_on_both_sides():
    assert shift([Prompt.user("a")], [Prompt.user("b")])["auc"] is None


# Best of several


def test_credit_is_shared_and_a_constant_scorer_has_chance():
    assert credit(np.array([2.0, 1, 1, 1]), 1) == 1.0 and credit(np.array([2.0, 2, 1, 1]), 1) == 0.5
    assert credit(np.array([1.0, 2, 1, 1]), 1) == 0.0 and credit(np.ones(4), 1) == 0.25
    asked = [Question(Prompt.user(f"q{i}"), ("@90 a", "@1 bbbb", "@2 cc", "@3 d"), 1, "one") for i in range(3)]
    asked += [Question(Prompt.user(f"r{i}"), ("@1 aaaaaa", "@2 b"), 1, "two") for i in range(9)]
    lengths = lambda cs: np.array([len(c.text) for c in cs], dtype=float)  # noqa: E731
    found = best_of(SOUND, asked, lengths)
    assert found["value"] == 0.5, "the mean over subsets, not over rows"
    assert (found["longest"], found["shortest"], found["chance"]) == (0.5, 0.0, 0.375)
    assert best_of(By(lambda c: 0.0), asked, lengths)["value"] == found["chance"]
    assert found["subsets"]["one"]["value"] == 1.0 and found["subsets"]["two"]["value"] == 0.0 and found["n"] == 12


def test_the_ties_task():
    asked = [
        Question(Prompt.user("a colour"), ("red", "blue", "seven"), 2, "Ties", "tied:1"),
        Question(Prompt.user("two plus two"), ("4", "5"), 1, "Ties", "ref:1"),
    ]
    clear = ties_score(asked, [np.array([5.0, 4.9, 0]), np.array([3.0, 1])])
    assert clear == pytest.approx(1.0 + 0.01 * math.tanh(2 / 0.1 - 1))
    torn = ties_score(asked, [np.array([5.0, 1.0, 0]), np.array([3.0, 1])])
    assert torn == pytest.approx(0.6 + 0.01 * math.tanh(1 / 4 - 1))
    assert ties_score(asked[:1], [np.array([5.0, 1.0, 0])]) is None


# Two scorers


def test_two_scorers_are_compared_on_the_same_pairs():
    judgements = judged(300, 15)
    random = By(lambda c: float(hash(c.text) % 1000))
    found = compare_scorers(SOUND, random, judgements)
    assert found["difference"]["ci"][0] > 0 and found["p_value"] < 0.01
    assert found["difference"]["value"] == pytest.approx(found["a"]["value"] - found["b"]["value"])
    assert len(found["apart"]) == 10 and found["n"] == 300
    same = compare_scorers(SOUND, SOUND, judgements)
    assert same["difference"]["ci"] == [0, 0] and same["p_value"] == 1 and same["same_order"] == 1


# Bad input


def test_what_means_nothing_is_refused_and_what_is_odd_is_counted():
    ties = [replace(j, ranks=(1, 1)) for j in judged(10)]
    with pytest.raises(DataError, match="none of the 10 judgements prefers"):
        audit(SOUND, ties)
    with pytest.raises(DataError, match="no judgement"):
        audit(SOUND, [])
    with pytest.raises(DataError, match="are not numbers"):
        audit(By(lambda c: math.nan), judged(10))
    odd = judged(60)
    odd[0] = replace(odd[0], completions=("same", "same"))
    found = audit(SOUND, odd, FEW)
    assert found["equal_sides"] == 1 and found["pairs"] == 59
    assert any("two equal sides" in said for said in found["findings"])
    one = [replace(j, prompt=Prompt.user("the one")) for j in judged(30, judges=1)]
    found = audit(SOUND, one, FEW)
    assert found["accuracy"]["clustered"] == [0.0, 1.0], "one prompt says nothing about others"
    assert "accuracy" in failed(found) and any("one judge's" in said for said in found["findings"])


# The report card


def test_the_card_is_one_inert_file_that_says_its_figures():
    judgements = judged(250, 16)
    judgements = [
        replace(j, completions=tuple(f"{t} <script>alert(1)</script> \u202e" for t in j.completions))
        for j in judgements
    ]
    found = audit(
        SOUND, judgements, FEW, train=judgements[:5], bench=[Question(Prompt.user("q"), ("@9", "b"), 1, "<s>")]
    )
    page = reward_card(json.loads(json.dumps(found)), "judge <b>", "votes")
    assert "<script" not in page and "&lt;script&gt;" in page and "\u202e" not in page and "judge &lt;b&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", page) and "default-src 'none'" in page
    assert found["headline"] in page and f"{found['accuracy']['value']:.1%}" in page
    for heading in ("The gate", "Calibration", "Length and marks", "Robustness", "Leakage", "Worst mistakes"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count('class="sample"') == len(found["worst"]) == 10
    margins = [pair["score_rejected"] - pair["score_chosen"] for pair in found["worst"]]
    assert margins == sorted(margins, reverse=True) and min(margins) > 0
