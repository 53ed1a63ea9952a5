"""One small file a format, written by us in that format's columns, beside what has to come out of it.

`NAME.jsonl` is the file, `NAME.KIND.json` the records, the rows left out and the notes. To look at a change of what
comes out: `python tests/formats/test_golden.py` writes the expected files anew, and `git diff` shows it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trueup.text.formats import SHAPES, load

HERE = Path(__file__).parent
# file -> kinds it is read as, and the format that has to be named because the columns alone leave a choice
FILES: dict[str, tuple[tuple[str, ...], str]] = {
    "hh-rlhf": (("preferences",), ""),
    "trl-preference": (("preferences",), ""),
    "trl-preference-implicit": (("preferences",), "trl-preference"),
    "trl-unpaired": (("unpaired",), ""),
    "trl-prompt-completion": (("demonstrations", "prompts"), ""),
    "summarize-from-feedback": (("preferences",), ""),
    "stack-exchange": (("preferences",), ""),
    "shp": (("preferences",), ""),
    "ultrafeedback": (("preferences",), ""),
    "helpsteer": (("preferences",), ""),
    "helpsteer2": (("preferences",), ""),
    "helpsteer3": (("preferences",), ""),
    "oasst": (("preferences", "demonstrations", "prompts"), ""),
    "oasst-messages": (("preferences", "demonstrations", "prompts"), ""),
    "ranking": (("preferences",), ""),
}
CASES = [(name, kind) for name, (kinds, _) in FILES.items() for kind in kinds]


def imported(name: str, kind: str) -> dict[str, Any]:
    path = HERE / f"{name}.jsonl"
    loaded = load(path, kind, format=FILES[name][1])
    return {
        "recognised": loaded.recognised,
        "records": [record.to_json() for record in loaded.records],
        "skipped": [
            [where.removeprefix(f"{path}:"), reason.replace(f"{path}:", "")] for where, reason in loaded.skipped
        ],
        "notes": loaded.notes,
    }


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_comes_out_of_a_file(name, kind):
    expected = json.loads((HERE / f"{name}.{kind}.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(imported(name, kind))) == expected


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_naming_the_format_changes_nothing(name, kind):
    known = {shape.formats[0]: shape for shape in SHAPES[kind] if str(shape) in imported(name, kind)["recognised"]}
    (format,) = known
    again = load(HERE / f"{name}.jsonl", kind, format=format)
    assert [record.to_json() for record in again.records] == imported(name, kind)["records"]


if __name__ == "__main__":
    for name, kind in CASES:
        text = json.dumps(imported(name, kind), ensure_ascii=False, indent=1)
        (HERE / f"{name}.{kind}.json").write_text(text + "\n", encoding="utf-8")
