"""What every chart of a run says of itself: its unit, its n, and what its band is, in a report and in a file."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from browsing import CHROMIUM, CROWDED, FLAGS, needs_browser
from left_runs import rl_run, sample

from trueup import reporting
from trueup.reports.page import METRICS, METRICS_OF, styles
from trueup.reports.run_charts import curves_together
from trueup.reports.run_page import charts, difference_page, runs_page
from trueup.runs import Run
from trueup.runs.history import distributions
from trueup.store import Workspace


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


def finished(run: Run) -> Run:
    run.finish({})
    return run


def told(ws: Workspace, *refs: str) -> dict[str, Any]:
    return reporting.report(ws, refs)


SAMPLED = ("score", "length", "kl", "unfinished", "gold")  # what the kept samples of `measured_run` hold
SET = ("kl_coefficient", "updates")  # no means, so they have no n


def measured_run(ws: Workspace, steps: int = 12) -> Run:
    """With more of what RL logs, and somebody's own number beside it."""

    def also(step: int) -> dict[str, float]:
        found = {name: float(step) for name in ("gold", "policy_loss", "drift", "ratio_max", "helpfulness", *SET)}
        found |= {"gradient_norm": 1 / step, "unfinished": float(step % 3 == 0)}
        return found | ({"heldout_repetition": step / 99, "heldout_gold": 1.0} if step in (steps // 2, steps) else {})

    run = rl_run(ws, steps, also=also)
    for heldout in (False, True):
        for step in run.sample_steps(heldout=heldout):
            rows = run.samples(step, heldout=heldout)
            run.keep_samples(step, [{**row, "gold": row["score"] / 2} for row in rows], heldout=heldout)
    return run


def test_every_chart_of_rl_has_its_unit_its_n_and_its_band(ws):
    run = finished(measured_run(ws))
    found = told(ws, run.id)
    drawn = {name.removeprefix(f"{run.id}-"): chart for name, chart in charts(found).items()}
    assert {"score", "gold", "drift", "helpfulness", "heldout_repetition", "against-score", "against-gold"} <= {*drawn}
    assert {"spread-score", "unfinished", *SET} <= {*drawn}
    for name, chart in drawn.items():
        metric = name.removeprefix("against-").removeprefix("spread-")
        written = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<desc.*?</desc>", "", chart.svg())))
        assert chart.y_label and chart.y_label in written, name
        of = "n = 4 prompts" if name.startswith("heldout_") else "n = 8 of 4 prompts a step"
        assert (of in written) == (name not in SET), name
        assert ("held out: 4 prompts" in written) == (len(chart.lines) == 2), name
        kind = "whisker: 95%" if name.startswith("against") else "middle 80%" if name.startswith("spread") else ": 95%"
        assert (kind in " ".join(written.split())) == (metric in SAMPLED), name
        assert all(bool(line.band()) == (metric in SAMPLED) for line in chart.lines), name
        held = chart.lines[-1]
        assert len(chart.lines) == 1 or metric not in SAMPLED or len(held.band()) == len(held.x), "from the start on"
    page = runs_page(found)
    assert page.count("no interval was kept") == 1 and "is the 95% interval of a mean, over prompts" in page


def test_every_chart_of_sft_has_its_unit_and_its_n(ws):
    run = Run.start(ws, "sft", {"batch_size": 16}, {}, seed=0)
    for step in range(1, 9):
        held = {"heldout_loss": 1 / step} if step % 4 == 0 else {}
        run.log(step, {"loss": 2 / step, "gradient_norm": float(step), "tokens": 9.0 * step} | held)
    found = told(ws, finished(run).id)
    drawn = charts(found)
    assert len(drawn) == 3
    for chart in drawn.values():
        assert chart.y_label and chart.note == "n = 16 demonstrations a step" and chart.note in chart.svg()
        assert not any(line.band() for line in chart.lines)
    assert runs_page(found).count("no interval was kept") == 1
    unknown = Run.start(ws, "sft", {}, {}, seed=0)
    for step in (1, 2):
        unknown.log(step, {"loss": 2 / step})
    assert [chart.note for chart in charts(told(ws, finished(unknown).id)).values()] == [""], "rather than a guess"


def test_runs_beside_each_other_have_their_bands_and_what_they_count(ws):
    a, b, fewer = (finished(rl_run(ws, each=each)) for each in (4, 4, 3))
    same = difference_page(reporting.difference(ws, a.id, b.id))
    assert same.count("<polygon") == 2 * len(re.findall("<svg", same)) and "n = 8 of 4 prompts a step; band" in same
    other = html.unescape(difference_page(reporting.difference(ws, a.id, fewer.id)))
    assert "First: n = 8 of 4 prompts a step; second: n = 6 of 3 prompts a step; band: 95% interval" in other


def test_every_metric_that_is_listed_has_a_unit():
    assert [name for name, (words, unit, _) in {**METRICS, **METRICS_OF}.items() if not words or not unit] == []


def test_none_of_some_is_no_proof_of_none(ws):
    run = Run.start(ws, "rl", {}, {}, seed=0)
    for step, ends in ((1, [True] * 8), (2, [False] * 8), (3, [True, False] * 4)):
        rows = [sample(f"p{i // 2}", "x", 1.0) | {"finished": end} for i, end in enumerate(ends)]
        run.keep_samples(step, rows)
    spread = distributions(run)["unfinished"]
    assert spread["mean"] == [0.0, 1.0, 0.5] and spread["n"] == [8] * 3 and spread["prompts"] == [4] * 3
    assert spread["low"][0] == 0 and spread["high"][0] > 0.3 and spread["high"][1] == 1 and spread["low"][1] < 0.7
    assert 0 <= spread["low"][2] < 0.5 < spread["high"][2] <= 1


def test_a_file_says_what_its_band_is(ws, tmp_path):
    pytest.importorskip("matplotlib")
    from trueup.cli.report import write_plots

    run = finished(measured_run(ws))
    written = write_plots(charts(told(ws, run.id)), tmp_path / "plots", as_png=True)
    for name, kind in (("score", "band: 95% interval"), ("against-score", "whisker: 95% interval")):
        assert kind in (tmp_path / "plots" / f"{run.id}-{name}.svg").read_text(encoding="utf-8").split("</desc>")[1]
    assert any(path.name == f"{run.id}-against-score.png" for path in written)


def test_of_many_steps_the_band_is_said_to_be_that_of_the_steps(ws):
    run = Run.start(ws, "sft", {"batch_size": 16}, {}, seed=0)
    for step in range(1, 701):
        run.log(step, {"loss": 2 / step})
    (chart,) = charts(told(ws, finished(run).id)).values()
    assert chart.note == "n = 16 demonstrations a step; point: mean of 3 steps; band: their middle 80%"


@needs_browser
def test_nothing_is_crowded_on_a_small_screen_or_a_large_one(ws, tmp_path):
    from playwright.sync_api import sync_playwright

    runs = [finished(measured_run(ws)), finished(measured_run(ws, steps=8)), finished(rl_run(ws, each=3))]
    alone, one, other = (told(ws, run.id) for run in runs)
    six = [each["runs"][0] for each in (alone, one, other, alone, one, other)]
    beside = "".join(f"<div>{chart}</div>" for chart in curves_together(six, "123456"))
    pages = {
        "one": runs_page(alone),
        "two": difference_page(reporting.difference(ws, runs[0].id, runs[2].id)),
        "six": f"<!doctype html><meta charset=utf-8><style>{styles('page.css', 'runs.css')}</style>{beside}",
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, page in pages.items():
            path = tmp_path / f"{name}.html"
            path.write_text(page, encoding="utf-8")
            for width in (340, 1280):
                tab = browser.new_page(viewport={"width": width, "height": 900})
                tab.goto(path.as_uri())
                tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
                assert tab.evaluate(CROWDED) == [], (name, width)
                tab.close()
        browser.close()
