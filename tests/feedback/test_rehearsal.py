"""The simulated judges do what is said of them, and the detectors what docs/quality.md says of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from trueup.feedback import rehearsal
from trueup.feedback.rehearsal import CASES, JUDGES, OVERLAP, Case, SimulatedJudge, judged, markdown, measure
from trueup.stats.binomial import at_least, at_most

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")
REPEATS = 2000  # of the table in the page
LEVEL = {"sequential_gold_test": 0.05, "any of them at once": 0.08}  # else each detector's own: one in a hundred
FEW = 40

ids = [f"{case.detector}, {case.fault}, {case.n}" for case in CASES]


def written(case: Case) -> tuple[float, float]:
    """Power and false-alarm rate of the case as the page has them."""
    row = next(
        line.split("|")[1:-1]
        for line in PAGE.splitlines()
        if line.startswith("|") and [cell.strip(" `") for cell in line.split("|")[1:4]] == ids_of(case)
    )
    power, wrongly = (float(re.match(r" ([\d.]+)%", cell)[1]) / 100 for cell in row[3:])
    return power, wrongly


def ids_of(case: Case) -> list[str]:
    return [case.detector, case.fault, str(case.n)]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_page_is_right_as_far_as_a_few_repeats_can_tell(case):
    found = measure(case, FEW, seed=1)
    for rate, expected in zip((found.power, found.false_alarms), written(case), strict=True):
        seen, expected = round(rate * FEW), min(max(expected, 0.0005), 0.9995)
        assert at_least(seen, FEW, expected) > 1e-4 and at_most(seen, FEW, expected) > 1e-4
    if case.check is not rehearsal._any:
        assert found.false_alarms <= 5 / FEW


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_table_of_the_page(case):
    """The very row, and false alarms no more often than promised."""
    found = measure(case, REPEATS)
    assert markdown(found) in PAGE
    assert found.false_alarms_ci[0] <= LEVEL.get(case.detector, 0.01)


# The simulated judges


def work(n: int = 4000, **habits: float) -> rehearsal.Work:
    return judged(SimulatedJudge(**habits), n, np.random.default_rng(0))


def test_every_item_has_three_different_judges_and_every_judge_as_many_items():
    found = work(50)
    assert np.bincount(found.judge).tolist() == [50] * JUDGES
    assert np.bincount(found.item).tolist() == [OVERLAP] * (50 * JUDGES // OVERLAP)
    assert len({*zip(found.item.tolist(), found.judge.tolist(), strict=True)}) == 50 * JUDGES


def test_a_good_judge_has_the_accuracy_asked_for_and_no_bias():
    found = work()
    assert found.right.mean() == pytest.approx(0.84, abs=0.02)
    assert found.took_first.mean() == pytest.approx(0.5, abs=0.02)
    assert found.longer[found.mine].mean() == pytest.approx(found.longer.mean(), abs=0.02)
    assert found.same.mean() == pytest.approx(0.745, abs=0.02)
    assert np.median(found.words / found.seconds) == pytest.approx(4, abs=0.1)
    everybody = found.chosen == found.pairs.better
    assert np.corrcoef(everybody, found.pairs.clearness)[0, 1] > 0.1, "unclear pairs are unclear to all"


def test_each_fault_shows_where_it_should():
    assert work(spam=1).right.mean() == pytest.approx(0.5, abs=0.03)
    assert work(accuracy=0.7).right.mean() == pytest.approx(0.7, abs=0.02)
    assert work(position=0.4).took_first.mean() == pytest.approx(0.7, abs=0.02)
    longer = work(length=0.4)
    assert longer.longer[longer.mine].mean() == pytest.approx(0.4 + 0.6 * work().longer.mean(), abs=0.03)
    tired = work(fatigue=1).right
    assert tired[:400].mean() == pytest.approx(0.82, abs=0.06) and tired[-400:].mean() == pytest.approx(0.51, abs=0.06)
    keys = work(sticking=0.8).took_first
    assert (keys[1:] == keys[:-1]).mean() == pytest.approx(0.9, abs=0.02)
    assert len(set(work(sticking=1).took_first.tolist())) == 1
    assert work(skipping=0.2).skipped[0] == pytest.approx(1000, rel=0.15)
    assert work().skipped.mean() == pytest.approx(4000 * 0.03 / 0.97, rel=0.1)
    assert np.median(work(speed=20).words / work(speed=20).seconds) == pytest.approx(20, abs=0.5)


def test_the_same_seed_gives_the_same_table():
    case = CASES[0]
    assert measure(case, 20, seed=3) == measure(case, 20, seed=3)


def test_the_command_prints_the_table(capsys):
    rehearsal.main(["--repeats", "5"], CASES[:2])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].startswith("| detector |") and lines[2].startswith("| `gold_accuracy` |")
