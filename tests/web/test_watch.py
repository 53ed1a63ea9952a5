"""The live pages of runs, in a real browser while runs go on: true without a reload, inert, and for those who may."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from browsing import PAYLOADS
from left_runs import prompts, rl_run, sample
from sites import Site, playwright

from trueup import watching
from trueup.runs import Run, track
from trueup.store import audit

expect: Any = playwright().expect
SAFE = [payload.replace("\ud800", "") for payload in PAYLOADS]
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
GOES_ON = """
import sys, time
from trueup.runs import Run, track
from trueup.store import Workspace
with Workspace.find(sys.argv[1]) as ws, Run.start(ws, "sft", {}, {}, seed=0, name="elsewhere") as run:
    run.stops_itself = True
    with track(1000, "sft") as advance:
        for step in range(1, 1001):
            run.log(step, {"loss": 1 / step})
            advance()
            if run.stop_asked:
                run.interrupted()
                break
            time.sleep(0.05)
"""


@pytest.fixture
def elsewhere(site: Site):
    """A run in another process: (run, process)."""
    process = subprocess.Popen([sys.executable, "-c", GOES_ON, str(site.workspace.path)], stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 30
    while not site.workspace.run_rows():
        assert time.monotonic() < ends
        time.sleep(0.05)
    yield Run.load(site.workspace, site.workspace.run_rows()[0].id), process
    process.kill()
    process.wait()


@pytest.mark.parametrize("size", SIZES)
def test_a_run_elsewhere_is_followed_until_it_is_killed(site, open_page, elsewhere, size):
    run, process = elsewhere
    page = open_page(site, width=SIZES[size][0], height=SIZES[size][1])
    site.enter(page)
    page.goto(f"{site.url}/runs")
    expect(page.locator(".run-card .status")).to_have_text("running")
    page.get_by_role("link", name="SFT · elsewhere").click()
    bar = page.locator("#now progress")
    first = int(bar.get_attribute("value"))
    expect(page.locator("#now")).to_contain_text("of 1,000")
    expect(page.locator("#now")).to_contain_text("left")
    expect(page.locator("#now")).to_contain_text(f"process {process.pid}")
    expect(page.locator("[data-part=curves] svg").first).to_be_visible(timeout=15_000)
    page.wait_for_function("(first) => document.querySelector('#now progress').value > first + 5", arg=first)
    process.kill()
    process.wait()
    expect(page.locator("#now .status")).to_have_text("dead: its process is gone", timeout=15_000)
    expect(page.get_by_role("button", name="Go on")).to_be_visible(timeout=15_000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    page.goto(f"{site.url}/runs")
    expect(page.locator(".run-card .status")).to_have_text("dead: its process is gone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no page scrolls sideways"


def test_a_button_stops_a_run_elsewhere_and_another_takes_it_up_again(site, page, elsewhere, monkeypatch):
    run, process = elsewhere
    site.enter(page)
    page.goto(f"{site.url}/runs/{run.id}")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Asked to stop.")).to_be_visible()
    expect(page.locator("#now .status")).to_have_text("stopped", timeout=15_000)
    assert process.wait(10) == 0 and run.status == "interrupted"
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(watching, "go_on", lambda run, end_here: asked.append((run.id, end_here)))
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Started again in a process of its own.")).to_be_visible()
    assert asked == [(run.id, False)]
    said = [entry["action"] for entry in audit.entries(site.db)]
    assert {"asked a run to stop", "took a run up again"} <= set(said)


def test_what_is_open_ticked_or_focused_stays_so_while_the_page_renews_itself(site, page):
    run = rl_run(site.workspace, inputs={"prompts": prompts(site.workspace, 4)})
    site.enter(page)
    page.goto(f"{site.url}/runs/{run.id}")
    page.locator("#asked-1 summary").click()
    page.locator("#every-setting summary").click()
    run.keep_samples(13, [sample("p1", "brand new words", 20.0, 13)])
    run.log(13, {"score": 20.0, "kl": 1.0, "length": 3.0})
    expect(page.locator("[data-part=newest]")).to_contain_text("brand new words", timeout=15_000)
    assert page.locator("#asked-1").get_attribute("open") is not None
    assert page.locator("#every-setting").get_attribute("open") is not None
    page.locator("#asked-1 summary").focus()
    run.keep_samples(14, [sample("p1", "newer still", 21.0, 14)])
    run.log(14, {"score": 21.0, "kl": 1.0, "length": 3.0})
    expect(page.locator("[data-part=newest]")).to_contain_text("newer still", timeout=15_000)
    assert page.evaluate("document.activeElement.closest('details')?.id") == "asked-1"
    page.goto(f"{site.url}/runs")
    page.locator(f"input[value='{run.id}']").check()
    other = Run.start(site.workspace, "sft", {}, {}, seed=0, name="later")
    expect(page.get_by_role("link", name="SFT · later")).to_be_visible(timeout=15_000)
    assert page.locator(f"input[value='{run.id}']").is_checked()
    for each in (run, other):
        each.finish({})


def test_runs_stand_beside_each_other(site, page):
    ran = [rl_run(site.workspace, steps=steps) for steps in (6, 12)]
    for run in ran:
        run.finish({"best_step": 6})
    other = Run.start(site.workspace, "rl", {"optimizer": {"lr": 0.5}}, {}, seed=0)
    for step in (1, 2, 3):
        other.log(step, {"score": 1.0 * step})
    site.enter(page)
    page.goto(f"{site.url}/runs")
    for run in (*ran, other):
        page.locator(f"input[value='{run.id}']").check()
    page.get_by_role("button", name="Put the ticked beside each other").click()
    expect(page.get_by_role("heading", name="Runs beside each other")).to_be_visible()
    proxy = page.locator("svg").filter(has_text="Proxy").first
    assert {"1", "2", "3"} <= set(proxy.locator("text").all_text_contents())
    row = page.get_by_role("row").filter(has_text="optimizer.lr")
    assert row.locator("td").all_inner_texts() == ["0.5", "0.25", "0.25"]
    other.log(4, {"score": 44.0})
    expect(page.locator("[data-part=runs]")).to_contain_text("to 44", timeout=15_000)
    other.finish({})
    page.goto(f"{site.url}/runs/beside?run={other.id}")
    expect(page.get_by_text("two to 6 runs can stand beside each other")).to_be_visible()
    page.watched.console.clear()  # the browser itself reports the refusal


@pytest.mark.parametrize("size", SIZES)
def test_hostile_text_is_inert_and_seen(site, open_page, size):
    """Prompts, completions, notes, names, events, errors, metric names, settings, labels of progress."""
    evil = " ".join(SAFE)
    asked = prompts(site.workspace, 4, evil.replace("{", "{{").replace("}", "}}"))
    run = rl_run(site.workspace, text=evil, note=evil, inputs={"prompts": asked})
    for payload in SAFE:
        run.event("note", payload, more=payload)
    run.log(13, dict.fromkeys(SAFE, 1.0) | {"score": 1.0})
    run.log(14, dict.fromkeys(SAFE, 2.0) | {"score": 1.0})
    failed = Run.start(site.workspace, "rl", {payload: payload for payload in SAFE}, {}, seed=0, note=evil)
    failed.fail(evil)
    (failed.path / watching.LOG).write_text(evil)
    page = open_page(site, width=SIZES[size][0], height=SIZES[size][1])
    site.enter(page)
    with track(3, evil) as advance:
        run._now._before, run._now._looked = 0, -10.0
        from trueup.runs.progress import listeners

        listeners[-1]()
        advance()
        paths = ["/runs", f"/runs/{run.id}", f"/runs/{failed.id}", f"/runs/beside?run={run.id}&run={failed.id}"]
        for path in paths:
            page.goto(f"{site.url}{path}")
            for details in page.locator("details").all():
                details.evaluate("(node) => { node.open = true; }")
            page.wait_for_timeout(300)
            assert page.evaluate("window.pwned") is None
            assert page.locator("main img, main a[href^='javascript'], main meta, main script").count() == 0, path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.goto(f"{site.url}/runs/{run.id}")
        page.wait_for_timeout(2500)  # once more, as the script puts it in
        assert page.evaluate("window.pwned") is None
        text = page.locator("main").inner_text()
        assert "<script>window.pwned=1</script>" in text and "\u202e" not in text
    run.finish({})


def test_who_may_see_and_who_may_steer(site_of_app):
    site = site_of_app
    run = Run.start(site.workspace, "sft", {}, {}, seed=0)
    run.interrupted()
    pages = ["/runs", f"/runs/{run.id}", f"/runs/{run.id}/now", f"/runs/{run.id}/report"]
    for role, looks, steers in (("viewer", 200, 403), ("manager", 200, 303), ("annotator", 403, 403)):
        for bound in ("", site.collection):
            client = site.client(site.person(f"{role} {bound}", role, bound))
            wanted = looks if not bound or looks == 403 else 404
            assert {client.get(path).status_code for path in pages} == {wanted}, (role, bound)
            stopped = client.form(f"/runs/{run.id}/stop").status_code
            assert stopped == (400 if steers == 303 and not bound else 404 if steers == 303 else 403)
            assert ('href="/runs"' in client.get("/account").text) is (wanted == 200)
            if wanted == 200:
                assert ("Go on" in client.get(f"/runs/{run.id}").text) is (steers == 303)


def test_an_id_is_given_whole(site_of_app):
    """The beginning of one would do on the command line; here it would tell that there is such a run."""
    run = Run.start(site_of_app.workspace, "sft", {}, {}, seed=0)
    run.finish({})
    client = site_of_app.client(site_of_app.person("olga", "owner"))
    assert client.get(f"/runs/{run.id}").status_code == 200
    assert client.get(f"/runs/{run.id[:-1]}").status_code == 404


def test_the_report_is_a_file_to_keep(site_of_app):
    run = rl_run(site_of_app.workspace)
    run.finish({})
    answer = site_of_app.client(site_of_app.person("olga", "owner")).get(f"/runs/{run.id}/report")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run.id}.html"'
    assert "This page is one file" in answer.text


def test_a_server_that_is_gone_is_said(serve, open_page, site):
    run = rl_run(site.workspace)
    page = open_page(site)
    site.enter(page)
    page.goto(f"{site.url}/runs/{run.id}")
    page.route("**/now", lambda route: route.abort())
    expect(page.locator("body.late")).to_be_visible(timeout=15_000)
    page.watched.console.clear()
    run.finish({})


def test_a_page_of_a_long_run_is_quick_and_small(site_of_app):
    """10,000 steps and what is kept of them: told once, in seconds; looked at again, in milliseconds."""
    run = Run.start(site_of_app.workspace, "rl", {}, {}, seed=0)
    for step in range(1, 10_001):
        run._streams["metrics.jsonl"].append({"step": step, "score": step % 7, "kl": step / 1e3, "length": 9.0})
    for step in range(100, 10_001, 100):
        run.keep_samples(step, [sample(f"p{i}", "some words", i, step) for i in range(100)])
    client = site_of_app.client(site_of_app.person("olga", "owner"))
    began = time.process_time()
    page = client.get(f"/runs/{run.id}")
    assert page.status_code == 200 and len(page.content) < 2_000_000
    told = time.process_time() - began
    began = time.process_time()
    for _ in range(10):
        client.get(f"/runs/{run.id}/now")
    again = (time.process_time() - began) / 10
    assert told < 10 and again < 0.1, (told, again)
    run.finish({})
