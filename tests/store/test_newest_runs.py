"""The list of runs on a page: in both databases, and no more of them read than stand on it."""

from __future__ import annotations

from trueup import watching
from trueup.runs import Run
from trueup.store import run_rows


def test_a_page_of_the_list_reads_the_runs_that_stand_on_it(ws, monkeypatch):
    """Of a thousand runs, a server that is asked every few seconds must not read all."""
    data = ws.put("prompts", {"rows.jsonl": b""})
    for seed in range(5):
        Run.start(ws, "sample", {}, {"prompts": data}, seed=seed).finish({})
    dead = Run.start(ws, "sft", {}, {"data": data}, seed=0)
    dead._close()
    going = Run.start(ws, "rl", {}, {"prompts": data}, seed=0)
    newest = [row.id for row in ws.run_rows()][::-1]
    read, load = [], run_rows.load
    monkeypatch.setattr(run_rows, "load", lambda c, ids=None: read.append(ids) or load(c, ids))
    monkeypatch.setattr(watching, "A_PAGE", 2)
    pages = [watching.listed(ws, page) for page in (1, 2, 3)]
    assert watching.listed(ws, 10**30)["page"] == watching.listed(ws, 4)["page"] == 3, "the last there is"
    assert None not in read and max(map(len, read)) == 2
    assert [each["id"] for each in pages[0]["going"]] == [going.id] == newest[:1]
    assert [each["id"] for page in pages for each in page["ended"]] == newest[1:]
    assert pages[0]["ended"][0]["status"] == "dead" and (pages[0]["pages"], pages[0]["of_all"]) == (3, 7)
    going.finish({})
    assert [dict(row.inputs) for row in ws.newest_runs(most=2)] == [{"prompts": data.id}, {"data": data.id}]
    assert ws.newest_runs(offset=7) == [] and len(ws.newest_runs(status="done")) == 6
