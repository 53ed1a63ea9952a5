"""Two models side by side: who wins, how surely, and which of n is sent."""

from __future__ import annotations

import pytest

from trueup.engines.fake import FakeScorer
from trueup.evals.compare import best_of, compare
from trueup.records import Completion, Prompt
from trueup.stats import wilson

PROMPTS = [Prompt.user(f"question {i}") for i in range(16)]
LENGTH = FakeScorer(lambda completion: float(len(completion.text)))


def answers(text: str) -> list[Completion]:
    return [Completion(prompt, text) for prompt in PROMPTS]


def test_a_clean_sweep_is_not_certainty() -> None:
    rate = compare(answers("long"), answers("s"), LENGTH).rate
    assert rate.value == 1.0 and rate.ci == pytest.approx(wilson(16, 16))
    assert rate.ci[0] < 0.9


def test_ties_count_half_and_a_constant_judge_cannot_tell() -> None:
    found = compare(answers("one"), answers("two"), FakeScorer(lambda completion: 3.0))
    assert found.rate.value == 0.5 and found.rate.ties == 16
    assert found.rate.ci[0] < 0.5 < found.rate.ci[1]


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
    row = compare(answers("long"), answers("s"), LENGTH).rows[3]
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
