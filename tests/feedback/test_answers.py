"""Answers: what is accepted, what is refused by the name of its field, and what becomes of it, whatever the order."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.config import load
from trueup.errors import DataError
from trueup.feedback.answers import FLAGS, agreement, read_answer, to_judgement
from trueup.records import Prompt
from trueup.store.items import Item
from trueup.store.queue import Assignment

AXES = 'axes=[{name="helpful", high=5}, {name="true", low=0, high=1}]'
TEXTS = ("one way to say it", "another way", "a third way", "a fourth way")


def config(task: str = "pair", *sets: str):
    return load("collection", sets=[f"task={task}", *sets])


def held(k: int = 2, order: tuple[int, ...] | None = None, round: int = 0) -> Assignment:
    item = Item(Prompt.user("say it"), TEXTS[:k], "set", (True,) * k, id="item", collection="c", split="heldout")
    shown = order or tuple(range(k))
    return Assignment("assignment", item, "c", "p", round, "leased", shown, "g", 100.0, 999.0, None, None, "")


def judged(settings, payload, order, now: float = 160.0):
    mine = held(len(order), order)
    return to_judgement(read_answer(settings, len(order), payload), mine, "human:abc234", now)


@pytest.mark.parametrize(
    ("task", "payload", "ranks"),
    [
        ("pair", {"choice": -3}, (1, 2)),
        ("pair", {"choice": 1}, (2, 1)),
        ("pair", {"choice": 0}, (1, 1)),
        ("pair", {"choice": "both bad"}, (1, 1)),
        ("ranking", {"ranks": [2, 1, 2], "order_changed": True, "confirmed": False}, (2, 1, 2)),
        ("ranking", {"ranks": [3, 3, 1]}, (2, 2, 1)),
        ("rating", {"ratings": {"helpful": [5, 1, 3], "true": [1, 1, 0]}}, (1, 2, 3)),
        ("thumbs", {"thumbs": ["down", "up", "unsure"], "chips": ["too long"]}, (3, 1, 2)),
        ("edit", {"edited": 1, "text": "better", "ranks": [2, 1, 3]}, (2, 1, 3)),
    ],
)
def test_an_answer_places_what_was_shown(task, payload, ranks):
    settings = config(task, *([AXES] if task == "rating" else []))
    answer = read_answer(settings, len(ranks), payload)
    assert answer.ranks(range(len(ranks))) == ranks and answer.payload == payload


@pytest.mark.parametrize(
    ("task", "payload", "names"),
    [
        ("pair", {}, "choice"),
        ("pair", {"choice": 4}, "choice"),
        ("pair", {"choice": True}, "choice"),
        ("pair", {"choice": 1.0}, "choice"),
        ("pair", {"choice": "left"}, "choice"),
        ("pair", {"choice": 1, "score": 2}, "score"),
        ("pair", {"choice": 1, "ranks": [1, 2]}, "ranks"),
        ("pair", {"choice": 1, "active_ms": -1}, "active_ms"),
        ("pair", {"choice": 1, "opened_ms": "1"}, "opened_ms"),
        ("pair", {"choice": 1, "active_ms": 10**400}, "active_ms"),
        ("pair", {"choice": 1, "rationale": 7}, "rationale"),
        ("pair", {"choice": 1, "rationale": "a\0b"}, "rationale"),
        ("pair", {"choice": 1, "rationale": "x" * 20_001}, "rationale"),
        ("pair", {"choice": 1, "rationale": "\ud800"}, "rationale"),
        ("pair", {"choice": 1, "flags": ["unsafe"]}, "flags"),
        ("pair", {"choice": 1, "flags": {"prompt": ["rude"]}}, "flags.prompt"),
        ("pair", {"choice": 1, "flags": {"prompt": [["unsafe"]]}}, "flags.prompt"),
        ("pair", {"choice": 1, "flags": {"completions": [["unsafe"]]}}, "flags.completions"),
        ("pair", {"choice": 1, "flags": {"completions": [["unsafe"], "broken"]}}, "flags.completions.1"),
        ("ranking", {"ranks": [1, 2]}, "ranks"),
        ("ranking", {"ranks": [1, 2, None]}, "ranks"),
        ("ranking", {"ranks": [0, 1, 2]}, "ranks"),
        ("ranking", {"ranks": [1, 2, 4]}, "ranks"),
        ("ranking", {"ranks": [1, 2, 3], "confirmed": 1}, "confirmed"),
        ("rating", {"ratings": {"helpful": [1, 2, 3]}}, "ratings"),
        ("rating", {"ratings": {"helpful": [1, 2, 6], "true": [0, 0, 0]}}, "ratings.helpful"),
        ("rating", {"ratings": {"helpful": [1, 2, 3], "true": [0, 0]}}, "ratings.true"),
        ("rating", {"ratings": {"helpful": [1, 2, 3], "true": [0, 0, 0.5]}}, "ratings.true"),
        ("thumbs", {"thumbs": ["up", "down"]}, "thumbs"),
        ("thumbs", {"thumbs": ["up", "down", "sideways"]}, "thumbs"),
        ("thumbs", {"thumbs": ["up", "down", ["up"]]}, "thumbs"),
        ("thumbs", {"thumbs": ["up", "down", "up"], "chips": "long"}, "chips"),
        ("edit", {"edited": 3, "text": "x"}, "edited"),
        ("edit", {"edited": -1, "text": "x"}, "edited"),
        ("edit", {"edited": 0, "text": "  "}, "text"),
        ("edit", {"edited": 0, "text": "x", "ranks": [1]}, "ranks"),
    ],
)
def test_a_wrong_answer_is_refused_by_the_name_of_its_field(task, payload, names):
    settings = config(task, *([AXES] if task == "rating" else []))
    with pytest.raises(DataError) as caught:
        read_answer(settings, 2 if task == "pair" else 3, payload)
    assert caught.value.message.startswith(f"the answer: {names} ") and caught.value.hint


@pytest.mark.parametrize("payload", [None, [], "x", 3])
def test_an_answer_that_is_no_object_is_refused(payload):
    with pytest.raises(DataError, match="not a JSON object"):
        read_answer(config(), 2, payload)


@pytest.mark.parametrize(
    ("task", "setting", "payload", "fine"),
    [
        ("pair", "ties=false", {"choice": 0}, {"choice": -1}),
        ("pair", "both_bad=false", {"choice": "both bad"}, {"choice": 0}),
        ("pair", "strength=false", {"choice": 2}, {"choice": -1}),
        ("ranking", "ties=false", {"ranks": [1, 1]}, {"ranks": [2, 1]}),
        ("pair", "rationale=required", {"choice": 1, "rationale": " "}, {"choice": 1, "rationale": "shorter"}),
        ("pair", "rationale=when strong or flagged", {"choice": -3}, {"choice": 2}),
        (
            "ranking",
            "rationale=when strong or flagged",
            {"ranks": [1, 2], "flags": {"prompt": [], "completions": [[], ["unsafe"]]}},
            {"ranks": [1, 2], "flags": {"prompt": [], "completions": [[], []]}},
        ),
    ],
)
def test_what_a_collection_does_not_offer_or_asks_for_is_held_to(task, setting, payload, fine):
    settings = config(task, setting)
    read_answer(settings, 2, fine)
    with pytest.raises(DataError):
        read_answer(settings, 2, payload)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_judgement_is_about_completions_and_not_about_places(order):
    """Whatever was shown where: who likes text 2 best and text 0 least is recorded as saying just that."""
    liking = {2: 1, 1: 2, 0: 3}
    shown = [liking[index] for index in order]
    said = judged(config("ranking"), {"ranks": shown}, order)
    assert said.ranks == (3, 2, 1) and said.completions == TEXTS[:3] and said.meta["order"] == list(order)
    numbers = {"overall": [8 - 2 * liking[index] for index in order]}
    rated = judged(config("rating"), {"ratings": numbers}, order)
    assert rated.ratings == {"overall": (2.0, 4.0, 6.0)} and rated.ranks == (3, 2, 1)
    thumbs = [{1: "up", 2: "unsure", 3: "down"}[place] for place in shown]
    assert judged(config("thumbs"), {"thumbs": thumbs}, order).ratings == {"thumb": (0.0, None, 1.0)}
    flags = {"prompt": ["broken"], "completions": [["unsafe"] if index == 1 else [] for index in order]}
    flagged = judged(config("ranking"), {"ranks": shown, "flags": flags}, order)
    assert flagged.meta["flags"] == {"prompt": ["broken"], "completions": [[], ["unsafe"], []]}
    edit = judged(config("edit"), {"edited": order.index(1), "text": "another and better way"}, order)
    assert edit.completions == (TEXTS[1], "another and better way") and edit.ranks == (2, 1)


@given(choice=st.integers(-3, 3), swapped=st.booleans())
def test_the_strength_of_a_pair_goes_by_completions_too(choice, swapped):
    order = (1, 0) if swapped else (0, 1)
    said = judged(config(), {"choice": choice}, order)
    assert said.meta["strength"] == (-choice if swapped else choice)
    assert (said.ranks[1] < said.ranks[0]) == (said.meta["strength"] > 0)


def test_a_judgement_keeps_everything_that_was_sent_and_when():
    payload = {"choice": 2, "rationale": "clearer", "active_ms": 30_000, "opened_ms": 5, "client": "1.0"}
    said = judged(config(), payload, (1, 0))
    assert (said.judge, said.source, said.split) == ("human:abc234", "human", "heldout")
    assert said.meta["answer"] == payload and said.meta["seconds"] == 60 and said.meta["active_seconds"] == 30
    places = {key: said.meta[key] for key in ("item", "assignment", "collection", "guideline", "round", "role")}
    assert list(places.values()) == ["item", "assignment", "c", "g", 0, "main"]


def test_nobody_was_active_for_longer_than_they_had_the_item():
    assert judged(config(), {"choice": 1, "active_ms": 10**9}, (0, 1)).meta["active_seconds"] == 60
    assert judged(config(), {"choice": 1}, (0, 1)).meta["active_seconds"] is None


def test_an_edit_must_change_something_and_ranks_above_what_it_was_made_from():
    with pytest.raises(DataError, match="text is the completion as it was"):
        judged(config("edit"), {"edited": 0, "text": f" {TEXTS[1]}\n"}, (1, 0))
    said = judged(config("edit"), {"edited": 0, "text": "another good way", "ranks": [2, 1]}, (1, 0))
    assert said.completions == (*TEXTS[:2], "another good way") and said.ranks == (2, 3, 1)
    assert said.meta["edit"] == {"of": 1, "words_changed": 1, "steps": [["insert", 1, 1, 1, 2]]}


def test_a_gold_is_right_by_the_pairs_it_decides():
    def said(*ranks: int):
        return judged(config("ranking"), {"ranks": list(ranks)}, range(len(ranks)))

    assert agreement((1, 2, 3), said(1, 2, 3)) == 1
    assert agreement((1, 2, 3), said(2, 1, 3)) == pytest.approx(2 / 3)
    assert agreement((1, 2), said(1, 1)) == 0 and agreement((1, 1), said(1, 1)) == 1
    assert agreement((1, 1, 2), said(2, 1, 3)) == 1 and agreement((1, 1), said(1, 2)) == 0


def test_flags_are_those_of_the_page():
    flags = {"prompt": list(FLAGS), "completions": [list(FLAGS), []]}
    assert read_answer(config(), 2, {"choice": 1, "flags": flags}).flags == set(FLAGS)
