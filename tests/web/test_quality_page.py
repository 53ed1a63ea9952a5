"""The quality page with everything on it: who may see which model people prefer, and that nothing in it is obeyed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from trueup.feedback import quality
from trueup.feedback.answers import FLAGS
from trueup.feedback.leaderboard import Entries, ratings
from trueup.feedback.tally import Tally
from trueup.records import Judgement, Prompt
from trueup.store.items import Item

MODELS = ("tuned", "<b>quince</b>", "sft\u202eevil")
WORTH = {name: worth for worth, name in zip((1.0, 0.0, -0.4), MODELS, strict=True)}
SKIPS = {"human:people0": 40, "human:people1": 3}


def filled(judgements: int = 900, people: int = 6) -> dict[str, Any]:
    """Figures of a made-up collection of pairs with strengths, golds, flags, skips, quarantine and three models."""
    chance, entries = Random(0), Entries()
    tally = Tally(quarantined={"i1", "i2"})
    for at in range(judgements):
        i = at // 3
        models = MODELS[i % 3], MODELS[(i + 1) % 3]
        texts = tuple("word " * (20 + 15 * (model == "tuned") + chance.randrange(9)) for model in models)
        if at % 3 == 0:
            entries.add(Item(Prompt.user(f"p{i}"), texts, "drafts", (True, True), models, id=f"i{i}", collection="c"))
        gap = WORTH[models[0]] - WORTH[models[1]] + chance.gauss(0, 1)
        tally.add(said(f"human:people{(at + i) % people}", gap, texts, at, chance), about(f"i{i}", at), ())
        if at % 5 == 0:
            vote = said(f"human:people{at // 5 % people}", 1.5, texts, at, chance)
            tally.add(vote, about(f"g{i}", at, "gold"), (1, 2))
    found = quality.describe(tally, {0: 1}, skips=SKIPS)
    return found | {"leaderboard": ratings(tally, entries, quality._shared(tally), {})}


def said(judge: str, gap: float, texts: tuple[str, ...], at: int, chance: Random) -> Judgement:
    lazy = judge.endswith("0") and chance.random() < 0.7
    degree = max(-3, min(3, round(gap * 2))) if not lazy else chance.choice((-1, 1))
    ranks = (1, 2) if degree > 0 else (2, 1) if degree < 0 else (1, 1)
    order = chance.sample((0, 1), 2)
    flags = {"flags": {"prompt": [FLAGS[0]], "completions": [[], []]}} if chance.random() < 0.03 else {}
    meta = {"answer": {"choice": degree}, "order": order, "seconds": 20.0 + chance.random() * 20} | flags
    return Judgement(Prompt.user("a question"), texts, ranks, judge, "human", meta=meta)


def about(item: str, at: int, role: str = "main") -> dict[str, Any]:
    return {"item": item, "role": role, "round": 0, "submitted": float(at * 60)}


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return filled()


def test_models_are_shown_to_those_who_may_know_them_and_to_nobody_else(serve_app, figures):
    site = serve_app()
    quality.keep(site.workspace, site.collection, figures, site.clock())
    path = f"/c/{site.collection}/quality"
    for role in ("owner", "manager"):
        page = site.client(site.person(role, role)).get(path).text
        assert "<h2>Models</h2>" in page and "Rank at equal length" in page and "tuned" in page
        assert "<b>quince" not in page and "&lt;b&gt;quince" in page and "\u202e" not in page
    page = site.client(site.person("viewer", "viewer")).get(path).text
    assert "<h2>Agreement</h2>" in page and "<h2>Models</h2>" not in page
    assert not any(name in page for name in ("tuned", "quince", "evil", "equal length"))
    annotator = site.client(site.ready(site.person("ada")))
    assert annotator.get(path).status_code == 403


def test_every_figure_has_its_place(serve_app, figures):
    site = serve_app()
    quality.keep(site.workspace, site.collection, figures, site.clock())
    page = site.client(site.person("viewer", "viewer")).get(f"/c/{site.collection}/quality").text
    for words in (
        "kappa with quadratic weights",
        "Gwet&#39;s AC1",
        "Items in quarantine: 2",
        "Is there still a difference?",
        "Nobody clearly better",
        "How much better, quadratic weights",
        "skipped 40 of",
        "the golds speak for",
    ):
        assert words in page or words.replace("&#39;", "'") in page, words


def test_figures_of_an_earlier_version_still_open(serve_app, figures):
    site = serve_app()
    old = {name: value for name, value in figures.items() if name not in ("flags", "undecided", "edits", "rankings")}
    del old["leaderboard"]
    old["counts"] = {name: n for name, n in old["counts"].items() if "quarantine" not in name}
    old["strength"] = {name: value for name, value in old["strength"].items() if name != "quadratic"}
    quality.keep(site.workspace, site.collection, old, site.clock())
    manager = site.client(site.person("manager", "manager"))
    answer = manager.get(f"/c/{site.collection}/quality")
    assert answer.status_code == 200 and "<h2>Agreement</h2>" in answer.text and "Gwet" not in answer.text


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_makes_the_page_scroll_sideways(serve, open_page, figures, width, scheme):
    site = serve()
    quality.keep(site.workspace, site.collection, figures, site.clock())
    page = open_page(site, site.person("olga", "owner"), width=width, color_scheme=scheme)
    assert page.goto(f"{site.url}/c/{site.collection}/quality").status == 200
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg").count() >= 4
