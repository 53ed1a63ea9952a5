"""Real hh-rlhf and OpenAssistant files, where $TRUEUP_REAL_DATA says where they are: counts, round trips."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import trueup
from trueup.api import export_data
from trueup.store import Workspace, read_jsonl
from trueup.text.formats import load


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("TRUEUP_REAL_DATA")
    if not folder:
        pytest.skip("TRUEUP_REAL_DATA is not set: the real data sets are not here")
    return Path(folder)


@pytest.fixture
def trees(real) -> list[Path]:
    return sorted((real / "oasst").glob("*trees*.jsonl"))


def prompter_turns(node: dict, said: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[dict]]]:
    said = (*said, node["text"])
    if node["role"] == "prompter":
        yield said, node["replies"]
    for reply in node["replies"]:
        yield from prompter_turns(reply, said)


def test_rankings_of_trees(trees):
    assert trees
    for path in trees:
        roots = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
        turns = [turn for root in roots for turn in prompter_turns(root)]
        assert all(not node["deleted"] and node["review_result"] for _, replies in turns for node in replies)
        loaded = load(path, "preferences")
        expected = {
            said: sorted((r["rank"], r["text"]) for r in replies if r.get("rank") is not None)
            for said, replies in turns
        }
        expected = {said: ranked for said, ranked in expected.items() if len(ranked) >= 2}
        found = {
            tuple(m.content for m in judged.prompt.messages): sorted(
                (rank - 1, text) for rank, text in zip(judged.ranks, judged.completions, strict=True)
            )
            for judged in loaded.records
        }
        assert found == expected and len(loaded.records) == len(expected)
        assert all(
            (j.judge, j.source, j.prompt.meta["language"]) == ("oasst", "imported", "en") for j in loaded.records
        )
        unranked = sum(r.get("rank") is None for said, rs in turns if said in expected for r in rs)
        single = sum(len(replies) == 1 for _, replies in turns)
        assert loaded.reasons.get("the ranking omits this reply", 0) == unranked
        assert loaded.reasons["fewer than two usable replies: nothing to compare"] == single


def test_demonstrations_and_prompts_of_trees(trees):
    for path in trees:
        roots = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
        turns = dict(turn for root in roots for turn in prompter_turns(root))
        prompts, shown = load(path, "prompts"), load(path, "demonstrations")
        assert Counter(tuple(m.content for m in p.messages) for p in prompts.records) == Counter(turns.keys())
        for demonstration in shown.records:
            replies = turns[tuple(m.content for m in demonstration.prompt.messages)]
            best = min(replies, key=lambda reply: reply.get("rank") if reply.get("rank") is not None else 99)
            assert demonstration.completion == best["text"]
        assert sum(len(d.prompt.messages) == 1 for d in shown.records) == sum(bool(root["replies"]) for root in roots)


@pytest.mark.parametrize("ending", [".jsonl.gz", ".parquet", ""])
def test_round_trips_of_real_sets(real, trees, tmp_path, ending):
    with Workspace.create(tmp_path / "ws") as ws:
        for source in [*trees, *sorted((real / "hh-rlhf").glob("*.jsonl.gz"))]:
            first = trueup.add_data(ws, str(source), "preferences").artifact
            path = export_data(ws, first, tmp_path / f"{first.id}{ending}").path
            again = trueup.add_data(ws, str(path), "preferences")
            assert not again.skipped
            assert list(read_jsonl(again.artifact.path / "rows.jsonl")) == list(read_jsonl(first.path / "rows.jsonl"))


def test_trl_pairs_of_real_transcripts(real, tmp_path):
    with Workspace.create(tmp_path / "ws") as ws:
        for number, source in enumerate(sorted((real / "hh-rlhf").glob("*.jsonl.gz"))):
            first = trueup.add_data(ws, str(source), "preferences")
            out = tmp_path / f"{number}.parquet"
            report = export_data(ws, first.artifact, out, "trl-preference", conversational=True)
            assert report.rows == first.rows and not report.left_out
            back = load(out, "preferences").records
            rows = list(read_jsonl(first.artifact.path / "rows.jsonl"))
            assert [(r.prompt.to_json(), list(r.completions)) for r in back] == [
                (row["prompt"], row["completions"]) for row in rows
            ]
