"""How much better the chosen side is: read beside it, held to its scale, and learnt from."""

from __future__ import annotations

import json

import pytest

from trueup.records import Judgement, Prompt
from trueup.text.formats import Loaded, load
from trueup.train.judged import judged

PAIR = {"prompt": "the cat", "chosen": "sat", "rejected": "ran"}


def loaded(tmp_path, *rows: dict) -> Loaded:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return load(path, "preferences")


def talk(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": answer}]


def test_a_strength_beside_a_pair_is_read_and_learnt_from(tmp_path, encoder):
    talks = {"chosen": talk("sat"), "rejected": talk("ran")}
    rows = [PAIR | {"strength": 3}, PAIR | {"strength": "1.5"}, PAIR | {"strength": ""}, PAIR]
    found = loaded(tmp_path, *rows)
    assert [record.meta.get("strength") for record in found.records] == [3, 1.5, None, None]
    assert [record.meta.get("strength") for record in loaded(tmp_path, talks | {"strength": 2}).records] == [2]
    ((item,), _) = judged(encoder, found.records[:2], 96)
    assert [pair.strength for pair in item.pairs] == [3, 1.5]


def test_a_column_of_another_name_is_mapped(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected,how_much\nthe cat,sat,ran,2\n")
    (record,) = load(path, "preferences", {"strength": "how_much"}).records
    assert record.meta["strength"] == 2


@pytest.mark.parametrize("strength", [0, -2, 3.5, 100, float("nan"), float("inf"), "much", True, [2]])
def test_a_strength_off_its_scale_is_left_out_with_its_line(tmp_path, strength):
    found = loaded(tmp_path, PAIR | {"strength": 1}, PAIR | {"strength": strength})
    ((where, why),) = found.skipped
    assert where.endswith("rows.jsonl:2") and "'strength' is not " in why and len(found.records) == 1


@pytest.mark.parametrize("strength, kept", [(-3, True), (0, True), ("both bad", True), (4, False), (True, False)])
def test_so_is_one_in_a_raw_row_where_the_sign_names_the_side(tmp_path, strength, kept):
    row = Judgement(
        Prompt.user("the cat"), ("a", "b"), (1, 2), "ann", "human", id="1", meta={"strength": strength}
    ).to_json()
    found = loaded(tmp_path, row | {"id": "2", "meta": {}}, row)
    assert len(found.records) == 1 + kept
    assert [why for _, why in found.skipped] == ["'strength' is not a number from -3 to 3"] * (not kept)


@pytest.mark.parametrize("finished, kept", [([True, False], True), ([], True), ([True], False), ("yes!", False)])
def test_what_else_training_reads_of_a_raw_row_is_looked_at_too(tmp_path, finished, kept):
    """It would end a run an hour later, and not by a sentence."""
    row = Judgement(Prompt.user("the cat"), ("a", "b"), (1, 2), "ann", "human", id="1", meta={"finished": finished})
    found = loaded(tmp_path, row.to_json() | {"id": "2", "meta": {}}, row.to_json())
    assert [why for _, why in found.skipped] == ["'finished' is not true or false for each completion"] * (not kept)
