"""The page on which two models answer a prompt of one's own: who may, what is shown when, and what a vote becomes."""

from __future__ import annotations

import html
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browsing import PAYLOADS
from sites import Client, Site, playwright
from small import add_small_data
from test_trying import FAKE

from trueup import api, trying
from trueup.errors import NotFoundError
from trueup.feedback.freeze import Choice, freeze
from trueup.loading import read_judgements
from trueup.runs import Run, runs
from trueup.store import queue
from trueup.trying import Models, Said, TryingSettings
from trueup.web.trying import LONGEST_PROMPT

expect: Any = playwright().expect
HERE = Path(__file__).parent
USABLE, CONTRAST, FITTING = ((HERE / f"{name}.js").read_text() for name in ("usable", "contrast", "fitting"))
PLAIN = {"system": "", "temperature": "0", "max_new_tokens": "8"}


class Fake:
    """Models that say what a test wants, at once."""

    settings = TryingSettings()

    def __init__(self, say: Callable[[str, str], str]) -> None:
        self.say, self.asked = say, 0

    def ask(self, models: Any, prompt: Any, sampling: Any, seeds: Any) -> list[Said]:
        self.asked += 1
        assert len(set(seeds)) == 2, "each reply is drawn by itself"
        return [Said(self.say(model, prompt.text), finished=True) for model in models]


@pytest.fixture
def two(workspace) -> tuple[str, str]:
    """Two models with names, of which nothing is ever loaded here."""
    made = [workspace.put("model", {"x": name.encode()}, meta={"stage": "sft"}) for name in ("kind", "curt")]
    for name, artifact in zip(("kind", "curt"), made, strict=True):
        workspace.set_name(name, artifact)
    return made[0].id, made[1].id


@pytest.fixture
def tried(site_of_app: Site, two: tuple[str, str]) -> Site:
    """The first model is kind, the second curt."""
    give(site_of_app, lambda model, prompt: f"{'kind' if model == two[0] else 'curt'}ly: {prompt}")
    return site_of_app


def give(site: Site, say: Callable[[str, str], str]) -> Fake:
    site.app.state.site.models = fake = Fake(say)
    return fake


def owner(site: Site, name: str = "Olga") -> Client:
    return site.client(site.person(name, "owner"))


def ask(client: Client, models: tuple[str, str], prompt: str = "hello", **fields: str) -> Any:
    return client.form("/try", a=models[0], b=models[1], prompt=prompt, **{**PLAIN, **fields})


def shown(client: Client, path: str) -> list[str]:
    """The two replies as they were written, in the order of the page."""
    page = client.get(path)
    assert page.status_code == 200
    return [html.unescape(each) for each in re.findall(r'<pre class="raw">(.*?)</pre>', page.text, re.DOTALL)]


def frozen(site: Site) -> list[Any]:
    return read_judgements(freeze(site.workspace, "try-pair", Choice()).artifact)


# The whole way


def test_the_preference_is_right_whatever_order_the_replies_were_shown_in(tried, two):
    client, first = owner(tried), set()
    for turn in range(8):
        path = ask(client, two, f"question {turn}", system="Be brief.").headers["location"]
        replies = shown(client, path)
        first.add(replies[0].split(":")[0])
        page = client.get(path).text
        assert not any(secret in page for secret in (*two, "kind (", "curt (")), "nobody knows yet which is which"
        assert not [each for each in queue.collections(tried.db) if each.name == "try-pair"] or turn
        choice = "first" if replies[0].startswith("kindly") else "second"
        assert client.form(path, choice="same" if turn == 7 else choice).headers["location"] == path
        after = client.get(path).text
        whose = re.findall(r"was (kind|curt) \(sft", after)
        assert [f"{name}ly" for name in whose] == [each.split(":")[0] for each in replies] and "You said:" in after
    assert first == {"kindly", "curtly"}, "the order is drawn anew"
    found = sorted(frozen(tried), key=lambda j: j.prompt.text)
    assert len(found) == 8 and {j.source for j in found} == {"human"}
    for turn, j in enumerate(found):
        assert [m.content for m in j.prompt.messages] == ["Be brief.", f"question {turn}"]
        kind = [text.startswith("kindly") for text in j.completions].index(True)
        assert len(set(j.ranks)) == 1 if turn == 7 else j.ranks[kind] == 1
        assert j.meta["models"][kind] == two[0] and j.meta["models"][1 - kind] == two[1]
        assert j.meta["order"] == [0, 1], "the order that is noted is the one that was shown"
    sources = [each for each in tried.workspace.artifacts("completions") if each.meta.get("source") == "try"]
    assert [set(each.parents.values()) for each in sources] == [set(two)] * 8


@pytest.fixture
def trained(workspace, checkpoint, tmp_path) -> tuple[Any, Run]:
    """A model, and the run that made it with all its checkpoints."""
    add_small_data(workspace, tmp_path, prompts=6)
    made = api.sft(
        workspace, base=str(checkpoint("Llama", 1)), data="demonstrations", heldout=0.0, steps=2, name="tuned",
        optimizer={"lr": 3e-2, "warmup_steps": 0}, model={"adapter": "lora", "device": "cpu"},
        run={"threads": 1, "tensorboard": False, "checkpoint_every": 1},
    )  # fmt: skip
    return made, runs(workspace)[0]


@pytest.mark.timeout(180)
def test_real_models_and_checkpoints_of_a_run(site_of_app, trained):
    made, run = trained
    client, models = owner(site_of_app), site_of_app.app.state.site.models
    page = client.get(f"/try?a={run.id}@1&b=tuned").text
    options = re.findall(r'<option value="([^"]+)"( selected)?>([^<]+)', page)
    assert [ref for ref, _, _ in options if "@" in ref] == [f"{run.id}@2", f"{run.id}@1"] * 2
    assert [ref for ref, chosen, _ in options if chosen] == [f"{run.id}@1", made.id]
    assert f"run {run.id}, step 2" in page and "tuned (sft" in page
    same = ask(client, (f"{run.id}@2", made.id), "the cat").headers["location"]
    told = client.get(same).text
    assert "Both said the same" in told and "was tuned (sft" in told and 'name="choice"' not in told
    assert client.form(same, choice="first").status_code == 400

    path = ask(client, (f"{run.id}@1", made.id), "the cat").headers["location"]
    assert client.form(path, choice="first").headers["location"] == path
    assert "step 1" in client.get(path).text
    models.close()
    (j,) = frozen(site_of_app)
    assert set(j.meta["models"]) == {f"{run.id}@1", made.id}
    (source,) = [a for a in site_of_app.workspace.artifacts("completions") if a.meta.get("source") == "try"]
    assert set(source.parents.values()) == {made.id, *run.row.inputs.values()}
    assert f'"run":"{run.id}"' in (source.path / "rows.jsonl").read_text().replace(": ", ":")


def test_ask_both_something_else_keeps_models_and_settings_and_tells_nothing(tried, two):
    client = owner(tried)
    path = ask(client, two[::-1], "hello", system="Be\r\nbrief.", temperature="0.25", max_new_tokens="33")
    path = path.headers["location"]
    link = re.search(r'href="(/try\?again=[\w-]+)"', client.get(path).text).group(1)
    page = client.get(link).text
    chosen = re.findall(r'<option value="([^"]+)" selected', page)
    assert chosen == list(two[::-1]) and 'value="0.25"' in page and 'value="33"' in page
    assert "Be\nbrief.</textarea>" in page and "hello" not in page
    assert client.get("/try?again=nothing").status_code == 200


def test_the_same_model_twice_is_said_and_may_be_voted_on(tried, two):
    numbers = iter(range(9))
    give(tried, lambda model, prompt: f"reply {next(numbers)}")
    client = owner(tried)
    path = ask(client, (two[0], two[0])).headers["location"]
    assert "You asked the same model twice" in client.get(path).text
    assert client.form(path, choice="second").status_code == 303 and len(frozen(tried)) == 1


# Once, by whom it was asked, and nothing before


def test_a_vote_says_how_long_the_replies_were_looked_at(tried, two):
    client = owner(tried)
    path = ask(client, two).headers["location"]
    tried.clock.offset += 42
    assert client.form(path, choice="first").status_code == 303
    (judged,) = tried.workspace.judgements()
    assert 42 <= judged.meta["seconds"] < 60


def test_a_vote_is_stored_once_even_when_it_is_sent_twice(tried, two):
    client = owner(tried)
    path = ask(client, two).headers["location"]
    assert [each.name for each in queue.collections(tried.db)] == ["titles"], "nothing is stored before"
    assert len(tried.workspace.artifacts("completions")) == 1

    answers: list[int] = []
    clients = [tried.client(client.person) for _ in range(4)]
    sent = [
        threading.Thread(target=lambda c=c: answers.append(c.form(path, choice="first").status_code)) for c in clients
    ]
    for each in sent:
        each.start()
    for each in sent:
        each.join()
    assert answers == [303] * 4 and client.form(path, choice="second").status_code == 303
    assert "You said: The first is better." in client.get(path).text
    assert len(list(tried.workspace.judgements())) == 1


def test_the_very_same_replies_are_judged_once_and_then_told(tried, two):
    client, again = owner(tried), owner(tried, "Otto")
    path = ask(client, two).headers["location"]
    client.form(path, choice="first")
    for each in (client, again):
        other = ask(each, two).headers["location"]
        answer = each.form(other, choice="second")
        assert answer.status_code == 400 and "said that of this reply already" in answer.text
        assert "was kind (sft" in answer.text and 'name="choice"' not in each.get(other).text
    assert len(list(tried.workspace.judgements())) == 1


def test_a_closed_collection_takes_no_vote_and_says_so(tried, two):
    client = owner(tried)
    client.form(ask(client, two).headers["location"], choice="first")
    made = next(each for each in queue.collections(tried.db) if each.name == "try-pair")
    queue.set_status(tried.db, made.id, "closed")
    path = ask(client, two, "another").headers["location"]
    answer = client.form(path, choice="first")
    assert answer.status_code == 400 and "try-pair is closed" in answer.text and "was kind" not in answer.text
    queue.set_status(tried.db, made.id, "open")
    assert client.form(path, choice="first").status_code == 303


def test_replies_are_nobody_elses(tried, two):
    path = ask(owner(tried), two).headers["location"]
    other = owner(tried, "Otto")
    for where in (path, "/try/nothing"):
        assert other.get(where).status_code == 404 and "ask again" in other.get(where).text
        assert other.form(where, choice="first").status_code == 404


def test_only_owners_and_managers_of_the_whole_workspace(tried, two):
    fake = give(tried, lambda model, prompt: model)
    for role in ("annotator", "viewer"):
        client = tried.client(tried.person(role, role))
        assert client.get("/try").status_code == 403 and ask(client, two).status_code == 403
        assert client.get("/try/x").status_code == 403 and client.form("/try/x", choice="first").status_code == 403
        assert "/try" not in client.get("/account").text
    bound = tried.client(tried.person("bound", "manager", tried.collection))
    assert bound.get("/try").status_code == 403 and ask(bound, two).status_code == 403
    assert "/try" not in bound.get("/account").text and fake.asked == 0
    manager = tried.client(tried.person("whole", "manager"))
    assert 'href="/try"' in manager.get("/account").text and manager.get("/try").status_code == 200
    assert ask(manager, two).status_code == 303
    assert tried.client(None).get("/try").headers["location"].startswith("/login")


def test_two_people_at_once_each_judge_their_own(tried, two):
    people = [owner(tried, name) for name in ("Ada", "Bea", "Cea")]
    codes: list[int] = []

    def work(client: Client) -> None:
        for turn in range(5):
            path = ask(client, two, f"{client.person.name} asks {turn}").headers["location"]
            replies = shown(client, path)
            choice = "first" if replies[0].startswith("kindly") else "second"
            codes.append(client.form(path, choice=choice).status_code)

    threads = [threading.Thread(target=work, args=[client]) for client in people]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert codes == [303] * 15
    found = frozen(tried)
    judges = {client.person.judge: client.person.name for client in people}
    assert len(found) == 15 and all(j.prompt.text.startswith(judges[j.judge]) for j in found)
    assert all(j.completions[j.ranks.index(1)].startswith("kindly") for j in found)


# What goes wrong


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": " \n"}, "there is no prompt"),
        ({"prompt": "x" * (LONGEST_PROMPT + 1)}, "at most 20,000 characters"),
        ({"system": "x" * (LONGEST_PROMPT + 1)}, "at most 20,000 characters"),
        ({"temperature": "hot"}, "are numbers"),
        ({"temperature": "nan"}, "from 0 to 5"),
        ({"temperature": "-1"}, "from 0 to 5"),
        ({"max_new_tokens": "0"}, "1 to 2,048 tokens"),
        ({"max_new_tokens": "9" * 5000}, "are numbers"),
        ({"max_new_tokens": "1e3"}, "are numbers"),
        ({"a": "http://127.0.0.1:1/v1#m"}, "no artifact"),
        ({"b": "owner/name"}, "no artifact"),
        ({"b": "titles@1"}, "no run"),
    ],
)
def test_a_form_that_will_not_do_comes_back_with_what_was_typed(tried, two, fields, said):
    fake = give(tried, lambda model, prompt: "x")
    typed = {"a": two[0], "b": two[1], "prompt": "a long & careful prompt", **PLAIN, **fields}
    answer = owner(tried).form("/try", **typed)
    assert answer.status_code in (400, 404) and said in answer.text and fake.asked == 0
    assert html.escape(typed["prompt"]) in answer.text and 'role="alert"' in answer.text


def test_a_checkpoint_that_was_pruned_meanwhile_is_said_and_another_offered(tried, two, workspace):
    run = Run.start(workspace, "sft", {"run": {}}, {"base": workspace.get(two[0])}, seed=0)
    for step in (1, 2, 3):
        run.checkpoint(step, lambda folder: (folder / "weights.safetensors").write_bytes(b"x"))
    client = owner(tried)
    page = client.get(f"/try?a={run.id}@1").text
    assert f"step 1 of {run.id} is gone" in page and f'value="{run.id}@2"' in page and "going on" in page
    answer = ask(client, (f"{run.id}@1", two[0]), "my prompt")
    assert answer.status_code == 404 and "is gone" in answer.text and "my prompt" in answer.text
    assert ask(client, (f"{run.id}@3", two[0])).status_code == 303
    run.interrupted()


def test_models_that_die_hang_or_are_busy_are_said_in_words_and_the_next_prompt_is_answered(tried, two, monkeypatch):
    monkeypatch.setattr(trying, "PROGRAM", FAKE)
    tried.app.state.site.models = models = Models(tried.workspace.path, TryingSettings(seconds=1.0))
    client = owner(tried)
    for words, said in (
        ("killed", "killed by SIGKILL"),
        ("hang", "no answer within 1 seconds"),
        ("fails", "exit code 3"),
        ("garbage", "is no answer"),
    ):
        answer = ask(client, two, words)
        assert answer.status_code == 503 and said in answer.text and f"{words}</textarea>" in answer.text
        assert ask(client, two, "hello").status_code == 303
    answer = ask(client, two, "full")
    assert answer.status_code == 400 and "memory ran out" in answer.text
    models._turn.acquire()
    answer = ask(client, two, "hello")
    assert answer.status_code == 503 and "still answering somebody else" in answer.text
    models._turn.release()
    models.close()


def test_a_workspace_without_models_says_so(site_of_app):
    page = owner(site_of_app).get("/try")
    assert page.status_code == 200 and "no model and no checkpoint" in page.text and 'action="/try"' not in page.text


# In a browser


@pytest.fixture
def served(serve: Callable[..., Site], two: tuple[str, str]) -> Site:
    return serve()


ELEMENTS = "script, img, style, link, meta, iframe, svg, a[href^=javascript]"
STORY = "The **council** met:\n\n1. bridges\n2. `lorries`\n\n" + "and nobody could say how it had come to that. " * 12


@pytest.mark.parametrize(
    ("size", "width", "height"), [("phone", 390, 844), ("desktop", 1280, 800), ("narrow", 320, 640)]
)
def test_by_keyboard_at_every_width_and_for_everybody(served, two, open_page, tmp_path, size, width, height):
    give(served, lambda model, prompt: STORY if model == two[0] else "They closed it.")
    page = open_page(served, served.person("Olga", "owner"), width, height)
    wrong: dict[str, Any] = {}

    def look(name: str) -> None:
        page.wait_for_load_state()
        wrong[f"{name} usable"], wrong[f"{name} fitting"] = page.evaluate(USABLE), page.evaluate(FITTING)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            wrong[f"{name} {scheme}"] = page.evaluate(CONTRAST)
        page.emulate_media(color_scheme="light")
        page.screenshot(path=f"/tmp/try-{size}-{name}.png", full_page=True)

    page.goto(f"{served.url}/try?a=kind&b=curt")
    look("form")
    page.get_by_label("Prompt").focus()
    page.keyboard.type("What did the council decide?")
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ask both")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Which reply is better?")).to_be_visible()
    look("replies")
    better = "The first is better" if "council" in page.locator(".replies .said").first.inner_text() else None
    page.get_by_role("button", name=better or "The second is better").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("You said:")
    expect(page.locator(".whose").first).to_contain_text("was ")
    look("voted")
    page.get_by_role("link", name="Ask both something else").click()
    expect(page.get_by_label("One model")).to_have_value(two[0])
    ask_nothing(page)
    assert {name: each for name, each in wrong.items() if each} == {}
    (found,) = frozen(served)
    assert found.completions[found.ranks.index(1)] == STORY


def ask_nothing(page: Any) -> None:
    """The browser itself keeps an empty form back."""
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_label("Prompt")).to_be_focused()


def test_while_the_models_write_the_page_says_so_and_is_not_sent_twice(served, two, open_page):
    fake = give(served, lambda model, prompt: model)
    page = open_page(served, served.person("Olga", "owner"))
    page.goto(f"{served.url}/try")
    page.evaluate("document.getElementById('trying').addEventListener('submit', (e) => e.preventDefault())")
    page.get_by_label("Prompt").fill("hello")
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_role("button", name="Ask both")).to_be_disabled()
    expect(page.get_by_role("status")).to_contain_text("writing")
    page.reload()
    page.get_by_label("Prompt").fill("hello")
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_role("button", name="The same")).to_be_visible()
    assert fake.asked == 1
    page.go_back()
    expect(page.get_by_role("button", name="Ask both")).to_be_enabled()


def test_it_works_without_script(served, two, open_page):
    give(served, lambda model, prompt: model)
    page = open_page(served, served.person("Olga", "owner"), java_script_enabled=False)
    page.goto(f"{served.url}/try")
    page.get_by_label("Prompt").fill("hello")
    page.get_by_role("button", name="Ask both").click()
    page.get_by_role("button", name="The same").click()
    expect(page.get_by_role("status")).to_contain_text("They are equally good.")


def test_hostile_prompts_and_replies_are_inert_and_can_be_seen(served, two, open_page):
    page = open_page(served, served.person("Olga", "owner"))
    for number, payload in enumerate(PAYLOADS):
        typed = payload.encode(errors="replace").decode().replace("\0", "").replace("\x07", "")
        give(served, lambda model, prompt, payload=payload: f"{payload} {model[:4]}")
        page.goto(f"{served.url}/try")
        page.get_by_label("System message").fill(typed)
        page.get_by_label("Prompt").fill(f"{typed} {number}")
        page.get_by_role("button", name="Ask both").click()
        expect(page.get_by_role("heading", name="Which reply is better?")).to_be_visible()
        main = page.locator("#main")
        assert page.evaluate("window.pwned") is None
        assert page.locator("#main").evaluate("(node, found) => node.querySelectorAll(found).length", ELEMENTS) == 0, (
            payload
        )
        for place in main.locator("details").all():
            place.locator("summary").click()
        visible = main.inner_text()
        for part in ("window.pwned", "7*7", "evil.example", "U+202E", "U+200B", "[red]"):
            if part in payload or (part.startswith("U+") and chr(int(part[2:], 16)) in payload):
                assert part in visible, (part, payload)
        assert page.evaluate(FITTING) == [], payload
        if "\0" not in payload:
            page.get_by_role("button", name="The same").click()
            expect(page.get_by_role("status")).to_contain_text("Stored")
            assert page.evaluate("window.pwned") is None


def test_nothing_but_words_for_what_is_gone(tried, two):
    with pytest.raises(NotFoundError):
        tried.app.state.site.tried.get("nobody", "x")
    began = time.monotonic()
    assert owner(tried).get(f"/try?a={'x' * 3000}&b=%F0%9F%92%A9@1&again={'y' * 3000}").status_code in (200, 404)
    assert time.monotonic() - began < 5
