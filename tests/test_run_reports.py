"""`trueup report`: true to the run's streams, readable at any size, and inert whatever a model wrote."""

from __future__ import annotations

import html
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from browsing import CHROMIUM, CROWDED, FLAGS, PAYLOADS, axe_faults, needs_browser
from click.testing import CliRunner
from left_runs import prompts, rl_run, sample

from trueup import reporting
from trueup.cli.main import root
from trueup.engines.fake import FakeScorer
from trueup.errors import ConfigError, NotFoundError
from trueup.reports.lineage_chart import levels, lineage_chart
from trueup.reports.run_page import charts, difference_page, runs_page
from trueup.runs import Run, history
from trueup.runs.history import distributions, side_by_side
from trueup.stats.intervals import clustered_mean
from trueup.store import Workspace

SAFE = [payload.replace("\ud800", "") for payload in PAYLOADS]  # no file of ours can hold half a character
HERE = Path(__file__).parent / "web"
SCRIPTS = {name: (HERE / f"{name}.js").read_text() for name in ("usable", "contrast", "fitting")}


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


def finished(run: Run, **result: Any) -> Run:
    run.finish(result)
    return run


def figures(page: str) -> dict[str, list[str]]:
    """The table of every metric, as it stands in the page."""
    table = re.search(r'<table class="figures">(.*?)</table>', page, re.S)
    assert table
    rows = re.findall(r'<tr><th scope="row"><code>(.*?)</code></th>(.*?)</tr>', table[1])
    return {name: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in rows}


def told(ws: Workspace, *refs: str) -> dict[str, Any]:
    return reporting.report(ws, refs)


# --- true to what the run left


def test_the_numbers_of_the_page_are_those_of_the_metric_stream(ws):
    run = finished(rl_run(ws), best_step=12)
    shown = figures(runs_page(told(ws, run.id)))
    rows = run.metrics()
    assert {*shown} == {name for row in rows for name in row if name != "step"}
    for name, cells in shown.items():
        values = [row[name] for row in rows if name in row]
        found = [float(cell) for cell in cells[:4]]
        assert found == [values[0], values[-1], min(values), max(values)] and int(cells[4]) == len(values)


def test_the_means_of_what_was_sampled_are_the_metrics_that_were_logged(ws):
    run = finished(rl_run(ws))
    spread = distributions(run)["score"]
    assert spread["step"] == [row["step"] for row in run.metrics()]
    assert spread["mean"] == pytest.approx([row["score"] for row in run.metrics()])
    assert {*spread["n"]} == {8}
    for low, mean, high in zip(spread["low"], spread["mean"], spread["high"], strict=True):
        assert low < mean < high


def test_a_long_run_is_read_at_evenly_chosen_steps(ws, monkeypatch):
    monkeypatch.setattr(history, "STEPS_READ", 5)
    run = finished(rl_run(ws, steps=21))
    assert distributions(run)["score"]["step"] == [1, 6, 11, 16, 21]


def test_completions_to_the_same_prompt_stand_side_by_side(ws):
    run = finished(rl_run(ws), best_step=6)
    found = side_by_side(run, 6)
    assert found["of_all"] == 4
    for row in found["rows"]:
        assert {entry["prompt"] for entry in row["entries"]} == {row["prompt"]}
        assert [entry["text"].split()[3] for entry in row["entries"]] == ["0", "6", "12"]


def test_without_evaluations_the_first_and_last_rollouts_are_compared(ws):
    run = Run.start(ws, "rl", {}, {}, seed=0)
    for step in range(1, 31):
        run.keep_samples(step, [sample(f"p{step % 10}", f"at {step}", step, step)])
        run.log(step, {"score": float(step)})
    finished(run)
    found = side_by_side(run)
    assert found["of"] == "prompts of rollouts" and found["of_all"] == 10
    steps = {row["prompt"]: [entry["step"] for entry in row["entries"]] for row in found["rows"]}
    assert steps == {f"p{i}": [i or 10, 20 + (i or 10)] for i in range(10)}


def test_which_prompts_are_shown_are_those_that_moved_most(ws, monkeypatch):
    monkeypatch.setattr(history, "SHOWN", 10)
    monkeypatch.setattr(history, "EACH", 2)
    run = Run.start(ws, "rl", {}, {}, seed=0)
    run.keep_samples(0, [sample(f"p{i}", "a b", 0.0) for i in range(40)], heldout=True)
    after = {"p17": 5.0, "p23": -5.0}
    run.keep_samples(9, [sample(f"p{i}", "a b c", after.get(f"p{i}", 0.1)) for i in range(40)], heldout=True)
    run.log(9, {"score": 0.0})
    finished(run)
    rows = side_by_side(run)["rows"]
    assert {"p17", "p23"} <= {row["prompt"] for row in rows} and len(rows) <= 10
    page = runs_page(told(ws, run.id))
    assert len(re.findall(r'<article class="sample [^"]*\bfell\b', page)) == sum(
        row["entries"][1]["score"] < 0 for row in rows
    )


def test_of_one_prompt_nothing_is_known_of_others():
    assert clustered_mean([1.0, 2.0], ["a", "a"]).ci == (-math.inf, math.inf)


# --- in words


def test_each_stage_says_what_came_of_it(ws):
    reward = {"accuracy": 0.72, "ci": [0.7, 0.74], "n": 2083, "ceiling": 0.8}
    cases = {
        "reward": (reward, "foresees 72.0% of 2,083 held-out judgements"),
        "winrate": ({"value": 0.87, "ci": [0.85, 0.89], "n": 1000}, "won 87.0% of 1,000 pairs against"),
        "sample": (
            {"completions": 5600, "prompts": 1400, "unfinished": 6},
            "5,600 completions of 1,400 prompts; 6 did",
        ),
    }
    for stage, (result, words) in cases.items():
        run = Run.start(ws, stage, {}, {}, seed=0)
        run.finish(result)
        assert words in runs_page(told(ws, run.id)), stage
    found = told(ws, finished(rl_run(ws), best_step=12).id)
    found["runs"][0]["findings"] = []  # of a made run the doctor has its doubts
    page = runs_page(found)
    assert re.search(
        r'class="lead">Not yet: two things to settle first\.</p>\n'
        r'<p class="why">Nobody compared it with another model\. <span class="note">Try: trueup eval winrate</span>',
        page,
    )
    assert (
        "The held-out score went from 0.1 to 7.5 (n = 4 prompts) at a KL of 1.33 nats a completion; "
        "step 12 of 12 is kept."
    ) in page


def test_a_broken_run_says_so_and_how_to_go_on(ws):
    run = rl_run(ws)
    run.fail(ValueError("the disk burned"))
    page = runs_page(told(ws, run.id))
    assert "Failed after step 12: ValueError: the disk burned" in page and f"runs resume {run.id}" in page
    dead = Run.start(ws, "sft", {}, {}, seed=0)
    dead._close()
    assert '<span class="warn">dead' in runs_page(told(ws, dead.id))


def test_rollbacks_and_stops_are_told_and_drawn(ws):
    run = finished(rl_run(ws))
    found = told(ws, run.id)
    assert charts(found)[f"{run.id}-score"].moments == [6]
    page = runs_page(found)
    assert "the judge&#39;s score fell" in page and "Upright lines are rollbacks and stops" in page


def test_settings_that_were_changed_stand_apart(ws):
    run = finished(rl_run(ws))
    assert told(ws, run.id)["runs"][0]["changed"]["optimizer.lr"] == 0.25
    assert "seed" not in told(ws, run.id)["runs"][0]["changed"]


# --- a whole loop


@pytest.fixture
def loop(ws) -> Any:
    """Data, SFT, a reward model, RL and its evaluation: runs and artifacts as the stages leave them."""

    def model(name: str, kind: str, stage: str, inputs: dict[str, Any], result: dict[str, Any]) -> Any:
        run = Run.start(ws, stage, {}, inputs, seed=0)
        run.log(1, {"loss": 2.0})
        run.log(2, {"loss": 1.0, "tokens": 100.0})
        made = ws.put(kind, {"weights": name.encode()}, parents=inputs)
        run.output("model", made)
        run.finish(result)
        ws.set_name(name, made)
        return made

    asked = prompts(ws, 5)
    shown = ws.put("demonstrations", {"rows.jsonl": b"{}"})
    votes = ws.put("preferences", {"rows.jsonl": b'{"judge": "ada", "source": "people", "id": "x"}\n'})
    sft = model("sft", "model", "sft", {"data": shown}, {"loss": 1.0})
    judge = model(
        "judge", "reward", "reward", {"base": sft, "data": votes}, {"accuracy": 0.7, "ci": [0.6, 0.8], "n": 99}
    )
    tuned = model("tuned", "model", "rl", {"policy": sft, "reward": judge, "prompts": asked}, {"best_step": 2})
    beside = Run.start(ws, "winrate", {"temperature_b": 0.0}, {"a": tuned, "b": sft}, seed=0)
    beside.finish({"value": 0.8, "ci": [0.75, 0.85], "n": 200})
    model("other", "model", "sft", {"data": shown, "base": sft}, {})
    return tuned


def test_a_model_is_told_with_all_that_led_to_it_and_measured_it(ws, loop):
    found = told(ws, "tuned")
    assert [run["stage"] for run in found["runs"]] == ["sft", "reward", "rl", "winrate"]
    assert {node["names"][0] for node in found["lineage"] if node["names"]} == {"sft", "judge", "tuned"}
    assert found["cost"]["tokens"] == 200  # of SFT and the reward model; RL counts what it sampled
    page = runs_page(found)
    assert "tuned won 80.0% of 200 pairs against sft, greedy" in page
    assert (
        len(re.findall('<(?:section|details) class="run"', page)) == 4
        and "foresees 70.0% (60.0 to 80.0%, n = 99)" in page
    )


def test_a_model_is_measured_by_what_it_wrote(ws, loop):
    wrote = ws.put("completions", {"rows.jsonl": b"{}"}, parents={"model": loop})
    ws.set_name("heldout-tuned", wrote)
    beside = Run.start(ws, "winrate", {}, {"a": wrote, "b": ws.get("sft")}, seed=0)
    equal = {"value": 0.88, "ci": [0.8, 0.95], "n": 300}
    models = {"models": [wrote.id, ws.get("sft").id], "verdict": "a", "judge": {"kind": "gold"}, "slices": []}
    models |= {"length_controlled": equal}
    beside.finish({"value": 0.9, "ci": [0.85, 0.95], "n": 300, **models})
    found = told(ws, "tuned")
    for run in found["runs"]:
        run["findings"], run["missing"] = [], []
    assert [run["stage"] for run in found["runs"]] == ["sft", "reward", "rl", "winrate", "winrate"]
    page = runs_page(found)
    assert "It won 90.0% of 300 pairs" in page.split("</header>")[0]
    assert "heldout-tuned won 90.0% of 300 pairs against sft" in page


def test_a_reward_model_is_not_told_by_what_it_judged(ws, loop):
    beside = Run.start(ws, "winrate", {}, {"a": loop, "b": loop, "judge": ws.get("judge")}, seed=0)
    beside.finish({"value": 0.5, "ci": [0.4, 0.6], "n": 100})
    assert [run["stage"] for run in told(ws, "judge")["runs"]] == ["sft", "reward"]
    assert "foresees 70.0%" in runs_page(told(ws, "judge")).split("</header>")[0]


def test_sources_stand_above_what_was_made_of_them(ws, loop):
    nodes = told(ws, "tuned")["lineage"]
    place = {node["id"]: row for row, line in enumerate(levels(nodes)) for node in line}
    for node in nodes:
        assert all(place[source] < place[node["id"]] for source in node["sources"].values())
    drawn = lineage_chart(nodes, width=1000)
    assert all(words in drawn for words in ("tuned", "model · rl", "preferences · given · n = 1"))


@pytest.mark.parametrize("width", [340, 1000])
def test_no_line_of_the_lineage_runs_behind_a_box(width):
    """Sources that are used again far below: a line that a box hides would be missed."""
    made = {"base": (), "posts": (), "sft": ("base",), "drawn": ("sft", "posts"), "votes": ("drawn",)}
    made |= {"reward": ("base", "votes"), "asked": (), "tuned": ("sft", "reward", "asked"), "last": ("base", "tuned")}
    nodes = [
        {"id": name, "kind": "model", "names": [name], "stage": "sft", "judges": [], "sources": dict(enumerate(of))}
        for name, of in made.items()
    ]
    drawn = lineage_chart(nodes, width=width)
    boxes = [
        [*map(float, found)] for found in re.findall(r'<rect x="(.*?)" y="(.*?)" width="(.*?)" height="42"', drawn)
    ]
    lines = re.findall(r'<path d="M(.*?)"', drawn)
    assert len(boxes) == 9 and len(lines) == 11
    hidden = sum(
        left + 1 < x < left + wide - 1 and top + 1 < y < top + 41
        for line in lines for x, y in along(line) for left, top, wide in boxes
    )  # fmt: skip
    assert hidden == 0


def along(path: str) -> list[tuple[float, float]]:
    """Points of a path of lines and cubic curves."""
    found = []
    start, *parts = re.split(r" ?([CL])", path)
    at = tuple(map(float, start.split(",")))
    for kind, words in zip(parts[::2], parts[1::2], strict=True):
        to = [tuple(map(float, each.split(","))) for each in words.split()]
        a, b, c, d = (at, *to) if kind == "C" else (at, at, to[0], to[0])
        for t in [i / 40 for i in range(41)]:
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            found.append(tuple(sum(w * each[k] for w, each in zip(weights, (a, b, c, d), strict=True)) for k in (0, 1)))
        at = to[-1]
    return found


def test_a_cycle_in_the_lineage_is_drawn_all_the_same():
    node = {"kind": "model", "names": [], "stage": "sft", "judges": []}
    nodes = [{"id": "a", "sources": {"base": "b"}, **node}, {"id": "b", "sources": {"base": "a"}, **node}]
    assert sum(map(len, levels(nodes))) == 2 and "<svg" in lineage_chart(nodes)


def test_what_differs_between_two_runs(ws):
    a, b = finished(rl_run(ws), score=1.5), Run.start(ws, "rl", {"optimizer": {"lr": 0.5}}, {}, seed=4)
    for step in (1, 2, 3):
        b.log(step, {"score": 1.0 * step})
    b.keep_samples(3, [sample("p1", "quite another", 3.0, 3), sample("p9", "alone", 1.0, 3)], heldout=True)
    finished(b, score=3.0)
    page = difference_page(reporting.difference(ws, a.id, b.id))
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    assert re.search(r"optimizer\.lr\s+0\.25\s+0\.5", text) and re.search(r"score\s+1\.5\s+3", text)
    assert "quite" in page and "alone" not in page  # one prompt is common to both
    assert page.count("<svg") == 1  # of the metrics, score is in both more than once


def test_data_that_differ_are_called_by_name_and_size(ws):
    few, many = prompts(ws, 4), prompts(ws, 9)
    ws.set_name("few", few)
    a, b = (finished(rl_run(ws, inputs={"prompts": each})) for each in (few, many))
    found = reporting.difference(ws, a.id, b.id)
    first, second = found["differences"]["data"]["prompts"]
    assert first.startswith(f"few, prompts, {few.id[:8]}") and second.startswith(f"prompts, {many.id[:8]}")
    assert "few, prompts" in difference_page(found) and "Data" in difference_page(found)


# --- the command


def run_cli(ws: Workspace, *words: str) -> Any:
    return CliRunner().invoke(root, ["--workspace", str(ws.path), *words], standalone_mode=False)


def test_the_command_writes_a_page_plots_and_json(ws, tmp_path, monkeypatch):
    run = finished(rl_run(ws))
    monkeypatch.chdir(tmp_path)
    done = run_cli(ws, "report", run.id, "--plots", "plots", "--png")
    assert done.exception is None, done.exception
    assert (tmp_path / f"{run.id}.html").read_text().startswith("<!doctype html>")
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert f"{run.id}-score.svg" in drawn and f"{run.id}-score.png" in drawn
    assert (tmp_path / "plots" / f"{run.id}-score.png").read_bytes().startswith(b"\x89PNG")
    assert done.return_value.data["runs"][0]["id"] == run.id
    json.dumps(done.return_value.data)


@pytest.mark.parametrize(
    "words, error",
    [
        (["report", "nobody"], NotFoundError),
        (["report", "--diff", "a"], ConfigError),
        (["report", "a", "--png"], ConfigError),
    ],
)
def test_wrong_words_are_refused_with_a_hint(ws, words, error):
    done = run_cli(ws, *words)
    assert isinstance(done.exception, error) and done.exception.hint


def test_a_report_needs_no_torch(ws):
    run = finished(rl_run(ws))
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from trueup.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["--workspace", str(ws.path), "report", run.id, "--out", str(ws.path.parent / "page.html")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- in a browser


def long_run(ws: Workspace, steps: int, each: int) -> Run:
    run = Run.start(ws, "rl", {"prompts_per_step": each, "samples_per_prompt": 1}, {}, seed=0)
    for step in range(1, steps + 1):
        run.keep_samples(
            step, [sample(f"p{(step + i) % 97}", f"text {i} " * 20, math.sin(step / 50), step) for i in range(each)]
        )
        run.log(
            step,
            {name: math.sin(step / 50 + place) for place, name in enumerate(("score", "kl", "length", *"abcdefghij"))},
        )
    return finished(run)


def opened(page: str, path: Path) -> float:
    """Seconds until a browser has drawn it."""
    from playwright.sync_api import sync_playwright

    path.write_text(page, encoding="utf-8")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page()
        tab.goto("about:blank")
        began = time.monotonic()
        tab.goto(path.as_uri())
        tab.screenshot()
        spent = time.monotonic() - began
        browser.close()
    return spent


@needs_browser
@pytest.mark.parametrize("steps, each", [(400, 10), pytest.param(10_000, 10, marks=pytest.mark.slow)])
def test_the_page_of_a_long_run_is_small_and_opens_at_once(ws, tmp_path, steps, each):
    run = long_run(ws, steps, each)
    page = runs_page(told(ws, run.id))
    assert len(page.encode()) < 10 * 2**20
    assert opened(page, tmp_path / "long.html") < 2
    assert "the band their middle 80%" in page


def contest_run(ws: Workspace, names: list[str], say: Callable[[int, int], str] = "says {} of {}".format) -> Run:
    """Models compared: the first of them wins most, the last never."""
    from trueup.evals.compare import summary
    from trueup.evals.matches import by_scores
    from trueup.records import Completion, Prompt

    asked = [Prompt.user(f"What is {i}?", tags=["sea" if i % 3 else "wood"]) for i in range(60)]
    texts = [[f"{say(k, i)} {'w ' * ((k + i) % 3)}" for i in range(60)] for k in range(len(names))]
    sides = [[Completion(p, t) for p, t in zip(asked, mine, strict=True)] for mine in texts]
    worth = {id(c): Random(f"{i} {k}").gauss(-1.5 * k, 1) for k, side in enumerate(sides) for i, c in enumerate(side)}
    matches = by_scores(sides, FakeScorer(lambda completion: worth[id(completion)]))
    made = [ws.put("model", {"weights": f"{name} {i}".encode()}) for i, name in enumerate(names)]
    for name, artifact in zip(names, made, strict=True):
        ws.set_name(name, artifact)
    roles = ["a", "b", *(f"other.{i}" for i in range(1, len(names) - 1))]
    run = Run.start(ws, "winrate", {}, dict(zip(roles, made, strict=True)), seed=0)
    order = {"first": {"value": 0.9, "ci": [0.8, 0.95], "n": 120}, "same": {"value": 0.2, "ci": [0.1, 0.3], "n": 60}}
    judge = {"kind": "model", "id": "x", "model": "http://h/v1#m", "order": {**order, "by_place": True}}
    unheard = [*matches[:-1], replace(matches[-1], points=None, why="status 503")]
    result = summary([artifact.id for artifact in made], unheard, judge)
    rows = "\n".join(json.dumps(match.to_json()) for match in unheard)
    run.output("evaluation", ws.put("evaluation", {"rows.jsonl": rows.encode()}, parents=run.inputs))
    run.finish(json.loads(json.dumps(result)))
    return run


def test_a_comparison_is_told_with_its_rates_its_judge_and_what_both_wrote(ws):
    run = contest_run(ws, ["tuned", "sft"])
    found = told(ws, run.id)
    page = runs_page(found)
    result = run.result
    share = f"{100 * result['value']:.1f}%"
    assert f"tuned won {share} of 59 pairs against sft" in page and ": tuned is better" in page
    assert "The judge goes by the place: the response that stood first won 90% of 120 verdicts" in page
    assert "One pair without a verdict, left out: 1 status 503." in page
    assert "asked in both orders" in page and "In slices of the prompts" in page and "tag: sea" in page
    assert "… at equal length" in page
    assert ">says" in page and "tuned, better" in page and "sft, better" in page
    assert told(ws, "sft")["runs"][0]["id"] == told(ws, "tuned")["runs"][0]["id"] == run.id


def test_several_models_are_told_in_their_order(ws):
    run = contest_run(ws, ["best", "middle", "last"])
    page = runs_page(told(ws, run.id))
    lead = re.search(r'class="lead">(.*?)</p>', page)
    assert lead and lead[1] == "best is first, surely before middle and last."
    assert "Bradley-Terry ratings" in page and page.count("in slices</summary>") == 3
    assert told(ws, "last")["runs"][0]["id"] == run.id, "whoever was third was measured, too"


@needs_browser
def test_in_a_browser_a_report_fits_is_usable_and_runs_nothing(ws, loop, tmp_path):
    from playwright.sync_api import sync_playwright

    friendly, hostile = finished(rl_run(ws), best_step=6), []
    for i, payload in enumerate(SAFE):
        text = f"{payload} @prompt @step"
        run = rl_run(ws, steps=2, text=text, note=payload, name=f"run-{i}")
        run.event("stop", payload, step=1, more=payload)
        hostile.append(finished(run, words=payload).id)
    pages = {
        "one": runs_page(told(ws, friendly.id)),
        "loop": runs_page(told(ws, "tuned")),
        "diff": difference_page(reporting.difference(ws, friendly.id, hostile[0])),
        "hostile": runs_page(told(ws, *hostile)),
        "contest": runs_page(told(ws, contest_run(ws, ["best", "middle", "last"]).id)),
        "hostile contest": runs_page(told(ws, contest_run(ws, ["a", "b"], lambda k, i: SAFE[i % len(SAFE)]).id)),
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, page in pages.items():
            path = tmp_path / f"{name}.html"
            path.write_text(page, encoding="utf-8")
            for scheme in ("light", "dark"):
                tab = browser.new_page(color_scheme=scheme)
                asked: list[str] = []
                tab.on("request", lambda request, asked=asked: asked.append(request.url))
                tab.goto(path.as_uri())
                for width in (390, 1280):
                    tab.set_viewport_size({"width": width, "height": 900})
                    assert tab.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
                    assert tab.evaluate(CROWDED) == [] or name == "hostile", (name, width)
                    assert tab.evaluate(SCRIPTS["usable"]) == [], (name, width)
                    assert tab.evaluate(SCRIPTS["contrast"]) == [], (name, scheme)
                    only = () if scheme == "light" else ("color-contrast",)  # nothing else depends on it
                    assert axe_faults(tab, only) == [], (name, width, scheme)
                assert tab.evaluate("window.pwned") is None
                assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
                tab.close()
        tab = browser.new_page()
        tab.goto((tmp_path / "one.html").as_uri())
        run = tab.locator("#run-0")
        assert run.locator(".sample:visible").count() == 4
        tab.get_by_label(re.compile("did not end")).check()
        shown = run.locator(".sample:visible").count()
        assert 0 < shown == run.locator(".sample.unfinished").count()
        tab.get_by_label(re.compile("^all")).check()
        assert run.locator(".sample:visible").count() == 4
        browser.close()
