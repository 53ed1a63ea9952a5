"""A qualification that cannot tell a good judge from a poor one is said to be one, in numbers."""

from __future__ import annotations

import pytest
from crowd import open_collection
from scipy.stats import binom

from trueup.cli.judging import _status_text
from trueup.config import CollectionConfig
from trueup.feedback.collect import collect
from trueup.feedback.golds import too_few, with_roles
from trueup.feedback.status import status
from trueup.records import Prompt
from trueup.store import Workspace
from trueup.store.items import NewItem


@pytest.mark.parametrize(("golds", "share", "needed"), [(8, 0.75, 6), (10, 0.9, 9), (19, 0.5, 10), (1, 0.01, 1)])
def test_the_numbers_are_those_of_the_rule(golds, share, needed):
    said = too_few(CollectionConfig(qualification=golds, qualification_pass=share))
    coin, doubtful, good = (f"{binom.sf(needed - 1, golds, right):.0%}" for right in (0.5, 0.7, 0.84))
    assert f"of {golds} items, {needed} right to pass" in said and f"a coin passes {coin}" in said
    assert f"right 70% of the time {doubtful}" in said and f"right 84% of the time {good}" in said
    assert said.endswith("with 20 items and 15 right it would be 2%, 42% and 91%")


@pytest.mark.parametrize("golds", [0, 20, 30])
def test_none_and_enough_are_not_warned_about(golds):
    assert too_few(CollectionConfig(qualification=golds)) == ""


def test_status_warns(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        few = open_collection(workspace, items=2, overlap=1, crowd=1, golds=9, qualification=8)
        none = open_collection(workspace, items=2, overlap=1, crowd=1, name="none")
        found = status(workspace, few.id, 0.0)
        assert "cannot tell a good judge" in found.warning and found.to_json()["warning"] == found.warning
        assert f"warning: {found.warning}" in _status_text(found)
        assert "warning" not in _status_text(status(workspace, none.id, 0.0))


def test_collect_warns(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        drafts = open_collection(workspace, items=4, overlap=1, crowd=1).items[0].completions
        config = CollectionConfig(qualification=3)
        known = [
            NewItem(Prompt.user(f"gold {i}"), ("a", "b"), drafts, (True, True), key={"ranks": [1, 2]}) for i in range(3)
        ]
        made = collect(workspace, "second", config, [drafts], now=0.0, golds=with_roles(known, config)).to_json()
        assert made["warning"] == too_few(config) and "3 items, 3 right to pass" in made["warning"]
        assert "warning" not in collect(workspace, "third", CollectionConfig(), [drafts], now=0.0).to_json()
