"""`trueup chat`: replies, thumbs, edits and choices, and what becomes of them."""

from __future__ import annotations

import json

import pytest
from chat_server import chat_server
from click.testing import CliRunner
from small import add_small_data

from trueup import api, voting
from trueup.chatting import Chat, Speaker, _reply
from trueup.cli.main import root
from trueup.config import Sampling
from trueup.engines import shared_base
from trueup.engines.fake import FakeEngine
from trueup.errors import DataError, ModelError
from trueup.feedback.freeze import Choice, freeze
from trueup.loading import read_judgements
from trueup.models.load import load_model
from trueup.records import FAILED, Completion
from trueup.store import queue


def speaker(ws, name, say):
    artifact = ws.put("model", {"name": name.encode()})
    ws.set_name(name, artifact)
    return Speaker(name, artifact.id, FakeEngine(lambda prompt, random: say(prompt)))


@pytest.fixture
def chat(workspace):
    polite = speaker(workspace, "polite", lambda prompt: f"thank you for {prompt.text} ({len(prompt.messages)})")
    return Chat(workspace, [polite], Sampling())


@pytest.fixture
def two(workspace):
    both = [speaker(workspace, name, lambda prompt, name=name: f"{name}: {prompt.text}") for name in ("kind", "curt")]
    return Chat(workspace, both, Sampling(), name="duel", system="Be brief.")


def frozen(ws, collection, kind="preferences"):
    return freeze(ws, collection, Choice(kind=kind)).artifact


def test_a_conversation_remembers_what_was_said(chat):
    assert chat.say("one") == ["thank you for one (1)"] and chat.say("two") == ["thank you for two (3)"]
    assert [m.role for m in chat.messages] == ["user", "assistant", "user"]
    chat.anew()
    assert chat.say("three") == ["thank you for three (1)"]


def test_thumbs_and_edits_become_judgements_like_all_others(chat, workspace):
    chat.say("one")
    chat.thumb(True)
    with pytest.raises(DataError, match="said that of this reply already"):
        chat.thumb(False)
    chat.edit("much better")
    assert chat.say("two") == ["thank you for two (3)"] and chat.messages[1].content == "much better"
    chat.thumb(False)
    (up, down) = read_judgements(frozen(workspace, "chat-thumbs", "unpaired"))
    assert (up.ratings["thumb"], down.ratings["thumb"]) == ((1.0,), (0.0,)) and up.source == "human"
    assert up.completions == ("thank you for one (1)",) and down.prompt.messages[1].content == "much better"
    (edit,) = [
        j for j, _ in queue.current_judgements(workspace.database, queue.collection(workspace.database, "chat-edit").id)
    ]
    assert edit.completions[-1] == "much better" and edit.ranks[-1] < edit.ranks[0], "what they wrote is the better one"
    made = freeze(workspace, "chat-edit", Choice(kind="demonstrations")).artifact
    assert '"completion": "much better"' in (made.path / "rows.jsonl").read_text()


def test_a_judgement_says_how_long_the_replies_were_looked_at(two, workspace):
    """Also longer than the lease of an item, and a second one of the same replies."""
    clock = [1000.0]
    two.now = lambda: clock[0]
    for said, looked in (("one", 7.5), ("two", 90_000.0)):
        two.say(said)
        clock[0] += looked
        two.prefer(0)
        clock[0] += 1
    judged = read_judgements(frozen(workspace, "duel-pair"))
    assert sorted(j.meta["seconds"] for j in judged) == [7.5, 90_000.0]


def test_odd_words_end_no_conversation(workspace, checkpoint):
    lines = ["/temperature inf", "/temperature nan", "/edit", "hello", "/edit"]
    done = talk(workspace, [str(checkpoint("Llama")), "--max-new-tokens", "4", "--threads", "1", "--keep"], lines)
    assert done.stderr.count("a temperature is a number") == 2 and "say the text: /edit TEXT" in done.stderr


def test_of_two_the_better_one_is_chosen_without_knowing_whose_it_is(two, workspace):
    orders = set()
    for turn in range(6):
        replies = two.say(f"question {turn}")
        orders.add(replies[0].split(":")[0])
        assert two.shown[0][1].prompt.messages[0].content == "Be brief."
        two.prefer(next(i for i, text in enumerate(replies) if text.startswith("kind")))
        assert two.messages[-1].content == f"kind: question {turn}", "it goes on with what was chosen"
    assert orders == {"kind", "curt"}, "the first is not always the same model"
    two.say("last")
    two.prefer(None)
    found = read_judgements(frozen(workspace, "duel-pair"))
    kind = [j.ranks[[text.startswith("kind") for text in j.completions].index(True)] for j in found]
    assert kind == [1] * 7 and [len(set(j.ranks)) for j in found] == [2] * 6 + [1], "the last is a tie"
    assert set(found[0].meta["models"]) == {workspace.get("kind").id, workspace.get("curt").id}


def test_a_choice_that_was_left_open_is_passed_over(two, workspace):
    two.say("one")
    before = two.shown
    two.prefer(0)
    name = queue.collection(workspace.database, "duel-pair").id
    two.shown, two.messages = before, two.messages[:1]
    two.say("two")
    item = voting.as_item(workspace, two._occasion, [_reply(*each) for each in two.shown])
    queue.add_items(workspace.database, name, [item], 0.0)  # as a kill between asking and answering leaves it
    two.say("three")
    two.prefer(1)
    assert [j.prompt.text for j in read_judgements(frozen(workspace, "duel-pair"))] == ["one", "three"]


def test_what_cannot_be_said_is_an_error_and_changes_nothing(workspace):
    same = [speaker(workspace, name, lambda prompt: "yes") for name in ("a", "b")]
    chat = Chat(workspace, same, Sampling())
    chat.say("one")
    with pytest.raises(DataError, match="both said the same"):
        chat.prefer(0)

    class Gone(FakeEngine):
        def sample(self, prompts, sampling, *, seed, n=1):
            return [Completion(p, "", finished=False, meta={FAILED: "no connection"}) for p in prompts]

    lost = Chat(workspace, [Speaker("x", same[0].artifact, Gone())], Sampling())
    with pytest.raises(ModelError, match="x gives no reply: no connection"):
        lost.say("hello")
    assert lost.messages == [] and lost.shown == []


def talk(ws, words, lines):
    words = ["--workspace", str(ws.path), "chat", *words]
    done = CliRunner().invoke(root, words, input="\n".join(lines) + "\n", standalone_mode=False)
    assert done.exception is None, done.exception
    return done


def test_in_the_terminal_with_a_real_model(workspace, checkpoint):
    folder, other = str(checkpoint("Llama")), str(checkpoint("Llama", 1))
    short = ["--max-new-tokens", "8", "--threads", "1"]
    lines = [
        "the cat",
        "/up",
        "n",
        "/up",
        "y",
        "/edit sat on a mat",
        "/temperature 0",
        "/temperature x",
        f"/model {other}",
        "sang",
    ]
    done = talk(workspace, [folder, *short], [*lines, "/1", "/nonsense", "/new", "/quit"])
    assert done.stdout.count(f"{folder}: ") == 1 and done.stdout.count(f"{other}: ") == 1
    for said in ("nothing is stored", "the conversation goes on with your text", "temperature 0", "begun anew"):
        assert said in done.stderr, said
    for said in ("a number of at least 0", "with one model: /up", "there is no /nonsense"):
        assert said in done.stderr, said
    assert done.stderr.count("be stored in the workspace") == 2 and len(done.return_value.data["judgements"]) == 2
    names = {each.name for each in queue.collections(workspace.database)}
    assert names == {"chat-thumbs", "chat-edit"}, "nothing was stored before it was agreed to"
    thumb = read_judgements(frozen(workspace, "chat-thumbs", "unpaired"))[0]
    model = workspace.get(thumb.meta["models"][0])
    assert model.kind == "external" and model.meta["source"] == folder


def test_two_models_in_the_terminal_with_json(workspace, checkpoint):
    with chat_server(lambda question, number: "\x1b[31mred \u202eback") as server:
        words = [server.url, str(checkpoint("Llama")), "--max-new-tokens", "6", "--keep", "--json", "--threads", "1"]
        done = talk(workspace, words, ["hello", "/2", "/up"])
    assert done.stdout == "", "what is said goes to stderr: stdout is for the JSON"
    assert "\x1b" not in done.stderr and "\\x1b[31mred \\x202eback" in done.stderr
    assert "1 was " in done.stderr and "there is no reply to judge yet" in done.stderr
    found = json.loads(json.dumps(done.return_value.data))
    assert found["turns"] == 1 and len(found["judgements"]) == 1
    assert [m["role"] for m in found["messages"]] == ["user", "assistant"]


def test_a_conversation_too_long_loses_its_oldest_messages_and_says_so(workspace, checkpoint):
    lines = ["the cat sat on a mat and the dog ran to the red house"] * 6 + ["x " * 400]
    done = talk(workspace, [str(checkpoint("Llama")), "--max-new-tokens", "20", "--threads", "1"], lines)
    assert "messages did not fit and are no longer seen" in done.stderr
    assert "that does not fit into the 96 tokens" in done.stderr


def test_each_of_two_models_may_be_replaced_and_a_reply_stays_with_who_gave_it(workspace, checkpoint):
    """What waits for a choice was said by the model before; names come only after a choice."""
    folder, other = str(checkpoint("Llama")), str(checkpoint("Llama", 1))
    with chat_server(lambda question, number: f"words {number}") as server:
        lines = ["hello", f"/model 2 {other}", "/1", "again", "/model 2 nothing-of-that-name", "/2"]
        done = talk(workspace, [server.url, folder, "--max-new-tokens", "6", "--keep", "--threads", "1"], lines)
    assert f"now {other} in place of the second; the conversation goes on" in done.stderr
    assert "error: " in done.stderr, "a model that is not there changes nothing"
    before, after = (line for line in done.stderr.splitlines() if " was " in line)
    assert folder in before and other not in before and other in after and folder not in after
    assert server.url in before and server.url in after
    judged = read_judgements(frozen(workspace, "chat-pair"))
    sources = [{workspace.get(model).meta["source"] for model in j.meta["models"]} for j in judged]
    assert [folder in found for found in sources] == [True, False]
    assert [other in found for found in sources] == [False, True]


def test_replies_stay_shuffled_after_a_switch(two, workspace):
    two.say("one")
    two.speakers[1] = speaker(workspace, "new", lambda prompt: f"new: {prompt.text}")
    first = [two.say(f"question {turn}")[0].split(":")[0] for turn in range(8)]
    assert set(first) == {"kind", "new"}


def test_switching_says_what_is_missing(workspace, checkpoint):
    folder = str(checkpoint("Llama"))
    done = talk(workspace, [folder, "--threads", "1"], ["/model", f"/model 2 {folder}", f"/model 1 {folder}"])
    assert "name a model: /model REF, or /model 2 REF" in done.stderr
    assert "there is one model: start with two" in done.stderr
    assert f"now {folder}; the conversation goes on" in done.stderr, "with one, 1 is the only one"


def test_adapters_on_one_base_are_switched_and_not_loaded(workspace, checkpoint, tmp_path, monkeypatch):
    add_small_data(workspace, tmp_path)
    folder, loaded = str(checkpoint("Llama")), []
    for seed, name in enumerate(("one", "two", "three")):
        api.sft(
            workspace, base=folder, data="demonstrations", name=name, steps=1,
            run={"threads": 1, "tensorboard": False, "seed": seed}, model={"adapter": "lora", "device": "cpu"},
        )  # fmt: skip
    monkeypatch.setattr(shared_base, "load_model", lambda *a: loaded.append(a) or load_model(*a))
    lines = ["hello", "/model 2 three", "again", f"/model {folder}", "and again"]
    done = talk(workspace, ["one", "two", "--max-new-tokens", "4", "--threads", "1"], lines)
    assert done.return_value.data["turns"] == 3 and "error" not in done.stderr
    assert len(loaded) == 1
