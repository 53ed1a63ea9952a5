"""`trueup label` in the folder that a demo leaves: from the command to the first judgement, as a person's browser goes.

A workspace of the size of the demo's: 1,400 posts with four titles each.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trueup.cli.main import run
from trueup.feedback import relabel
from trueup.loading import put_records
from trueup.store import Workspace, people, queue
from trueup.world import World

httpx = pytest.importorskip("httpx2", reason="the labelling app needs `pip install -e .[dev]`")
MOST_SECONDS = 60
POSTS = 1400


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("a demo") / "trueup-demo"  # with a blank in it, which a shell has to be told
    with Workspace.create(path) as workspace:
        rows = (
            {"prompt": prompt.to_json(), "completions": [{"text": f"Title {j} of {i}"} for j in range(4)]}
            for i, prompt in enumerate(World(0).prompts("candidates", POSTS))
        )
        put_records(workspace, "completions", list(rows), name=relabel.CANDIDATES)
    return path


def test_the_first_judgement_takes_less_than_a_minute(folder, capsys):
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "trueup", "label", "--no-browser"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "TRUEUP_WORKSPACE"},
    )
    try:
        assert process.stderr is not None
        address = next(found.group(1) for line in process.stderr if (found := re.search(r"open (http\S+)", line)))
        origin = address.partition("/start")[0]
        headers = {"origin": origin, "sec-fetch-site": "same-origin", "x-trueup": "1"}
        with httpx.Client(follow_redirects=True, timeout=MOST_SECONDS) as browser:
            page = browser.get(address)
            assert page.status_code == 200 and re.search(r"/c/\w+$", str(page.url)), "straight to the work"
            view = browser.get(f"{page.url}/next").json()
            assert len(view["completions"]) == 2 and view["kind"] == "pair"
            answer = {"key": "first", "answer": {"choice": 2}}
            given = browser.post(f"{origin}/a/{view['assignment']}/answer", json=answer, headers=headers).json()
        seconds = time.monotonic() - began
        assert given["receipt"]["done_today"] == 1 and given["next"]["assignment"] != view["assignment"]
        assert seconds < MOST_SECONDS, f"{seconds:.1f} seconds"
        process.send_signal(signal.SIGINT)
        said, problems = process.communicate(timeout=30)
        assert process.returncode == 0, problems
    finally:
        process.kill()
        process.communicate()
    with Workspace.open(folder) as workspace:
        found = queue.collection(workspace.database, relabel.COLLECTION)
        (stored,) = (judgement for judgement, _ in queue.current_judgements(workspace.database, found.id))
        assert stored.source == "human" and stored.id == given["receipt"]["judgement"]
        assert [person.role for person in people.people(workspace.database)] == ["owner"]

    # What it says at the end: that one is too few, how to go on, and how to retrain, as a shell can take it.
    assert said.startswith("1 judged. At least 8 that prefer something are needed")
    again, *retrain = (shlex.split(line) for line in said.splitlines() if line.startswith("  trueup"))
    assert again == ["trueup", "--workspace", str(folder), "label"]
    for command, votes in zip(retrain, ("add", "only-mine"), strict=True):
        assert command[-1] == votes and run(command[1:]) == 1
        assert "no artifact" in capsys.readouterr().err, "this workspace has no reward model, and that is all it lacks"
