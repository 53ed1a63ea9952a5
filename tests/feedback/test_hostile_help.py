"""Help that is hostile, broken or lopsided: counted and said, shown as text, and no figure is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crowd import Crowd, open_collection, prompts, texts

from trueup import helping
from trueup.cli.main import main
from trueup.errors import DataError
from trueup.evals.assistance import assisted_judges
from trueup.evals.audit import audit
from trueup.records import Completion, Judgement, Prompt, Score
from trueup.reports.assistance import assistance_lines
from trueup.reports.card import reward_card
from trueup.store import queue

ANSI, SCRIPT = "\x1b[31mred\x1b[2J", "<script>alert(1)</script>"
BOTH = list(texts(0))
GOOD: dict[str, Any] = {"prompt": prompts(1)[0].text, "helper": "helper A", "kind": "note", "text": "Read it twice."}


def give(crowd: Crowd, folder: Any, *rows: dict[str, Any]) -> Any:
    file = folder / "help.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return helping.help_from_file(crowd.workspace, crowd.name, file)


def said_of(crowd: Crowd) -> list[Any]:
    return [each for item in queue.items(crowd.workspace.database, crowd.id) for each in item.help or ()]


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"completions": 5}, "'completions' is no list"),
        ({"completions": True}, "'completions' is no list"),
        ({"completions": {"a": 1}}, "'completions' is no list"),
        ({"completions": []}, "'completions' is no list"),
        ({"places": ["about nothing"]}, "'places' is no list"),
        ({"places": []}, "'places' is no list"),
        ({"completions": BOTH, "places": 5}, "'places' is no list"),
        ({"completions": BOTH, "ranks": [True, 2]}, "'ranks' must be whole numbers"),
        ({"text": "x" * 1_000_000}, "'text' is longer than 20,000 characters"),
        ({"text": "\ud800"}, "half a surrogate pair"),
        ({"helper": ["a", "list"]}, "'helper' is not a text"),
        ({"helper": ANSI}, "'helper' is no name"),
        ({"helper": "h" * 61}, "'helper' is no name"),
        ({"prompt": "nobody asked this"}, "no item has this prompt"),
        ({"k" * 1_000_000: 1}, "is no field of theirs"),
    ],
)
def test_rows_that_are_broken_are_counted_with_their_reason(workspace, tmp_path, changed, reason):
    crowd = open_collection(workspace, items=2)
    found = give(crowd, tmp_path, GOOD, GOOD | {"helper": "helper B"} | changed)
    ((why, count),) = found.left_out.counts.items()
    assert reason in why and count == 1 and len(why) < 200 and found.outputs == 1
    assert found.left_out.first[why].endswith("help.jsonl:2")


def test_what_a_helper_says_twice_changes_nothing_that_was_said(workspace, tmp_path):
    crowd = open_collection(workspace, items=1)
    found = give(crowd, tmp_path, GOOD, GOOD | {"text": "No, read it once."})
    assert (found.outputs, found.known) == (1, 1)
    again = give(
        crowd, tmp_path, GOOD | {"text": "Do not read it."}, GOOD | {"kind": "summary", "text": "It is short."}
    )
    assert (again.outputs, again.known) == (1, 1)
    assert [each["text"] for each in said_of(crowd)] == ["Read it twice.", "It is short."]


def test_the_terminal_is_told_codes_and_never_obeys_them(workspace, tmp_path, capsys):
    crowd = open_collection(workspace, items=1)
    rows = [GOOD | {ANSI: 1}, GOOD | {"text": ANSI + SCRIPT}]
    for some in (rows[:1], rows):  # an error, and a count
        (tmp_path / "help.jsonl").write_text("\n".join(map(json.dumps, some)))
        with pytest.raises(SystemExit) as ended:
            main(["--workspace", str(workspace.path), "feedback", "help", crowd.name, str(tmp_path / "help.jsonl")])
        said = "".join(capsys.readouterr())
        assert (ended.value.code or 0) == (len(some) == 1), said
        assert "\x1b" not in said and "\\x1b[31mred" in said
    (stored,) = said_of(crowd)
    assert stored["text"] == ANSI + SCRIPT, "kept as it was said; the page shows it as text"


def test_a_writer_s_text_that_cannot_be_stored_leaves_its_item_out(workspace, monkeypatch):
    crowd = open_collection(workspace, items=2)
    questions: list[Prompt] = []

    def sampled(ws, model, made, candidates, seed, threads):
        questions.extend(helping.loading.read_prompts(made))
        return made

    def written(artifact):
        return [Completion(p, "bad \0 byte" if "answer 0" in p.text else "Fine.") for p in questions]

    monkeypatch.setattr(helping, "sampled", sampled)
    monkeypatch.setattr(helping.loading, "read_completions", written)
    monkeypatch.setattr(helping, "find_input", lambda *_: type("Found", (), {"name": "m"}))
    found = helping.help_from_writer(workspace, crowd.name, "m")
    assert found.outputs == 1
    assert found.left_out.counts == {"items with a text that holds NUL, which cannot be stored": 1}


def test_help_about_nothing_is_an_error_that_says_so(workspace, tmp_path):
    crowd = open_collection(workspace, items=1)
    with pytest.raises(DataError, match="nothing to show: 1 rows: no item has this prompt"):
        give(crowd, tmp_path, GOOD | {"prompt": "nobody asked this"})


# What the figures make of it


class Longest:
    def score(self, completions: Any) -> list[Score]:
        return [Score(float(len(completion.text))) for completion in completions]


def judgement(i: int, assisted: Any, **meta: Any) -> Judgement:
    meta = {"assisted": assisted, "expected": [2, 1], **meta}
    return Judgement(Prompt.user(f"q{i}"), ("short", "a longer one"), (2, 1), f"j{i % 3}", "human", meta=meta)


def test_golds_that_all_had_help_are_compared_with_nobody():
    found = assisted_judges([judgement(i, ["helper A"]) for i in range(30)])
    assert found["alone"]["n"] == 0 and found["difference"]["value"] is None and found["verdict"] == "too few"
    assert any("nobody to compare with" in line for line in assistance_lines(found))


def test_only_a_list_of_helpers_says_whether_there_was_help():
    """A row may say anything: 'no', taken for true, would count people without help among those with it."""
    odd = [judgement(i, said) for i, said in enumerate(["no", True, False, 3, {"helper A": 1}, None] * 5)]
    assert assisted_judges(odd) is None
    noted = [judgement(100 + i, ["helper A"] if i % 2 else []) for i in range(20)]
    found = assisted_judges(odd + noted)
    assert (found["judgements"], found["helped"]) == (20, 10)
    slices = {each["name"]: each["n"] for each in audit(Longest(), odd + noted)["slices"] if each["kind"] == "help"}
    assert slices == {"with help": 10, "without help": 10}


def test_people_of_both_kinds_and_of_none_are_each_counted_where_they_belong():
    same = [judgement(i, side) for i in range(20) for side in ([], ["helper A"])]
    plain = [Judgement(j.prompt, j.completions, (1, 2), "late", "human", meta={"expected": [2, 1]}) for j in same]
    found = assisted_judges(same + plain)
    assert (found["assisted"]["n"], found["alone"]["n"], found["judgements"]) == (20, 20, 40)
    assert found["assisted"]["value"] == found["alone"]["value"] == 1, "what was handed out before is on neither side"


def test_a_hostile_helper_is_words_on_the_card():
    advice = {SCRIPT: [1, 2], ANSI: ["x"], "short": [1]}
    rows = [judgement(i, [SCRIPT] if i % 2 else [], advice=advice, group=SCRIPT) for i in range(30)]
    found = audit(Longest(), rows)
    assert [each["helper"] for each in found["assistance"]["helpers"]] == [SCRIPT], "the others order no pair"
    page = reward_card(found, SCRIPT, SCRIPT)
    assert SCRIPT not in page and "&lt;script&gt;alert(1)" in page and "\x1b" not in page
