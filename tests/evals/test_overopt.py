"""What judges say of a run that climbed a score: planted curves come back, chance is called chance."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.worlds import PEAK, STEPS, A, B, climb
from trueup import climbing
from trueup.cli.main import root
from trueup.errors import ConfigError, DataError, NotFoundError
from trueup.evals.overopt import best_of_n, overopt
from trueup.loading import ROWS, put_records
from trueup.reports.overopt_chart import how_to_ship, overopt_chart, verdict
from trueup.runs import Run
from trueup.store import Workspace
from trueup.world import World, faithful


def test_the_law_and_the_peak_come_back():
    kl, scores = climb(0)
    found = overopt(STEPS, kl, scores)
    fit = found["curves"]["gold"]["law"]
    assert fit["a"]["ci"][0] < A < fit["a"]["ci"][1] and fit["b"]["ci"][0] < B < fit["b"]["ci"][1]
    assert fit["peak"] == pytest.approx(PEAK, abs=0.1)
    assert found["ship"]["step"] in (20, 30) and found["ship"]["fell"] and found["ship"]["gamed"]
    assert found["curves"]["gold"]["turned"] == 1.0 and found["curves"]["proxy"]["turned"] < 0.1


def test_a_judge_that_knows_nothing_settles_nothing():
    """One always says the same, the other draws: its highest point is somewhere, and a fall is seldom called."""
    kl, scores = climb(1)
    constant = overopt(STEPS, kl, {"proxy": scores["proxy"], "constant": np.ones_like(kl)})
    assert constant["ship"] == {"step": 0, "last": 70, "fell": False, "gamed": False}
    random, gamed = np.random.default_rng(0), 0
    for seed in range(60):
        coin = random.normal(0, 1, kl.shape)
        gamed += overopt(STEPS, kl, {"proxy": scores["proxy"], "coin": coin}, seed=seed)["ship"]["gamed"]
    assert gamed <= 0.1 * 60


def test_few_evaluations_get_no_law():
    kl, scores = climb(0)
    found = overopt(STEPS[:3], kl[:3], {name: each[:3] for name, each in scores.items()})
    assert found["curves"]["gold"]["law"] is None and found["ship"]["step"] == 20


# --- from a run


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


def climbed(ws: Workspace, steps: tuple[int, ...] = (0, 1, 2, 3), prompts: int = 12) -> Run:
    """A run in the built-in world: first a vague title, then a true one, then ever more words beside it."""
    posts = World(0).posts("train", prompts)
    asked = [post.prompt() for post in posts]
    rows = "".join(json.dumps(prompt.to_json()) + "\n" for prompt in asked)
    data = ws.put("prompts", {ROWS: rows.encode()}, meta={"count": prompts})
    run = Run.start(ws, "rl", {}, {"prompts": data}, seed=0)
    for step in steps:
        true = [faithful(post, Random(0)) for post in posts]
        titles = ["Someone did it." if step == 0 else title + " very" * (8 * step - 8) for title in true]
        run.keep_samples(
            step,
            [
                {"prompt": p.id, "text": t, "finished": True, "length": 9, "score": step + i / 9, "kl": step**2 / 2}
                for i, (p, t) in enumerate(zip(asked, titles, strict=True))
            ],
            heldout=True,
        )
        run.log(step + 1, {"score": float(step)})
    run.finish({"best_step": steps[-1]})
    return run


def test_the_gold_of_the_built_in_world_judges_by_itself(ws):
    run = climbed(ws)
    found = climbing.overopt(ws, run.id)
    assert found["judge"] == "gold" and found["steps"] == [0, 1, 2, 3] and found["n"] == 12
    assert found["ship"] == {"step": 1, "last": 3, "fell": True, "gamed": True} and found["shipped"] == 3
    assert found["distance"] == pytest.approx([step / 2**0.5 for step in range(4)])
    words = verdict(found)
    assert "ship step 1 of 3" in words and "being gamed" in words and "The run ships step 3" in words
    assert overopt_chart(found).count("<polyline") >= 2


def test_any_scorer_judges(ws, tmp_path):
    (tmp_path / "brief.py").write_text("def brief(prompt, completion):\n    return -float(len(completion))\n")
    found = climbing.overopt(ws, climbed(ws).id, judges=[f"{tmp_path}/brief.py:brief", "gold"])
    assert [*found["curves"]] == ["proxy", f"{tmp_path}/brief.py:brief", "gold"]
    assert found["ship"]["step"] == 0 and found["judge"].endswith(":brief")


def test_what_cannot_be_judged_is_said(ws):
    with pytest.raises(NotFoundError, match="two are needed"):
        climbing.overopt(ws, climbed(ws, steps=(0,)).id)
    run = climbed(ws)
    rows = run.samples(2, heldout=True)
    run.path.joinpath("samples", "heldout-000002.jsonl.gz").unlink()
    run._take_lock()
    run.keep_samples(2, [row | {"score": float("nan")} for row in rows], heldout=True)
    run._close()
    with pytest.raises(DataError, match="have no score"):
        climbing.overopt(ws, run.id)


def test_the_command_says_what_to_ship(ws, tmp_path):
    run = climbed(ws, steps=(0, 1, 2, 3, 4))
    words = ["--workspace", str(ws.path), "eval", "overopt", run.id, "--chart", str(tmp_path / "c.svg")]
    done = CliRunner().invoke(root, words, standalone_mode=False)
    assert done.exception is None, done.exception
    result = done.return_value
    assert "ship step 1 of 4" in result.text and "no weights of step 1 are kept" in result.text
    assert "gain = d (a - b ln d)" in result.text
    assert (tmp_path / "c.svg").read_text().startswith("<svg") and json.loads(json.dumps(result.data))


@pytest.mark.parametrize(
    ("found", "way"),
    [
        ({}, "trueup runs ship a-run@20 --name NAME"),
        ({"shipped": None}, "trueup runs ship a-run@20 --name NAME"),
        ({"kept": [40, 60]}, "run.keep_weights=true"),
        ({"shipped": 20}, ""),
        ({"ship": {"step": 0}}, "keep what it started from"),
        ({"way": "best-of-n"}, ""),
        ({"judge": "proxy"}, ""),
    ],
)
def test_it_says_how_to_ship_that_step(found, way):
    known = {"run": "a-run", "ship": {"step": 20}, "kept": [20, 40], "shipped": 60, "way": "rl", "judge": "gold"}
    said = how_to_ship(known | found)
    assert way in said and bool(said) is bool(way)


# --- best of n


def test_the_law_of_best_of_n_comes_back():
    """The curve is the mean over every subset of n, and d (a - b d) describes it."""
    random = np.random.default_rng(0)
    true = random.normal(0, 1, (300, 32))
    proxy = true + random.standard_t(3, (300, 32))  # its highest values are mostly noise
    sizes, kl, found = best_of_n({"proxy": proxy, "gold": true})
    assert sizes == [1, 2, 4, 8, 16, 32] and kl[0].max() == 0 and kl[3, 0] == pytest.approx(np.log(8) - 7 / 8)
    assert found["gold"][0] == pytest.approx(true.mean(1)) and found["proxy"][-1] == pytest.approx(proxy.max(1))
    drawn = [true[i, proxy[i, pick].argmax() + 0 * i] for i in range(300) for pick in [slice(0, 4)]]
    assert found["gold"][2].mean() == pytest.approx(np.mean(drawn), abs=0.15), "as drawing four would give"
    result = overopt(sizes, kl, found, way="best-of-n")
    law = result["curves"]["gold"]["law"]
    gain = np.array(result["curves"]["gold"]["mean"]) - result["curves"]["gold"]["mean"][0]
    d = np.array(result["distance"])
    assert law["residual"] < 0.05 and gain == pytest.approx(d * (law["a"]["value"] - law["b"]["value"] * d), abs=0.1)
    assert result["curves"]["gold"]["mean"][-1] < result["curves"]["proxy"]["mean"][-1] and result["way"] == "best-of-n"


def test_a_planted_law_of_best_of_n_is_inside_its_intervals():
    d, held, truth = np.sqrt([0, 0.2, 0.6, 1.2, 1.8, 2.5]), 0, (1.0, 0.4)
    for seed in range(200):
        random = np.random.default_rng(seed)
        gold = (d * (truth[0] - truth[1] * d))[:, None] + random.normal(0, 1, 60) + random.normal(0, 0.4, (6, 60))
        fit = overopt(range(6), np.repeat(d[:, None] ** 2, 60, 1), {"proxy": gold, "gold": gold}, way="best-of-n")
        law = fit["curves"]["gold"]["law"]
        held += (
            law["a"]["ci"][0] <= truth[0] <= law["a"]["ci"][1] and law["b"]["ci"][0] <= truth[1] <= law["b"]["ci"][1]
        )
    assert held / 200 >= 0.88, "both at once"


def test_of_a_completion_set_the_best_of_n_is_judged(ws, tmp_path):
    (tmp_path / "rules.py").write_text(
        "def brief(prompt, completion):\n    return -float(len(completion))\n"
        "def number(prompt, completion):\n    return float(completion.split()[-1])\n"
    )
    posts = [post.prompt() for post in World(0).posts("train", 10)]
    rows = [
        {"prompt": p.to_json(), "completions": [{"text": f"it is {10**k}", "finished": True} for k in range(5)]}
        for p in posts
    ]
    put_records(ws, "completions", rows, name="five")
    proxy, judge = f"{tmp_path}/rules.py:number", f"{tmp_path}/rules.py:brief"
    found = climbing.overopt(ws, "five", reward=proxy, judges=[judge])
    assert found["steps"] == [1, 2, 4, 5] and found["kept"] == [1, 2, 4, 5] and found["n"] == 10
    assert found["ship"] == {"step": 1, "last": 5, "fell": True, "gamed": True}
    assert verdict(found).startswith("ship the best of 1 (up to 5), n = 10 prompts")
    assert [*climbing.overopt(ws, "five", reward=proxy)["curves"]] == ["proxy", "gold"], "gold is asked by itself"
    words = ["--workspace", str(ws.path), "eval", "overopt", "five", "--reward", proxy, "--judge", judge]
    assert "d (a - b d)" not in (text := CliRunner().invoke(root, words, standalone_mode=False).return_value.text)
    assert text.splitlines()[2].split()[0] == "N"
    with pytest.raises(ConfigError, match="what chose the best"):
        climbing.overopt(ws, "five")
    with pytest.raises(ConfigError, match="has its own"):
        climbing.overopt(ws, climbed(ws).id, reward=proxy)
    with pytest.raises(ConfigError, match="no ensemble"):
        climbing.overopt(ws, climbed(ws).id, judges=["minimum"])
