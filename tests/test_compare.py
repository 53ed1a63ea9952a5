"""Two models side by side: who wins, how surely, and which of n is sent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trueup.engines.fake import FakeScorer
from trueup.evals.compare import Comparison, best_of, ranked, summary
from trueup.evals.matches import Match, by_judgements, by_scores
from trueup.ports import Scorer
from trueup.records import Completion, Judgement, Prompt
from trueup.stats import wilson

PROMPTS = [Prompt.user(f"question {i}") for i in range(16)]
LENGTH = FakeScorer(lambda completion: float(len(completion.text)))


def compare(a: Sequence[Completion], b: Sequence[Completion], scorer: Scorer) -> Comparison:
    return Comparison(by_scores([a, b], scorer))


def answers(text: str) -> list[Completion]:
    return [Completion(prompt, text) for prompt in PROMPTS]


def test_a_clean_sweep_is_not_certainty() -> None:
    rate = compare(answers("long"), answers("s"), LENGTH).rate
    assert rate.value == 1.0 and rate.ci == pytest.approx(wilson(16, 16))
    assert rate.ci[0] < 0.9


def test_ties_count_half_and_a_constant_judge_cannot_tell() -> None:
    found = compare(answers("one"), answers("two"), FakeScorer(lambda completion: 3.0))
    assert found.rate.value == 0.5 and found.rate.ties == 16
    assert found.rate.ci[0] < 0.5 < found.rate.ci[1] and found.verdict == "undecided"


def test_a_judge_of_length_is_found_out() -> None:
    """It prefers whatever is longer. One side is longer more often and wins so; at equal length it would not."""
    a = [Completion(p, " ".join(["word"] * (8 if i % 4 else 2))) for i, p in enumerate(PROMPTS)]
    b = [Completion(p, " ".join(["word"] * 4)) for p in PROMPTS]
    found = compare(a, b, LENGTH).to_json()
    assert found["value"] == 0.75 and (found["words_a"], found["words_b"]) == (6.5, 4.0)
    controlled = found["length_controlled"]
    assert controlled["slope_ci"][0] > 0 and abs(controlled["value"] - 0.5) < abs(found["value"] - 0.5)
    assert controlled["ci"][0] < 0.5 < controlled["ci"][1] and found["pairs_to_settle"] >= 0


def test_each_row_keeps_both_texts_and_their_scores() -> None:
    row = by_scores([answers("long"), answers("s")], LENGTH)[3].to_json()
    assert (row["a"], row["b"], row["score_a"], row["score_b"]) == ("long", "s", 4.0, 1.0)
    assert Prompt.from_json(row["prompt"]) == PROMPTS[3]


def test_other_prompts_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="same prompts"):
        compare(answers("x"), list(reversed(answers("y"))), LENGTH)


def test_best_of_n_sends_the_highest_score_of_each_prompt_and_the_first_among_equals() -> None:
    drafts = [Completion(prompt, text) for prompt in PROMPTS[:2] for text in ("a", "ccc", "bb", "ddd")]
    chosen = best_of(drafts, LENGTH, 4)
    assert [completion.text for completion in chosen] == ["ccc", "ccc"]
    assert chosen[0].meta == {"best_of": 4, "score": 3.0, "scores": [1.0, 3.0, 2.0, 3.0]}, "nothing is thrown away"
    assert [completion.text for completion in best_of(drafts, LENGTH, 2)] == ["ccc", "ddd", "ccc", "ddd"]


def test_each_of_three_meets_each_and_is_scored_once() -> None:
    seen: list[Completion] = []

    def value(completion: Completion) -> float:
        seen.append(completion)
        return float(len(completion.text))

    matches = by_scores([answers("a"), answers("bbb"), answers("cc")], FakeScorer(value))
    assert len(seen) == 3 * 16 and len(matches) == 3 * 16
    found = summary(["a", "b", "c"], matches, {"kind": "score"})
    assert [(p["a"], p["b"], p["value"]) for p in found["pairs"]] == [("a", "b", 0), ("a", "c", 0), ("b", "c", 1)]
    assert [(row["model"], row["rank"]) for row in found["ratings"]] == [("b", 1), ("c", 2), ("a", 3)]
    assert found["components"] == 1 and "value" not in found


def test_models_that_never_met_have_no_common_order() -> None:
    prompt = PROMPTS[0]
    met = [Match(i, i + 1, Completion(prompt, "x"), Completion(prompt, "y y"), 1.0) for i in (0, 2) for _ in range(9)]
    assert ranked(["a", "b", "c", "d"], met)["components"] == 2


def test_judgements_are_found_by_their_texts_from_either_side() -> None:
    a, b = answers("good"), answers("bad ")
    said = [
        Judgement(PROMPTS[0], ("good", "bad"), (1, 2), "human:x", "human"),
        Judgement(PROMPTS[0], ("bad", "good"), (1, 2), "human:y", "human"),
        Judgement(PROMPTS[1], ("bad", "good"), (2, 1), "human:x", "human"),
        Judgement(PROMPTS[2], ("bad", "good", "other"), (1, 1, 2), "human:x", "human"),
        Judgement(PROMPTS[3], ("bad", "unheard of"), (2, 1), "human:x", "human"),
    ]
    found = by_judgements([a, b], said)
    assert [(m.a.prompt.text, m.points, m.judge) for m in found.matches] == [
        ("question 0", 1.0, "human:x"),
        ("question 0", 0.0, "human:y"),
        ("question 1", 1.0, "human:x"),
        ("question 2", 0.5, "human:x"),
    ]
    assert found.waiting == 13 and found.elsewhere == 3, "of the ranking of three two pairs are about another text"


def test_slices_are_by_tag_turns_and_length_of_the_prompt() -> None:
    prompts = [Prompt.user("word " * (1 + i % 5), tags=["sea"] if i % 3 else ["wood"]) for i in range(30)]
    a, b = ([Completion(p, text) for p in prompts] for text in ("long", "s"))
    found = compare(a, b, LENGTH).slices()
    assert {(one["kind"], one["name"], one["n"]) for one in found if one["kind"] == "tag"} == {
        ("tag", "sea", 20),
        ("tag", "wood", 10),
    }
    assert {one["name"] for one in found if one["kind"] == "prompt length"} == {"short", "middling", "long"}
    assert not [one for one in found if one["kind"] == "turns"], "all have one"
