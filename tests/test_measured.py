"""What a card says was measured of its model, and the hub's table of it."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from trueup.reports import measured
from trueup.reports.meetings import meetings


def test_of_several_models_a_card_tells_the_pairs_that_it_was_in():
    roles = zip("xym", ("a", "b", "other.1"), strict=True)
    inputs = [{"id": each, "role": role, "names": [], "written_by": ""} for each, role in roles]
    pairs = [
        {
            "a": a,
            "b": b,
            "value": value,
            "ci": [value - 0.25, value + 0.25],
            "n": 8,
            "length_controlled": {"value": None},
        }
        for a, b, value in (("x", "y", 0.5), ("x", "m", 0.25), ("m", "y", 0.625))
    ]
    judge = {"kind": "model", "id": "j", "model": "/home/somebody/judge/"}
    result = {"models": [*"xym"], "pairs": pairs, "judge": judge}
    told = {"stage": "winrate", "status": "done", "inputs": inputs, "result": result}
    found = [*meetings(told, {"m"})]
    assert [(rate.rival, rate.value, rate.ci, rate.equal) for rate in found] == [
        ("x", 0.75, (0.5, 1.0), None),
        ("y", 0.625, (0.375, 0.875), None),
    ]
    assert measured._who(told, {}) == "Judged by the language model judge, asked in both orders.", "not where it lies"


@given(st.text(), st.text())
def test_whatever_a_name_holds_the_head_is_yaml(name, rival):
    measured_by = {
        "stage": "winrate", "status": "done", "inputs": [{"id": "m", "role": "a", "names": [], "written_by": ""},
                                       {"id": "r", "role": "b", "names": [rival], "written_by": ""}],
        "result": {"models": ["m", "r"], "value": 0.5, "ci": [0.4, 0.6], "n": 9},
    }  # fmt: skip
    found = yaml.safe_load("\n".join(measured.model_index(name, [measured_by], "m", None)))["model-index"][0]
    assert isinstance(found["name"], str) and found["results"][0]["metrics"][0]["value"] == 0.5
    if name.isascii() and name.isprintable():
        assert found["name"] == " ".join(name.split())
