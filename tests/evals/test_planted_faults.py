"""Faults planted in scorers and in judgements that no single figure of an audit is about, and what the audit says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trueup.config.audit import AuditConfig
from trueup.errors import DataError
from trueup.evals import biases
from trueup.evals.audit import audit
from trueup.evals.bench import Question
from trueup.evals.scored import pairs_of
from trueup.records import UNNAMED, Completion, Judgement, Prompt, Score
from trueup.reports.card import reward_card

QUICK = AuditConfig(probes=0)
WORDS = "paper river bread window light cold table music letter garden road silver".split()
MARK = "\u200b"  # takes no room: nobody sees it


class By:
    def __init__(self, value: Callable[[Completion], float]) -> None:
        self.value = value

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        return [Score(self.value(completion)) for completion in completions]


def quality(completion: Completion) -> float:
    found = re.search(r"@(-?\d+)", completion.text)
    return int(found[1]) / 100 if found else 0.0


def judged(n: int, seed: int, *, k: int = 2, first: float = 0.0, marked: bool = False, noted: bool = True, **meta: Any):
    """Judges who go by the number in a text; `first` is what standing first is worth to them."""
    random, found = np.random.default_rng(seed), []
    for number in range(n):
        prompt = Prompt.user(f"{seed} {number} " + " ".join(random.choice(WORDS, 10)))
        worth = random.normal(size=k) * 1.3
        texts = tuple(
            f"@{round(100 * value)} " + " ".join(random.choice(WORDS, 8)) + MARK * int(marked and random.random() < 0.5)
            for value in worth
        )
        shown = random.permutation(k)  # shown[place] is the completion that stood there
        liked = worth + first * (np.arange(k) == shown[0]) + random.gumbel(size=k)
        ranks = np.empty(k, dtype=int)
        ranks[np.argsort(-liked)] = np.arange(1, k + 1)
        about = {"order": shown.tolist()} if noted else {}
        found.append(Judgement(prompt, texts, tuple(ranks.tolist()), "ann", "human", meta=about | meta))
    return found


def condition(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["gate"]["conditions"] if each["name"] == name)


SOUND = By(quality)


# Position


def test_rankings_that_favour_what_stood_first_are_caught():
    biased, sound = (audit(SOUND, judged(250, 1, k=4, first=worth), QUICK) for worth in (2.5, 0.0))
    assert "position" in biased["gate"]["failed"] and biased["position"]["suspected"]
    assert sound["position"]["n"] == 250 * 6 and condition(sound, "position")["met"]
    assert abs(sound["position"]["value"] - 0.5) < 0.05


def test_the_share_won_by_what_stood_earlier_is_that_of_a_loop():
    judgements = judged(40, 2, k=3)
    won = []
    for each in judgements:
        place = {completion: place for place, completion in enumerate(each.meta["order"])}
        won += [(place[i] < place[j]) == (each.ranks[i] < each.ranks[j]) for i in range(3) for j in range(i + 1, 3)]
    found = biases.position(pairs_of(judgements))
    assert found["value"] == pytest.approx(np.mean(won)) and found["n"] == len(won) == 120


def test_a_format_that_puts_the_chosen_first_does_not_speak_for_judgements_that_note_their_order():
    """A public data set joined to judgements of one's own: it lists the better one first, and nobody was biased."""
    own = judged(60, 3)
    public = [
        each if each.ranks[0] == 1 else replace(each, completions=each.completions[::-1], ranks=(1, 2))
        for each in judged(300, 4, noted=False)
    ]
    found = audit(SOUND, [*own, *public], QUICK)
    assert found["position"]["n"] == found["position"]["noted"] == 60 and condition(found, "position")["met"]


@pytest.mark.parametrize("order", [[0], [0, 0], "01", [1, None], {"0": 1}])
def test_what_is_called_an_order_and_is_none_tells_nothing(order):
    found = biases.position(pairs_of(judged(50, 5, noted=False, order=order)))
    assert found["noted"] == 0 and found["n"] == 50


# Marks


def test_a_scorer_that_reads_a_watermark_is_named():
    judgements = judged(500, 6, marked=True)
    found = audit(By(lambda c: quality(c) + 1.2 * (MARK in c.text)), judgements, QUICK)
    assert found["marks"]["unseen characters"]["pearson"]["ci"][0] > 0.2
    assert any("go by unseen characters" in said for said in found["findings"])
    assert not any("unseen characters" in said for said in audit(SOUND, judgements, QUICK)["findings"])


def test_a_mark_that_judges_like_too_is_no_reproach():
    def with_lists(each: Judgement) -> Judgement:
        return replace(each, completions=tuple(t + "\n- x" * (quality_of(t) > 0) for t in each.completions))

    def quality_of(text: str) -> float:
        return quality(Completion(Prompt.user("q"), text))

    found = audit(SOUND, [with_lists(each) for each in judged(400, 7)], QUICK)
    assert found["marks"]["list items"]["pearson"]["value"] > 0.5
    assert not any("list items" in said for said in found["findings"])


def test_characters_that_nobody_sees_are_counted():
    texts = ["plain text", "zero\u200bwidth\ufeff", "blank at the end \nand here\t", "turned \u202e round"]
    counts = biases.counted([Completion(Prompt.user("q"), text) for text in texts], "unseen characters")
    assert counts.tolist() == [0, 2, 2, 1]


# What is said in words


def test_no_temperature_is_recommended_where_none_helps():
    found = audit(By(lambda c: 3 * float(len(c.text) % 7)), judged(400, 8), QUICK)
    (said,) = [each for each in found["findings"] if "calibration error is" in each and "too" in each]
    assert "at no temperature do its scores foresee more than a coin" in said and "divide" not in said
    sure = audit(By(lambda c: 500 * quality(c)), judged(400, 8), QUICK)
    assert any("divide score differences by 5" in each for each in sure["findings"])


def test_a_temperature_is_never_shown_as_zero():
    tiny = audit(By(lambda c: quality(c) / 500), judged(400, 8), QUICK)
    assert any("divide score differences by 0.00" in each and "by 0.00 " not in each for each in tiny["findings"])
    assert "with temperature 0.00 " not in condition(tiny, "calibration")["why"]


def test_judges_whom_nobody_named_are_not_taken_for_one():
    unnamed = [replace(each, judge=UNNAMED) for each in judged(60, 9)]
    found = audit(SOUND, unnamed, QUICK)
    assert any("Nobody noted who judged" in said for said in found["findings"])
    assert not any("one judge's" in said for said in found["findings"])
    assert "of judges whom nobody named about" in reward_card(found, "m", "d")
    assert any("one judge's" in said for said in audit(SOUND, judged(60, 9), QUICK)["findings"])


# Pairs and benchmark rows that cannot be used


def test_the_same_text_cut_off_is_another_completion():
    """Training tells them apart, so the audit does: the one that came to its end should score higher."""
    judgements = judged(30, 10)
    twin = replace(judgements[0], completions=("@9 same", "@9 same"), meta={"finished": [True, False]})
    found = audit(By(lambda c: quality(c) + 0.1 * c.finished), [twin, *judgements], QUICK)
    assert found["equal_sides"] == 0 and found["pairs"] == 31


def test_benchmark_rows_that_are_too_long_are_left_out_and_counted():
    asked = [Question(Prompt.user(f"q{i}"), ("@9 a", "@1 b", "@2 c" + " d" * 99 * (i == 0)), 1, "s") for i in range(4)]
    found = audit(SOUND, judged(30, 11), QUICK, bench=asked, fits=lambda c: len(c.text) < 100)
    assert found["bench"]["n"] == 3 and found["bench"]["too_long"] == 1 and found["bench"]["value"] == 1.0
    assert "1 rows are longer" in reward_card(found, "m", "d")
    with pytest.raises(DataError, match="none of the 1 benchmark rows fits"):
        audit(SOUND, judged(30, 11), QUICK, bench=asked[:1], fits=lambda c: len(c.text) < 100)


def test_each_objective_is_shown_by_itself():
    """Of two heads that pull apart the sum foresees little; each of them foresees its own judgements well."""

    class Two:
        def score(self, completions: Sequence[Completion]) -> list[Score]:
            return [Score(0.0, {"kind": quality(c), "short": -quality(c)}) for c in completions]

    turned = [replace(each, ranks=each.ranks[::-1], meta={"objective": "short"}) for each in judged(80, 12)]
    found = audit(Two(), [*judged(80, 13, objective="kind"), *turned], QUICK)
    assert min(found["objectives"][name]["value"] for name in ("kind", "short")) > 0.6 > found["accuracy"]["value"]
    page = reward_card(found, "m", "d")
    assert "Its objective “kind” by itself agrees with" in page and "Its objective “short” by itself" in page
