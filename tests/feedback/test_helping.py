"""Help for judges: how it comes to items, who is shown it, what judgements note of it, and what it does to people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from crowd import Crowd, best_first, open_collection, prompts, texts, worth

from trueup import api, asking, helping
from trueup.errors import ConfigError, DataError, NotFoundError
from trueup.feedback import freeze as freezing
from trueup.feedback import quality, votes
from trueup.feedback.assistance import HelpedGolds
from trueup.feedback.desk import View
from trueup.feedback.helping import Output, next_name
from trueup.loading import read_judgements
from trueup.records import Judgement
from trueup.reports.assistance import assistance_lines
from trueup.store import Workspace, audit, queue

GOLDS = 16  # as many as other items


def rows(n: int, *, wrong: int = 0, helper: str = "helper A") -> list[dict[str, Any]]:
    """A critique of both completions of every prompt, by a helper who is wrong about every `wrong`-th of them."""
    found = []
    for i, prompt in enumerate(prompts(n)):
        both, ranks = list(texts(i)), list(best_first(texts(i)))
        if wrong and i % wrong == 0:
            ranks = [3 - rank for rank in ranks]
        places = ["Nothing is wrong with it." if rank == 1 else "It is worth less than it says." for rank in ranks]
        about = {"completions": both[::-1], "places": places[::-1], "ranks": ranks[::-1]}
        text = "<completion 1> and <completion 2> were compared."
        found.append({"prompt": prompt.text, "helper": helper, "kind": "critique", "text": text, **about})
    return found


def give(crowd: Crowd, folder: Any, said: list[Any]) -> Any:
    file = folder / "help.jsonl"
    file.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in said) + "\n")
    return helping.help_from_file(crowd.workspace, crowd.name, file)


def reader(accuracy: float, helped: float, follows: float = 0.0):
    """Prefers what is worth more, errs now and then, less often with help; and then says what the helper says."""

    def judge(view: View, chance: Random) -> dict[str, Any]:
        right = 2 if worth(view.completions[1]) > worth(view.completions[0]) else -2
        if view.help and chance.random() < follows:
            return {"choice": -2 if view.help[0]["places"][0].startswith("Nothing") else 2, "help_opened": True}
        return {"choice": right if chance.random() < (helped if view.help else accuracy) else -right}

    return judge


def stored(crowd: Crowd) -> list[Judgement]:
    return [judgement for judgement, _ in queue.current_judgements(crowd.workspace.database, crowd.id)]


# From a file to items


def test_rows_find_their_items_and_those_that_do_not_are_counted(workspace, tmp_path):
    crowd = open_collection(workspace, items=4)
    good = rows(3)
    whole = {"prompt": prompts(4)[3].text, "helper": "the critic", "kind": "note", "text": "Read it twice."}
    bad = [
        {**good[0], "kind": "opinion"},
        {**good[0], "completions": ["a", "b"]},
        {**good[0], "prompt": "nobody asked"},
        {**whole, "places": ["x"]},
        {**whole, "text": "  "},
        {**whole, "helper": ""},
        {**whole, "models": "m0"},
        {**whole, "text": "Look at <completion 1>."},
        {**good[0], "ranks": ["1", "2"]},
        "{broken",
        '"a text"',
        '{"prompt": "a", "prompt": "b"}',
    ]
    found = give(crowd, tmp_path, [*good, whole, *bad])
    assert (found.outputs, found.known) == (4, 0) and found.items == {"work": (4, 4), "checks": (0, 0)}
    assert sum(found.left_out.counts.values()) == len(bad)
    reasons = " | ".join(found.left_out.counts)
    words = "'kind'", "just these completions", "no item has this prompt", "'places'", "says anything", "'helper'"
    for word in (*words, "'models' is no field", "not in 'completions'", "'ranks'", "cannot be read"):
        assert word in reasons, word
    assert found.left_out.first["rows that cannot be read"].endswith("help.jsonl:14")
    again = give(crowd, tmp_path, [*good, whole])
    assert (again.outputs, again.known) == (0, 4)
    items = queue.items(workspace.database, crowd.id)
    assert [len(item.help or ()) for item in items] == [1, 1, 1, 1] and next_name(items) == "helper B"
    (noted, _) = [each for each in audit.entries(workspace.database) if each["action"] == "gave help"]
    assert noted["details"]["file"] == "help.jsonl" and noted["details"]["outputs"] == 4


def test_places_ranks_and_letters_go_with_their_completion_whoever_sees_them_where(workspace, tmp_path):
    crowd = open_collection(workspace, items=12, help_share=1.0)
    give(crowd, tmp_path, rows(12))
    for item in queue.items(workspace.database, crowd.id):
        (said,) = item.help
        assert said["ranks"] == list(best_first(item.texts))
    seen = set()
    for person in crowd.people[:2]:
        for _ in range(6):
            view = crowd.desk.next(person.id)
            (said,) = view.help
            better = max(view.completions, key=worth)
            assert said["places"][view.completions.index(better)] == "Nothing is wrong with it."
            seen.add(said["text"])
            crowd.desk.answer(person.id, view.assignment, "k", {"choice": 1})
    assert seen == {"A and B were compared.", "B and A were compared."}


def test_what_names_a_model_of_the_completions_is_left_out(workspace, tmp_path):
    crowd = open_collection(workspace, items=4, models=True)
    with pytest.raises(DataError, match="nothing to show"):
        give(crowd, tmp_path, [{"prompt": "?", "helper": "h", "kind": "note", "text": "?"}])
    with workspace.database.write() as connection:
        from trueup.store import schema

        connection.execute(schema.item_text.update().values(models=["tuned-2", "sft-1"]))
    said = [
        {"prompt": p.text, "helper": "h", "kind": "note", "text": t} for p, t in zip(prompts(4), "abcd", strict=True)
    ]
    said[0]["text"], said[1]["helper"], said[2]["text"] = "clearly Tuned-2", "sft-1", "as ChatGPT would say"
    found = give(crowd, tmp_path, said)
    assert found.outputs == 2 and found.leaks == 1
    assert found.left_out.counts == {"outputs that name a model which wrote a completion": 2}


def test_help_that_would_tell_golds_apart_is_warned_of(workspace, tmp_path):
    crowd = open_collection(workspace, items=10, golds=10)
    (warning,) = give(crowd, tmp_path, rows(20)[10:]).warnings
    assert "10 of 10 checks have help, and 0 of 10 other items" in warning
    assert give(crowd, tmp_path, rows(20)[:10]).warnings == ()
    other = open_collection(workspace, name="other", items=10, golds=10, help_share=1.0)
    warnings = give(other, tmp_path, rows(10)).warnings
    assert any("no gold has help" in each for each in warnings)
    assert any("nothing to compare with" in each for each in warnings)


def test_a_file_with_nothing_in_it_and_a_bad_name_are_errors(workspace, tmp_path):
    crowd = open_collection(workspace, items=3)
    with pytest.raises(DataError, match="no rows"):
        give(crowd, tmp_path, [])
    with pytest.raises(ConfigError, match="--helper"):
        helping.help_from_writer(workspace, crowd.name, "nothing", helper="x" * 100)
    with pytest.raises(ConfigError, match="template"):
        helping.help_from_writer(workspace, crowd.name, "nothing", helping.Writer(template="Say something."))


# Who is shown it


def test_chance_decides_once_for_each_item_and_person(workspace, tmp_path):
    crowd = open_collection(workspace, items=18, overlap=4, crowd=4, repeat_share=0.2)
    give(crowd, tmp_path, rows(18))
    crowd.work([reader(1, 1)] * 4)
    said = stored(crowd)
    noted = {}
    for each in said:
        assert each.meta["assisted"] in ([], ["helper A"]) and set(each.meta["advice"]) == {"helper A"}
        noted.setdefault((each.meta["item"], each.judge), set()).add(bool(each.meta["assisted"]))
    assert all(len(each) == 1 for each in noted.values()) and any(each.meta["round"] for each in said)
    share = sum(True in each for each in noted.values()) / len(noted)
    assert 0.3 < share < 0.7
    by_item = {}
    for (item, _), helped in noted.items():
        by_item.setdefault(item, set()).update(helped)
    assert sum(len(each) == 2 for each in by_item.values()) > 12  # most items are judged both ways
    for judge in {each.judge for each in said}:
        assert {True} in [helped for (_, who), helped in noted.items() if who == judge]


@pytest.mark.parametrize("share, shown", [(0.0, []), (1.0, ["helper A"])])
def test_nobody_and_everybody(workspace, tmp_path, share, shown):
    crowd = open_collection(workspace, items=5, help_share=share, help_open=False)
    give(crowd, tmp_path, rows(5))
    view = crowd.desk.next(crowd.people[0].id)
    assert [each["helper"] for each in view.help] == shown and not view.help_open
    crowd.work([reader(1, 1)] * 4)
    assert {tuple(each.meta["assisted"]) for each in stored(crowd)} == {tuple(shown)}


def test_help_that_comes_later_changes_nothing_that_was_handed_out(workspace, tmp_path):
    crowd = open_collection(workspace, items=2, help_share=1.0, repeat_share=0)
    ada = crowd.people[0].id
    before = crowd.desk.next(ada)
    give(crowd, tmp_path, rows(2))
    assert crowd.desk.next(ada) == before and before.help == ()
    crowd.desk.answer(ada, before.assignment, "k", {"choice": 1})
    assert "assisted" not in stored(crowd)[0].meta  # there was nothing to be without
    again = crowd.desk.revise(ada, before.assignment)
    assert again.help == ()
    crowd.desk.answer(ada, again.assignment, "k2", {"choice": 2})
    assert crowd.desk.next(ada).help


def test_the_qualification_shows_none(workspace, tmp_path):
    crowd = open_collection(workspace, items=3, qualification=1, help_share=1.0)
    gold = replace(crowd.items[0], role="qualification", key={"ranks": list(best_first(texts(0)))}, overlap=9)
    fields = {name: getattr(gold, name) for name in queue.NewItem.__dataclass_fields__}
    queue.add_items(workspace.database, crowd.id, [queue.NewItem(**fields)], crowd.clock())
    give(crowd, tmp_path, rows(3))
    seen = []
    for _ in range(4):
        view = crowd.desk.next(crowd.people[0].id)
        seen.append(len(view.help))
        crowd.desk.answer(crowd.people[0].id, view.assignment, "k", reader(1, 1)(view, Random(0)))
    assert seen == [0, 1, 1, 1]


def test_covered_help_is_sent_when_it_is_asked_for(workspace, tmp_path):
    crowd = open_collection(workspace, items=4, help_share=1.0, sensitive=("worth less",), repeat_share=0)
    give(crowd, tmp_path, rows(4))
    ada = crowd.people[0].id
    view = crowd.desk.next(ada)
    assert view.covered == (False, False, False, True) and "worth less" not in json.dumps(view.to_json())
    assert [len(each["places"]) for each in view.help] == [2] and view.help[0]["helper"] == "helper A"
    said = [each["content"] for each in crowd.desk.uncover(ada, view.assignment, 3)]
    assert len(said) == 3 and "It is worth less than it says." in said
    plain = open_collection(workspace, name="plain", items=4, sensitive=("worth less",))
    with pytest.raises(NotFoundError):
        plain.desk.uncover(ada, plain.desk.next(ada).assignment, 3)


def test_an_answer_says_whether_help_was_opened_and_nothing_else_for_it(workspace, tmp_path):
    crowd = open_collection(workspace, items=2, help_share=1.0)
    give(crowd, tmp_path, rows(2))
    ada = crowd.people[0].id
    view = crowd.desk.next(ada)
    with pytest.raises(DataError, match="help_opened"):
        crowd.desk.answer(ada, view.assignment, "k", {"choice": 1, "help_opened": "yes"})
    crowd.desk.answer(ada, view.assignment, "k", {"choice": 1, "help_opened": False})
    assert stored(crowd)[0].meta["answer"]["help_opened"] is False
    (past,) = crowd.desk.history(ada)
    assert past.helped == ("helper A",)


# What it does to people


@pytest.fixture(scope="module")
def helped(tmp_path_factory) -> Iterator[Crowd]:
    """People who are right on 60% alone and on 95% with help, and say what the helper says now and then. The helper is
    wrong about every other item."""
    folder = tmp_path_factory.mktemp("helped")
    with Workspace.create(folder / "work") as workspace:
        crowd = open_collection(workspace, items=GOLDS, golds=GOLDS, overlap=6, crowd=6, heldout=4, gold_every=1)
        give(crowd, folder, rows(2 * GOLDS, wrong=2))
        crowd.work([reader(0.6, 0.95, follows=0.1)] * 6)
        yield crowd


def test_quality_says_that_help_helps(helped):
    found = asking.quality(helped.workspace, helped.name)["value"]["assistance"]
    assert found["verdict"] == "higher" and found["difference"]["ci"][0] > 0
    assert found["assisted"]["value"] > 0.8 > found["alone"]["value"] > 0.45
    assert found["assisted"]["n"] + found["alone"]["n"] == found["judgements"] and found["prompts"] == GOLDS
    (helper,) = found["helpers"]
    assert helper["right"]["value"] == pytest.approx(0.5, abs=0.07)
    assert helper["when_wrong"]["verdict"] != "higher"


def test_followers_of_a_wrong_helper_are_named(helped):
    """The judgements as they came, with people who always say what the helper says where they are shown it."""
    golds, said = HelpedGolds(), []
    for item in helped.items:
        golds.add(replace(item, help=({"helper": "helper A"},)))
    for judgement in stored(helped):
        advice = judgement.meta["advice"]["helper A"]
        said.append(replace(judgement, ranks=tuple(advice)) if judgement.meta["assisted"] else judgement)
    value = golds.figures((each, {"item": each.meta["item"], "round": each.meta["round"]}) for each in said * 2)
    (helper,) = value["helpers"]
    assert helper["when_wrong"]["verdict"] == "higher" and helper["when_wrong"]["assisted"]["value"] == 1
    lines = assistance_lines(value)
    assert any("People follow 'helper A' into its mistakes" in line for line in lines)
    before = asking.quality(helped.workspace, helped.name)["value"]["assistance"]
    assert not any("mistakes" in line for line in assistance_lines(before))


def test_without_help_there_are_no_figures_of_it(workspace):
    crowd = open_collection(workspace, items=10, golds=6)
    crowd.work([reader(0.8, 0.8)] * 4)
    assert quality.compute(workspace, crowd.id)["assistance"] is None


def test_sets_with_help_and_without_share_no_judgement_and_leave_none_out(helped, tmp_path):
    ws = helped.workspace
    sets = {how: asking.freeze(ws, helped.name, assisted=how) for how in ("only", "without", "")}
    ids = {how: {each.id for each in read_judgements(frozen.artifact)} for how, frozen in sets.items()}
    assert ids["only"] | ids["without"] == ids[""] and not ids["only"] & ids["without"] and all(ids.values())
    assert sets["only"].left_out["given without help"] and sets["without"].left_out["given with help"]
    assert sets["only"].artifact.meta["assisted"] == "only" and "assisted" not in sets[""].artifact.meta
    # The way out and back in: what was noted of help is still there.
    out = tmp_path / "out.jsonl"
    api.export_data(ws, sets[""].artifact, str(out), format="raw")
    back = api.add_data(ws, str(out), "preferences").artifact
    kept = {each.id: dict(each.meta) for each in read_judgements(sets[""].artifact)}
    assert {each.id: dict(each.meta) for each in read_judgements(back)} == kept
    assert {tuple(meta["assisted"]) for meta in kept.values()} == {(), ("helper A",)}
    everything = asking.freeze(ws, helped.name, kind="votes").artifact
    said = list(map(json.loads, (everything.path / votes.ROWS).read_text().splitlines()))
    assert {tuple(row["assisted"]) for row in said if row["what"] == "judgement"} == {(), ("helper A",)}
    with pytest.raises(ConfigError, match="votes"):
        freezing.Choice("votes", assisted="only")
    with pytest.raises(ConfigError, match="assisted"):
        freezing.Choice(assisted="never")


def test_an_answer_that_was_decided_is_neither_with_help_nor_without(helped):
    ws = helped.workspace
    item = next(each for each in queue.items(ws.database, helped.id) if each.role == "main")
    asking.adjudicate(ws, helped.name, item.id, "accept", ranks=[1, 2])
    decided = {how: "human:adjudicator" in set_of(ws, helped, how) for how in ("only", "without", "")}
    assert decided == {"only": False, "without": False, "": True}


def set_of(ws: Workspace, crowd: Crowd, assisted: freezing.Assisted) -> set[str]:
    return {each.judge for each in read_judgements(asking.freeze(ws, crowd.name, assisted=assisted).artifact)}


# Another reward model's view, and what a writer is asked


def test_a_view_is_said_in_standard_deviations_and_never_bare():
    assert helping.view_in_words("h", [0.3, 1.6]) == Output(
        "h",
        "score",
        places=("It likes this one less.", "It prefers this one, by 1.3 standard deviations of its scores."),
        ranks=(2, 1),
    )
    close = helping.view_in_words("h", [1.0, 1.05])
    assert close.text == "It hardly tells the two apart." and close.ranks == (1, 1) and not close.places
    three = helping.view_in_words("h", [0.0, 2.0, 2.0])
    assert three.ranks == (2, 1, 1) and three.places[0].startswith("Place 2 of 3, 2.0 standard deviations")


def test_a_reward_model_of_another_kind_helps(workspace, monkeypatch):
    crowd = open_collection(workspace, items=6, golds=2)

    def score(ws, *, model, completions, threads):
        for each in completions:
            known = each.prompt.text != prompts(1)[0].text
            yield {"value": float(worth(each.text)) if known else None, "parts": {}}

    monkeypatch.setattr(helping.auditing, "score", score)
    monkeypatch.setattr(helping, "find_input", lambda *_: type("Found", (), {"name": "reward-7"}))
    found = helping.help_from_scores(workspace, crowd.name, "reward")
    assert found.helpers == ("helper A",) and found.outputs == 7
    assert found.left_out.counts == {"items with a completion that is longer than the reward model reads": 1}
    for item in queue.items(workspace.database, crowd.id)[1:]:
        (said,) = item.help
        assert said["ranks"] == list(best_first(item.texts)) and "reward-7" not in json.dumps(said)


def test_the_writer_s_question_is_filled_in_one_pass(workspace):
    crowd = open_collection(workspace, items=1)
    item = replace(crowd.items[0], texts=("{prompt}", "b"))
    asked = helping._question("Q {prompt} A {completion}", item, 0).text
    assert asked == f"Q {item.prompt.text} A {{prompt}}"
