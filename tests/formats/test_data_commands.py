"""`trueup data add` and `trueup data export` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trueup.cli import main as cli
from trueup.store import Workspace

HERE = Path(__file__).parent


@pytest.fixture
def trueup(tmp_path, capsys):
    """Run a command line in a new workspace: (exit code, stdout, stderr)."""
    Workspace.create(tmp_path / "ws").close()

    def call(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["--workspace", str(tmp_path / "ws"), *line.split()])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_from_trees_to_trl_rows_and_back(trueup, tmp_path):
    code, out, _ = trueup(f"data add {HERE}/oasst.jsonl --kind preferences --name trees --json")
    found = json.loads(out)
    assert code == 0 and found["rows"] == 2 and found["reasons"]["deleted"] == 1 and len(found["skipped"]) == 7
    code, out, _ = trueup(f"data export trees {tmp_path}/pairs.jsonl --format trl-preference --conversational")
    assert code == 0 and out.splitlines()[0] == f"{tmp_path}/pairs.jsonl: 4 rows as trl-preference, 0 left out"
    code, out, _ = trueup(f"data export trees {tmp_path}/pairs.csv --format trl-preference --json")
    report = json.loads(out)
    assert (report["rows"], report["left_out"]) == (3, 1) and "several messages" in next(iter(report["reasons"]))
    code, out, _ = trueup(f"data add {tmp_path}/pairs.jsonl --kind preferences --format trl-preference")
    assert code == 0 and ": 4 rows, 0 skipped" in out


def test_notes_and_reasons_are_printed(trueup, tmp_path):
    rows = [
        {"prompt": "a", "chosen": "\x1b[2Jb", "rejected": "c"},
        *[{"prompt": "a", "chosen": "", "rejected": "c"}] * 25,
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = trueup(f"data add {tmp_path}/rows.jsonl --kind preferences")
    assert code == 0 and "\x1b" not in out
    lines = out.splitlines()
    assert lines[2] == "  1 with control characters"
    assert lines[-1] == "  25 x empty completion" and "and 5 more" in lines[-2]


def test_a_repaired_score_is_told(trueup):
    code, out, _ = trueup(f"data add {HERE}/ultrafeedback.jsonl --kind preferences")
    assert code == 0 and "  1 overall_score 10 made 1: a known error of the first UltraFeedback" in out.splitlines()


def test_malformed_lines_only_if_asked(trueup, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b", "label": true}\n{oops\n')
    code, out, err = trueup(f"data add {path} --kind unpaired --name thumbs")
    assert (code, out) == (1, "") and f"error: {path}:2: not JSON" in err
    with Workspace.open(tmp_path / "ws") as ws:
        assert not ws.names(), "nothing is half-imported"
    code, out, _ = trueup(f"data add {path} --kind unpaired --name thumbs --skip-malformed")
    assert code == 0 and f"skipped {path}:2: not JSON" in out


def test_what_cannot_be_exported_is_an_error_with_a_way_out(trueup, tmp_path):
    trueup(f"data add {HERE}/trl-unpaired.jsonl --kind unpaired --name thumbs")
    for line, says in [
        ("thumbs x.jsonl --format trl-preference", "hint: formats for unpaired: raw, table, trl-unpaired, trl-prompt"),
        ("thumbs x.xlsx", "files ending in '.xlsx' are not written"),
        ("nobody x.jsonl", "nobody"),
    ]:
        code, out, err = trueup(f"data export {line.replace(' x.', f' {tmp_path}/x.')}")
        assert (code, out) == (1, "") and says in err, err
    assert not list(tmp_path.glob("x.*"))


def test_a_split_means_judgements(trueup):
    code, _, err = trueup(f"data add {HERE}/trl-prompt-completion.jsonl --kind demonstrations --heldout 0.5")
    assert code == 2 and "--heldout has a meaning only with --kind preferences or unpaired" in err
