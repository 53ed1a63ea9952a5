"""What the spread of an ensemble is worth, and verdicts on single completions: against oracles and planted cases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats as oracle

from trueup.config.audit import AuditConfig
from trueup.errors import DataError
from trueup.evals.audit import audit
from trueup.evals.scored import pairs_of
from trueup.records import Completion, Judgement, Prompt, Score
from trueup.reports.card import reward_card
from trueup.stats.calibration import sigmoid
from trueup.stats.ranks import rank_correlation

FEW = AuditConfig(probes=10)


def value(completion: Completion) -> float:
    return float(completion.text.split()[0])


class Plain:
    def score(self, completions):
        return [Score(value(completion)) for completion in completions]


# Rank correlation


def test_rank_correlation_is_scipys_ties_and_all():
    random = np.random.default_rng(0)
    for levels in (1000, 3):
        x, y = random.integers(0, levels, 200), random.integers(0, 2, 200)
        found = rank_correlation(x, y, np.arange(200))
        assert found is not None and found.value == pytest.approx(oracle.spearmanr(x, y).statistic)
        assert found.ci[0] < found.value < found.ci[1]
    assert rank_correlation([1, 1, 1], [1, 2, 3], [0, 1, 2]) is None
    assert rank_correlation([1, 2, 3], [1, 2, 3], [0, 0, 0]).ci == (-1.0, 1.0), "one cluster says nothing"


def test_rows_that_hang_together_widen_the_interval():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 60))
    alone = rank_correlation(x, y, np.arange(60))
    thrice = rank_correlation(np.repeat(x, 3), np.repeat(y, 3), np.repeat(np.arange(60), 3))
    assert thrice.value == pytest.approx(alone.value, abs=0.01)
    assert thrice.ci[1] - thrice.ci[0] == pytest.approx(alone.ci[1] - alone.ci[0], rel=0.2)


# Members that disagree


class Jury:
    """Four members around the true value; on half of the texts their noise is large, and they may know it."""

    def __init__(self, noise: Any) -> None:
        self.noise = noise  # of (text, member)

    def by_member(self, completions):
        return np.array([[value(c) + self.noise(c.text, m) for m in range(4)] for c in completions])

    def score(self, completions):
        return [Score(float(row.mean()), {"spread": float(row.std())}) for row in self.by_member(completions)]


def honest(text: str, member: int) -> float:
    """Each member draws its own error, larger where the text is hard."""
    return np.random.default_rng([len(text), abs(hash_of(text)), member]).normal() * (3.0 if "hard" in text else 0.1)


def united(text: str, member: int) -> float:
    """All make the very same error where it is hard; where it is easy they differ, by nothing that matters."""
    shared = np.random.default_rng([abs(hash_of(text))]).normal() * (3.0 if "hard" in text else 0.0)
    own = np.random.default_rng([abs(hash_of(text)), member]).normal() * (0.0 if "hard" in text else 0.05)
    return float(shared + own)


def hash_of(text: str) -> int:
    return sum(ord(char) * 31**place for place, char in enumerate(text)) % 2**31


def hard_and_easy(n: int = 300) -> list[Judgement]:
    """Pairs a unit apart, judged without a mistake; every other one is hard."""
    random = np.random.default_rng(3)
    found = []
    for i in range(n):
        a = float(random.normal())
        kind = "hard" if i % 2 else "easy"
        texts = (f"{a:.3f} {kind} {i} a", f"{a - 1:.3f} {kind} {i} bb")
        found.append(Judgement(Prompt.user(f"q {i}"), texts, (1, 2), "ann", "human", meta={"order": [i % 3 % 2, 0]}))
    return found


def audited(jury: Jury, judgements: list[Judgement], **given: Any) -> dict[str, Any]:
    found = audit(jury, judgements, FEW, by_member=jury.by_member, **given)
    json.dumps(found, allow_nan=False)
    return found


def test_members_that_know_what_they_do_not_know():
    judgements = [replace(j, meta={}) for j in hard_and_easy()]
    found = audited(Jury(honest), judgements)
    about = found["disagreement"]
    assert about["spearman"]["ci"][0] > 0.1 and about["members"] == 4 and about["against"] == "judgements"
    assert about["accuracy"]["least"]["value"] > 0.98 > 0.85 > about["accuracy"]["most"]["value"]
    assert not any("poor warning" in said for said in found["findings"])
    page = reward_card(found, "jury", "votes")
    assert "how far its 4 members differ about a pair" in page and "where they differ least" in page


def test_members_that_err_together_are_found_out():
    judgements = [replace(j, meta={}) for j in hard_and_easy()]
    found = audited(Jury(united), judgements)
    assert found["disagreement"]["spearman"]["ci"][1] < 0
    assert any("poor warning" in said for said in found["findings"])


def test_the_figure_is_that_of_a_loop_and_how_high_a_member_puts_a_prompt_cancels():
    judgements = [replace(j, meta={}) for j in hard_and_easy(60)]
    apart, wrong = [], []
    for judgement in judgements:
        each = [[value_of(text) + honest(text, m) for m in range(4)] for text in judgement.completions]
        gaps = np.subtract(*each)
        apart.append(np.std(gaps))
        wrong.append(float(np.mean(gaps) < 0))
    expected = oracle.spearmanr(apart, wrong).statistic
    assert audited(Jury(honest), judgements)["disagreement"]["spearman"]["value"] == pytest.approx(expected)

    class Shifted(Jury):
        def by_member(self, completions):
            high = [[m * len(c.prompt.text) for m in range(4)] for c in completions]
            return super().by_member(completions) + np.array(high)

    assert audited(Shifted(honest), judgements)["disagreement"]["spearman"]["value"] == pytest.approx(expected)


def value_of(text: str) -> float:
    return float(text.split()[0])


def test_where_the_true_score_is_known_judges_who_err_do_not_blur_it():
    random = np.random.default_rng(5)
    noisy = [replace(j, meta={}, ranks=(1, 2) if random.random() < 0.7 else (2, 1)) for j in hard_and_easy()]
    by_judges = audited(Jury(honest), noisy)["disagreement"]
    by_truth = audited(Jury(honest), noisy, gold=Plain())["disagreement"]
    assert by_truth["against"] == "gold score"
    assert by_truth["spearman"]["value"] > by_judges["spearman"]["value"] + 0.1


# Verdicts on single completions


def thumbs(n: int, seed: int = 0, *, scale: float = 1.0, each: int = 1) -> list[Judgement]:
    """Each completion is right with the chance sigmoid(scale x its value)."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(n):
        for k in range(each):
            worth = float(random.normal() * 1.5)
            right = float(random.random() < sigmoid(scale * worth))
            text = f"{worth:.4f} {i} {k}"
            found.append(Judgement(Prompt.user(f"q {i}"), (text,), (1,), "ann", "human", ratings={"thumb": (right,)}))
    return found


def test_a_right_and_a_wrong_one_make_a_pair():
    judgements = thumbs(200)
    pairs = pairs_of(judgements)
    right = [j.ratings["thumb"][0] for j in judgements]
    assert pairs.matched == pairs.n == min(right.count(1.0), right.count(0.0))
    assert {right[i] for i in pairs.first} == {1.0} and {right[j] for j in pairs.second} == {0.0}
    used = [*pairs.first.tolist(), *pairs.second.tolist()]
    assert len(used) == len(set(used)), "each once: pairs that share a completion hang together"


def test_beside_real_comparisons_only_those_of_one_prompt_are_paired():
    judgements = [replace(j, meta={}) for j in hard_and_easy(20)] + thumbs(40)
    assert pairs_of(judgements).matched == 0 and len(pairs_of(judgements).verdicts) == 40
    several = pairs_of([replace(j, meta={}) for j in hard_and_easy(20)] + thumbs(40, each=3))
    assert several.matched > 10
    made = zip(several.first[20:], several.second[20:], strict=True)
    assert all(several.prompt_of[i] == several.prompt_of[j] for i, j in made)


def test_a_sound_scorer_of_verdicts_passes_and_its_zero_and_scale_are_measured():
    found = audit(Plain(), thumbs(700), FEW)
    json.dumps(found, allow_nan=False)
    about, judgements = found["verdicts"], thumbs(700)
    right = np.array([j.ratings["thumb"][0] for j in judgements])
    worth = np.array([value_of(j.completions[0]) for j in judgements])
    assert about["accuracy"]["value"] == pytest.approx(np.mean((worth > 0) == (right > 0.5)))
    assert about["n"] == 700 and about["right"] == pytest.approx(right.mean()) and not about["miscalibrated"]
    assert about["brier"] == pytest.approx(np.mean((sigmoid(worth) - right) ** 2))
    assert not found["calibration"]["miscalibrated"], "a right and a wrong one differ by their logits"
    assert found["gate"]["failed"] == [] and "length" in found["gate"]["unknown"]
    assert any("nobody compared" in said.lower() for said in found["findings"])
    page = reward_card(found, "judge", "thumbs")
    assert "verdicts on single completions" in page and "And of the other completion" in page


def test_a_zero_in_the_wrong_place_is_caught():
    class Shifted(Plain):
        def score(self, completions):
            return [Score(score.value + 4) for score in super().score(completions)]

    found = audit(Shifted(), thumbs(500), FEW)
    assert found["verdicts"]["miscalibrated"] and not found["calibration"]["miscalibrated"]
    mended = audit(Shifted(), thumbs(500), FEW, level=-4.0)
    assert not mended["verdicts"]["miscalibrated"]
    assert audit(Shifted(), thumbs(500), FEW, level=None)["verdicts"] is None


def test_verdicts_that_are_all_alike_are_no_test():
    all_right = [replace(j, ratings={"thumb": (1.0,)}) for j in thumbs(20)]
    with pytest.raises(DataError, match="none of the 20 judgements prefers"):
        audit(Plain(), all_right, FEW)
