"""What a prompt is about comes along from every kind of file, as a column or in the prompt's own meta."""

from __future__ import annotations

import json

import pytest

from trueup.records import Prompt
from trueup.text.formats import load

PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
ROWS = {
    "prompts": [{"prompt": "q"}, {"instruction": "q"}, {"messages": [{"role": "user", "content": "q"}]}],
    "demonstrations": [{"prompt": "q", "completion": "a"}, {"instruction": "q", "output": "a"}],
    "preferences": [PAIR],
    "unpaired": [{"prompt": "q", "completion": "a", "label": True}],
    "completions": [{"prompt": "q", "completions": ["a", "b"]}, {"prompt": "q", "completion": "a"}],
}


def categories(path, kind: str, text: str, **options) -> list[object]:
    path.write_text(text)
    prompts = [each if isinstance(each, Prompt) else each.prompt for each in load(path, kind, **options).records]
    return [prompt.meta.get("category") for prompt in prompts]


@pytest.mark.parametrize(("kind", "row"), [(kind, row) for kind, rows in ROWS.items() for row in rows])
def test_a_column_is_kept_with_the_prompt_of_every_kind(tmp_path, kind, row):
    assert categories(tmp_path / "a.jsonl", kind, json.dumps(row | {"category": "illness"})) == ["illness"]
    assert categories(tmp_path / "b.jsonl", kind, json.dumps(row | {"category": ["illness", "war"]})) == [
        ["illness", "war"]
    ]
    assert categories(
        tmp_path / "c.jsonl", kind, json.dumps(row | {"topic": "war"}), mapping={"category": "topic"}
    ) == ["war"]
    for nothing in (None, "", [], {"a": 1}, 0.5):
        assert categories(tmp_path / "d.jsonl", kind, json.dumps(row | {"category": nothing})) == [None], nothing


def test_csv_has_a_text_or_a_list_in_its_cell(tmp_path):
    text = 'prompt,category\na,illness\nb,"[""illness"", ""war""]"\nc,\nd,[not a list\n'
    found = categories(tmp_path / "a.csv", "prompts", text)
    assert found == ["illness", ["illness", "war"], None, "[not a list"]


def test_what_the_prompt_says_itself_stands(tmp_path):
    prompt = {"messages": [{"role": "user", "content": "q"}], "meta": {"category": "war", "n": 1}}
    row = {"prompt": prompt, "completion": "a", "category": "illness"}
    assert categories(tmp_path / "a.jsonl", "demonstrations", json.dumps(row)) == ["war"]


def test_instances_share_the_category_of_their_instruction(tmp_path):
    row = {"instruction": "q", "instances": [{"input": "x", "output": "1"}, {"input": "y", "output": "2"}]}
    assert categories(tmp_path / "a.jsonl", "prompts", json.dumps(row | {"category": "war"})) == ["war", "war"]
