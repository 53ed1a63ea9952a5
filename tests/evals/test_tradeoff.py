"""Trade-offs: the frontier against a loop over prompts, planted trade-offs, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from test_reports import CHROMIUM, CROWDED, FLAGS, needs_browser

from trueup.config.tradeoff import TradeoffConfig
from trueup.errors import ConfigError, DataError
from trueup.evals.tradeoff import tradeoff
from trueup.records import Completion, Prompt, Score
from trueup.reports.tradeoff import headline, tradeoff_page

PRICE = 10.0


class Two:
    """Reads both objectives from the text: 'helpful harmless'."""

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        read = [tuple(map(float, completion.text.split())) for completion in completions]
        return [Score(2 * a + b, {"helpful": a, "harmless": b, "spread": 0.3}) for a, b in read]


def drafts(correlation: float, prompts: int = 60, each: int = 6, seed: int = 0) -> list[Completion]:
    random = np.random.default_rng(seed)
    a = random.normal(size=(prompts, each))
    b = correlation * a + np.sqrt(1 - correlation**2) * random.normal(size=a.shape)
    return [
        Completion(Prompt.user(f"q {p}"), f"{a[p, i]} {b[p, i]}") for i in range(each) for p in range(prompts)
    ]  # those of a prompt stand apart


def both(completion: Completion) -> tuple[float, float]:
    a, b = map(float, completion.text.split())
    return a, b


def best(completions: Sequence[Completion], value: Any) -> tuple[float, float]:
    """The means of a loop: of each prompt the completion of the highest value."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for completion in completions:
        groups.setdefault(completion.prompt.id, []).append(both(completion))
    chosen = np.array([max(group, key=lambda ab: value(*ab)) for group in groups.values()])
    return float(chosen[:, 0].mean()), float(chosen[:, 1].mean())


def of(row: dict[str, Any]) -> tuple[float, float]:
    return row["a"]["value"], row["b"]["value"]


def found(completions: Sequence[Completion], **given: Any) -> dict[str, Any]:
    result = tradeoff(Two(), completions, TradeoffConfig(**given), price=PRICE)
    json.dumps(result, allow_nan=False)
    return result


def test_every_choice_is_that_of_a_loop():
    completions = drafts(-0.5)
    (pair,) = found(completions, weights=5, floors=(0.5, -0.5))["pairs"]
    assert (pair["a"], pair["b"]) == ("helpful", "harmless"), "the spread of an ensemble is no objective"
    for row in pair["frontier"]:
        w = row["weight"]
        assert of(row) == pytest.approx(best(completions, lambda a, b, w=w: w * a + (1 - w) * b))
    assert of(pair["chosen"]) == pytest.approx(best(completions, lambda a, b: 2 * a + b))
    assert of(pair["any"]) == pytest.approx(np.mean([both(c) for c in completions], axis=0).tolist())
    for row in pair["floors"]:
        low = row["at_least"]
        other = {
            "harmless": lambda a, b, low=low: a - PRICE * max(low - b, 0),
            "helpful": lambda a, b, low=low: b - PRICE * max(low - a, 0),
        }[row["kept"]]
        assert of(row) == pytest.approx(best(completions, other))
    assert [row["at_least"] for row in pair["floors"]] == [-0.5, 0.5, -0.5, 0.5]


def test_a_floor_holds_where_what_is_chosen_reaches_it():
    """With a price that nothing outweighs, wherever any completion of the prompt does."""
    completions = drafts(-0.3, each=8)
    highest: dict[str, float] = {}
    for completion in completions:
        highest[completion.prompt.id] = max(highest.get(completion.prompt.id, -9.0), both(completion)[1])
    held = {}
    for price in (PRICE, 1e6):
        (pair,) = tradeoff(Two(), completions, TradeoffConfig(floors=(0.0,)), price=price)["pairs"]
        held[price] = next(row for row in pair["floors"] if row["kept"] == "harmless")["held"]["value"]
    assert held[1e6] == pytest.approx(np.mean([value >= 0 for value in highest.values()]))
    assert 0.8 < held[PRICE] < held[1e6], "a little below the floor, for much of the other"


def test_conflict_and_correlation_are_those_that_were_planted():
    for correlation in (-0.8, 0.0, 0.8):
        completions = drafts(correlation, prompts=150)
        (pair,) = found(completions, weights=2, floors=())["pairs"]
        low, high = pair["pearson"]["ci"]
        assert low < correlation < high and high - low < 0.3
        low, high = pair["conflict"]["ci"]
        assert low < np.arccos(correlation) / np.pi < high, "of two normal variables"
        together: dict[str, list[tuple[float, float]]] = {}
        for completion in completions:
            together.setdefault(completion.prompt.id, []).append(both(completion))
        signs = [np.sign((p[0] - q[0]) * (p[1] - q[1])) for g in together.values() for p, q in combinations(g, 2)]
        assert pair["conflict"]["value"] == pytest.approx(np.mean(np.array(signs) < 0))


def test_the_interval_covers_a_mean_that_is_known():
    """The larger of two standard normals has the mean 1 / sqrt(pi)."""
    covered = 0
    for seed in range(40):
        (pair,) = found(drafts(0.0, prompts=80, each=2, seed=seed), weights=2, floors=())["pairs"]
        low, high = pair["frontier"][-1]["a"]["ci"]
        covered += low < 1 / np.sqrt(np.pi) < high
    assert covered >= 34


def test_equal_completions_share_their_choice():
    prompt = Prompt.user("q")
    completions = [Completion(prompt, text) for text in ("1 0", "1 4", "0 9")]
    (pair,) = found(completions, weights=2)["pairs"]
    assert of(pair["frontier"][1]) == (1.0, 2.0) and of(pair["frontier"][0]) == (0.0, 9.0)
    assert pair["frontier"][0]["a"]["ci"] is None, "one prompt says nothing about others"


def test_what_cannot_be_traded_is_refused_and_single_completions_are_counted():
    class One:
        def score(self, completions):
            return [Score(1.0, {"overall": 1.0, "spread": 0.1}) for _ in completions]

    completions = drafts(0.0, prompts=4, each=2)
    with pytest.raises(ConfigError, match="one objective"):
        tradeoff(One(), completions, price=PRICE)
    with pytest.raises(DataError, match="none of the 4 prompts has two completions"):
        tradeoff(Two(), completions[:4], price=PRICE)
    result = found([*completions, Completion(Prompt.user("alone"), "1 1")])
    assert (result["prompts"], result["alone"], result["completions"]) == (4, 1, 8)


def test_the_page_is_inert_and_says_its_figures():
    class Hostile(Two):
        def score(self, completions):
            return [
                replace(s, parts={"<script>a": s.parts["helpful"], "b\u202e": s.parts["harmless"]})
                for s in super().score(completions)
            ]

    result = tradeoff(Hostile(), drafts(-0.5), TradeoffConfig(), price=PRICE)
    page = tradeoff_page(json.loads(json.dumps(result)), "judge <b>", "drafts")
    assert "<script" not in page and "\u202e" not in page and "judge &lt;b&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", page) and "default-src 'none'" in page
    plain = found(drafts(-0.5))
    page, (pair,) = tradeoff_page(plain, "judge", "drafts"), plain["pairs"]
    assert headline(pair) in page and f"{pair['conflict']['value']:.1%}" in headline(pair)
    assert page.count("<svg") == 4 and "by weights" in page and "harmless kept" in page
    assert page.count("harmless at least") == 5


@needs_browser
def test_in_a_browser_nothing_overlaps_at_any_width(tmp_path):
    from playwright.sync_api import sync_playwright

    path = tmp_path / "page.html"
    path.write_text(tradeoff_page(found(drafts(-0.5)), "judge", "drafts"), encoding="utf-8")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page()
        tab.goto(path.as_uri())
        for width in (360, 768, 1280):
            tab.set_viewport_size({"width": width, "height": 900})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(CROWDED) == [], width
        browser.close()
