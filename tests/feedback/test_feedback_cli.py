"""`trueup feedback` for whoever runs a collection, and the table of who may do what."""

from __future__ import annotations

import json
import time

import pytest

from trueup.cli.main import run
from trueup.cli.team import WEB_SECRET
from trueup.feedback.desk import Desk
from trueup.feedback.roles import RIGHTS, NotAllowed, may, may_invite, require
from trueup.records import Prompt
from trueup.store import Workspace, people, queue
from trueup.web.security import SECRET_FILE, read_secret


@pytest.fixture
def trueup(workspace, capsys):
    """`trueup("feedback status", ...)`: (exit code, what --json printed, stderr)."""
    rows = [
        {"prompt": Prompt.user(f"question {i}").to_json(), "completions": [{"text": f"a{i}"}, {"text": f"b{i}"}]}
        for i in range(12)
    ]
    workspace.put("completions", {"rows.jsonl": "\n".join(map(json.dumps, rows)).encode()}, name="drafts")

    def call(line: str, *more: str):
        code = run(["--workspace", str(workspace.path), *line.split(), *more, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return call


def judge_everything(workspace: Workspace, name: str, person: str, choice: int = 1) -> None:
    desk = Desk(workspace, name)
    while (view := desk.next(person)) is not None:
        desk.answer(person, view.assignment, "k", {"choice": choice if view.completions[0][0] == "a" else -choice})


def test_a_collection_from_the_command_line_to_its_end(trueup, workspace, tmp_path):
    guideline = tmp_path / "titles.md"
    guideline.write_text("# Be kind")
    make = "feedback collect --name titles --completions drafts --overlap 2 --calibration-share 0 --repeat-share 0"
    code, made, _ = trueup(make, "--set", 'criteria=["true", "short"]', "--guideline", str(guideline))
    assert code == 0 and made["added"] == 12
    assert trueup(make, "--set", 'criteria=["true", "short"]')[1]["added"] == 0
    code, _, stderr = trueup(make)
    assert code == 1 and "with another criteria" in stderr and "another name" in stderr

    assert trueup("feedback guideline titles")[1]["text"] == "# Be kind"
    guideline.write_text("# Be kinder")
    assert trueup("feedback guideline titles", str(guideline))[1]["number"] == 2
    found = queue.collection(workspace.database, "titles")
    for name, choice in (("Ada", 1), ("Bea", -1)):
        who = people.add_person(workspace.database, name, "annotator", 0).id
        queue.acknowledge(workspace.database, who, found.guideline, 0)
        judge_everything(workspace, "titles", who, choice)
    state = trueup("feedback status titles")[1]
    assert (state["judgements"], state["needed"]) == (24, 0) and {p["done"] for p in state["people"]} == {12}
    assert [each["name"] for each in trueup("feedback status")[1]] == ["titles"]

    disputed = trueup("feedback adjudicate titles --limit 3")[1]
    assert len(disputed) == 3 and disputed[0]["agreement"] == 0
    item = disputed[0]["item"]
    assert trueup("feedback adjudicate titles", item, "--accept", "1,2")[1]["decision"] == "accept"
    assert trueup("feedback adjudicate titles", item, "--requeue", "1")[0] == 0
    assert trueup("feedback status titles")[1]["needed"] == 1
    assert trueup("feedback close titles")[1]["state"] == "closed"
    assert trueup("feedback status titles")[1]["state"] == "closed"
    assert trueup("feedback close titles --reopen")[1]["state"] == "open"


def test_items_whose_votes_decide_nothing_are_asked_about_once_more_up_to_the_limit(trueup, workspace):
    trueup("feedback collect --name c --completions drafts --overlap 2 --max-overlap 3 --calibration-share 0")
    who = [people.add_person(workspace.database, name, "annotator", 0).id for name in ("Ada", "Bea", "Cid")]
    desk = Desk(workspace, "c")
    for person in who[:2]:
        while (view := desk.next(person)) is not None:
            number = int(view.prompt[0]["content"].split()[1])
            first = view.completions[0][0] == "a"
            opposed = number < 5 and person == who[1]
            tie = number >= 9
            desk.answer(person, view.assignment, "k", {"choice": 0 if tie else 1 if first != opposed else -1})
    decided = next(item for item in queue.items(workspace.database, desk.id) if item.prompt.text == "question 4")
    assert trueup("feedback adjudicate c", decided.id, "--ambiguous")[0] == 0
    assert trueup("feedback top-up c")[1] == {"items": 4}, "what somebody decided needs no other vote"
    assert trueup("feedback top-up c")[1] == {"items": 0}, "they have not got their vote yet"
    seen = []
    while (view := desk.next(who[2])) is not None:
        seen.append(int(view.prompt[0]["content"].split()[1]))
        desk.answer(who[2], view.assignment, "k", {"choice": 0})
    assert sorted(seen) == [0, 1, 2, 3]
    assert trueup("feedback top-up c")[1] == {"items": 0}, "three is the most"


def test_what_is_in_quarantine_is_listed_with_its_reason_and_let_out(trueup, workspace):
    trueup("feedback collect --name c --completions drafts --quarantine-after 1")
    who = people.add_person(workspace.database, "Ada", "annotator", 0).id
    desk = Desk(workspace, "c")
    desk.skip(who, desk.next(who).assignment, "unreadable")
    ((aside),) = trueup("feedback adjudicate c --quarantined")[1]
    assert aside["reason"] == "skipped: unreadable"
    assert trueup("feedback adjudicate c", aside["item"], "--clear")[1]["was"] == "skipped: unreadable"
    assert trueup("feedback adjudicate c --quarantined")[1] == []
    code, _, stderr = trueup("feedback adjudicate c", aside["item"], "--clear")
    assert code == 1 and "not in quarantine" in stderr


@pytest.mark.parametrize(
    "line",
    [
        "feedback adjudicate c --ambiguous",
        "feedback adjudicate c 3f9a",
        "feedback adjudicate c 3f9a --ambiguous --clear",
        "feedback adjudicate c 3f9a --accept one,two",
        "feedback invite --role owner --collection c",
    ],
)
def test_half_a_command_is_a_wrong_usage(trueup, line):
    trueup("feedback collect --name c --completions drafts")
    code, _, stderr = trueup(line)
    assert code == 2 and stderr.startswith("error:")


def test_every_mistake_in_the_settings_is_told_at_once(trueup):
    code, _, stderr = trueup("feedback collect --name c --completions drafts --task rank --overlap 0 --set colour=red")
    assert code == 1 and stderr.startswith("error: 3 settings of a collection are wrong:")
    assert "docs/settings.md lists every setting of a collection" in stderr


def test_people_are_invited_named_moved_and_forgotten(trueup, workspace):
    invited = trueup("feedback invite --role manager --uses 2 --address https://example.org/")[1]
    assert invited["link"].startswith("https://example.org/invite/")
    ada = people.accept_invite(workspace.database, invited["link"].rpartition("/")[2], "Ada", 1.0, "hash")
    assert ada.role == "manager"
    listed = trueup("feedback people list")[1]
    assert [each["name"] for each in listed["people"]] == ["Ada"]
    assert [each["uses"] for each in listed["invitations"]] == [1]
    assert trueup("feedback people revoke", listed["invitations"][0]["id"])[0] == 0
    assert trueup("feedback people list")[1]["invitations"] == []
    session = people.new_session(workspace.database, ada.id, time.time(), 3600)
    assert people.session(workspace.database, session, time.time()) is not None
    assert trueup("feedback people role Ada viewer")[1]["role"] == "viewer"
    assert people.session(workspace.database, session, time.time()) is None
    assert people.person(workspace.database, ada.id).role == "viewer"
    assert trueup("feedback people deactivate --anonymise", ada.judge)[0] == 0
    left = people.person(workspace.database, ada.id)
    assert left.name == ada.judge and not left.active
    assert not (workspace.path / SECRET_FILE).exists(), "forgetting makes no secret"
    code, _, stderr = trueup("feedback people role Adda viewer")
    assert code == 1 and "nobody is called 'Adda'" in stderr


def test_to_be_forgotten_is_to_have_said_nothing_about_oneself(trueup, workspace):
    assert WEB_SECRET == SECRET_FILE
    secret = read_secret(workspace.path / SECRET_FILE)
    for name in ("Ada", "Bea"):
        person = people.add_person(workspace.database, name, "annotator", 0)
        people.set_demographics(workspace.database, secret, person.id, {"age": "30-39"})
    assert people.demographics(workspace.database, 1) == {"age": people.Told({"30-39": 2}, False)}
    assert trueup("feedback people deactivate Ada")[0] == 0
    assert people.demographics(workspace.database, 1) == {"age": people.Told({"30-39": 2}, False)}
    assert trueup("feedback people deactivate Bea --anonymise")[0] == 0
    assert people.demographics(workspace.database, 1) == {"age": people.Told({"30-39": 1}, False)}


def test_the_command_line_leaves_its_traces_in_the_audit_log(trueup, workspace):
    from trueup.store import audit

    trueup("feedback collect --name c --completions drafts")
    trueup("feedback close c")
    trueup("feedback invite")
    actions = [each["action"] for each in audit.entries(workspace.database)]
    assert actions == ["made a collection", "filled a collection", "closed", "invited"]
    assert audit.verify(workspace.database) == []


# Who may do what


def test_rights_grow_with_the_role_except_that_a_viewer_only_looks():
    ladder = ("annotator", "manager", "owner")
    rights = {role: {what for what in RIGHTS if may(role, what)} for role in (*ladder, "viewer")}
    assert rights["annotator"] < rights["manager"] < rights["owner"] == set(RIGHTS)
    assert rights["annotator"] == {"judge"} and rights["viewer"] == {"see progress", "see quality", "see runs"}


def test_nobody_hands_out_more_than_they_have():
    assert may_invite("manager", "annotator") and not may_invite("manager", "manager")
    assert may_invite("owner", "owner") and not may_invite("annotator", "annotator")


def test_a_right_that_is_not_in_the_table_is_a_mistake_and_a_refusal_names_who_may():
    with pytest.raises(KeyError):
        may("owner", "fly")
    with pytest.raises(NotAllowed) as caught:
        require("viewer", "judge")
    assert "viewer may not" in caught.value.message and "owner or manager or annotator" in caught.value.hint
