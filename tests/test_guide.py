"""The guide: every command on its pages runs, in the order of the pages, in one workspace; its pictures and links hold.

The commands are those of the pages, word for word; every line of every ```bash block is run and counted. `QUICK` says
what is appended so that models are tiny and steps few. The id of a run and the address of a server, which no page can
know, are put in by `Followed.line`. Files are those that a page shows, and else those of `own_files`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx2 as httpx
import pytest
from chat_server import chat_server
from small import SENTENCES

from trueup.cli import main as cli
from trueup.runs import runs
from trueup.store import Workspace

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(GUIDE.glob("*.md"))}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
BLOCK = re.compile(r"(?:^`([\w.-]+)`[^`\n]*:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST_PAGE, LARGEST_PICTURE = 90, 60_000

# What is appended to a command that begins so, for size and speed alone; all that fit, in this order.
TWO_STEPS = "--set steps=2 --set optimizer.warmup_steps=0 --set run.threads=1 --set run.tensorboard=false"
SHORT = "--threads 1 --set sampling.max_new_tokens=8"
QUICK = {
    "data world": "--pretraining 60 --demonstrations 40 --prompts 20 --posts 20 --heldout 12",
    "train": TWO_STEPS,
    "train pretrain": "--set architecture.hidden=32 --set architecture.layers=2 --set architecture.heads=2 "
    "--set architecture.mlp=48 --set architecture.vocabulary=400 --set run.evaluate_every=1",
    "train rl": "--set prompts_per_step=4 --set samples_per_prompt=2 --set guard.evaluation_prompts=4 "
    "--set run.evaluate_every=1 --set sampling.max_new_tokens=8 --steps 3",
    "sample": SHORT,
    "eval winrate": SHORT,
    "eval compare": SHORT,
    "eval safety": SHORT,
    "eval overopt": "--threads 1",
    "eval reward": "--threads 1",
    "eval reward ": "--probes 4",
    "feedback learning": f"--seeds 2 {TWO_STEPS}",
    "chat": "--max-new-tokens 4 --threads 1",
    "label": "--no-browser",
    "watch": "--no-browser",
}
REFUSES = "--gate"  # a command with this may exit with 1: models of two steps are refused, and it has to say so
CHAT = "My aunt cracked my vase.\n/1\ny\nAnd now?\n/quit\n"
PASSWORD = "correct horse battery staple"


def order() -> list[str]:
    """The pages as the map names them, itself first."""
    linked = [target for _, _, target in LINK.findall(PAGES["README.md"])]
    return list(dict.fromkeys(["README.md", *(target for target in linked if target in PAGES)]))


def command_lines(page: str) -> list[str]:
    """Every line of its ```bash blocks that is not empty, lines that go on put together, comments left out."""
    bodies = [body.replace("\\\n", " ") for _, language, body in BLOCK.findall(PAGES[page]) if language == "bash"]
    lines = [re.sub(r"(?<!\S)#.*", "", line).strip() for body in bodies for line in body.splitlines()]
    return [line for line in lines if line]


# What the pages take for granted


def own_files(folder: Path, model: Path) -> None:
    """The files of somebody who has material of their own."""
    rows = [{"prompt": f"{text} {i}"} for i, text in enumerate(SENTENCES)]
    answered = [{**row, "completion": f"the cat sat on {i} mats"} for i, row in enumerate(rows)]
    files = {"posts": rows[:8], "more-posts": rows[8:14], "test-posts": rows[14:], "demonstrations": answered}
    for name, each in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each), encoding="utf-8")
    asked = [f"{i},How do I {verb} the rain?,type,{label},,," for i, (verb, label) in enumerate(ASKED)]
    header = "id,prompt,type,label,focus,note,x"
    (folder / "xstest_prompts.csv").write_text("\n".join([header, *asked]) + "\n", encoding="utf-8")
    shutil.copytree(model, folder / "my-model")


ASKED = [("stop", "safe"), ("poison", "unsafe"), ("catch", "safe"), ("steal", "unsafe")]


class Followed:
    """Somebody who follows the guide in a folder, command by command."""

    def __init__(self, folder: Path, server: str, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.server, self.patch = folder, server, patch
        self.ran: list[str] = []
        self.said: dict[str, str] = {}
        self.invitations: dict[str, str] = {}

    def page(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        for file, _, body in BLOCK.findall(PAGES[name]):
            if file:
                (self.folder / file).write_text(body, encoding="utf-8")
        for line in command_lines(name):
            self.line(line, capsys)
            self.ran.append(line)

    def line(self, line: str, capsys: pytest.CaptureFixture[str]) -> None:
        line_here = line.replace("$PWD", str(self.folder)).replace("@40", "@2")  # runs are three steps long here
        words = shlex.split(re.sub(r"\b([A-Z]+)-RUN\b", self.run_id, line_here))
        if words[0] == "export":
            self.patch.setenv(*words[1].split("=", 1))
            return
        assert words[0] == "trueup", f"nobody here knows how to run {line}"
        words = [re.sub(r"^http://127\.0\.0\.1:8000/v1#\w+$", self.server, word) for word in words[1:]]
        given = [more for begin, more in QUICK.items() if " ".join(words).startswith(begin)]
        words += [word for more in given for word in more.split()]
        if words[0] in ("label", "watch"):
            self.serve(words)
            return
        self.patch.setattr(sys, "stdin", io.StringIO(CHAT))
        capsys.readouterr()
        code = cli.run(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        refused = code == 1 and REFUSES in words and "error: the reward model fails" in err
        assert code == 0 or refused, f"{line}\nwith {' '.join(words)}\n{err}"
        self.said[line] = out
        if line.startswith("trueup feedback invite"):
            (token,) = re.findall(r"invite/([\w-]+)", out)
            self.invitations[words[words.index("--collection") + 1]] = token

    def run_id(self, named: re.Match[str]) -> str:
        """RL-RUN is the last run of stage rl, as a reader would copy it from `trueup runs list`."""
        with Workspace.open(os.environ["TRUEUP_WORKSPACE"]) as ws:
            return [run.id for run in runs(ws) if run.stage == named[1].lower()][-1]

    # Servers, and people

    def serve(self, words: list[str]) -> None:
        """The app is opened as the page says and asked for its first page; where there is something to judge, the owner
        and two who were invited do so; Ctrl-C ends it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "trueup", *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_ctrl_c_stops,
        )
        try:
            said = "".join(iter_until(process.stderr, "Ctrl-C stops"))
            address = re.search(r"open (http\S+)", said)
            assert address, said
            with client(address[1]) as owner:
                first = owner.get(address[1])
                assert first.status_code == 200 and "token=" not in str(first.url), "the start link lets its owner in"
                if words[0] == "label":
                    self.judge(words[1], owner, first.url.path)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()

    def judge(self, collection: str, owner: httpx.Client, place: str) -> None:
        judged = work(owner, place)
        token = self.invitations.get(collection, "")
        for name in ("ada", "bo") if token else ():
            with client(str(owner.base_url)) as guest:
                joined = guest.get(f"/invite/{token}")
                sent = {"token": form_token(joined.text), "name": name, "password": PASSWORD}
                assert guest.post(f"/invite/{token}", data=sent, headers=OWN_PAGE).status_code == 200
                judged += work(guest, place)
        assert judged > 5, f"nobody had much to judge in {collection}"


OWN_PAGE = {"sec-fetch-site": "same-origin", "origin": "null"}  # as a browser sends a form of our own pages


def _ctrl_c_stops() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def iter_until(stream: Any, word: str) -> Iterator[str]:
    for line in stream:
        yield line
        if word in line:
            return


@contextmanager
def client(start: str) -> Iterator[httpx.Client]:
    base = start.partition("/start")[0]
    with httpx.Client(base_url=base, follow_redirects=True, timeout=60) as made:
        yield made


def form_token(page: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', page)
    assert found, page
    return found[1]


def work(person: httpx.Client, place: str) -> int:
    """Read the guideline, then judge until nothing is left: the shorter one is better. Returns how many."""
    collection = "/".join(place.split("/")[:3])
    page = person.get(collection)
    if str(page.url).endswith("/guideline"):
        person.post(f"{collection}/guideline/seen", data={"token": form_token(page.text)}, headers=OWN_PAGE)
    done, view = 0, person.get(f"{collection}/next").json()
    headers = {"sec-fetch-site": "same-origin", "x-trueup": "1", "origin": str(person.base_url).rstrip("/")}
    while "assignment" in view:
        first, second = map(len, view["completions"])
        given = {"choice": -2 if first < second else 2 if second < first else 0, "active_ms": 9000}
        sent = {"key": f"{view['assignment']}-{done}", "answer": given}
        reply = person.post(f"/a/{view['assignment']}/answer", json=sent, headers=headers)
        assert reply.status_code == 200, reply.text
        done, view = done + 1, reply.json()["next"] or {}
    return done


# The commands


@pytest.mark.timeout(300)
def test_every_command_of_the_guide_runs_in_its_order(tmp_path, monkeypatch, checkpoint, capsys):
    own_files(tmp_path, checkpoint("Llama"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    with chat_server(lambda question, number: "Verdict: 1") as server:
        reader = Followed(tmp_path, server.url, monkeypatch)
        for page in order():
            reader.page(page, capsys)
    assert reader.ran == [line for page in order() for line in command_lines(page)]
    assert len(reader.ran) == sum(len(command_lines(page)) for page in PAGES) > 60
    looked_at(reader, tmp_path)


def looked_at(reader: Followed, folder: Path) -> None:
    """That what ran did what the pages say it does, at a few places where exit code 0 would not show it."""
    assert "human" in reader.said["trueup lineage prefs"], "the set that people made names them"
    by_people = "trueup eval winrate tuned sft --prompts heldout --judge people:which --guideline titles.md"
    assert "won" in reader.said[by_people], "the second call tells what people said"
    assert (
        (folder / "overopt.svg").is_file() and (folder / "tuned.html").is_file() and any((folder / "plots").iterdir())
    )
    assert (folder / "tuned-model" / "README.md").is_file() and (folder / "sft-merged" / "model.safetensors").is_file()


def test_a_command_that_does_not_work_is_noticed(tmp_path, monkeypatch, capsys):
    reader = Followed(tmp_path, "", monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    reader.line("trueup init work", capsys)
    reader.line("export TRUEUP_WORKSPACE=$PWD/work", capsys)
    for wrong in (
        "trueup train sft --base nothing --data nothing",
        "trueup lineagge x",
        "trueup runs list --all",
        "ls",
    ):
        with pytest.raises(AssertionError):
            reader.line(wrong, capsys)


# The pages


def test_commands_stand_where_they_are_run():
    """A command in another kind of block is one that a test cannot run: there it needs a hub."""
    elsewhere = [
        line
        for text in PAGES.values()
        for _, language, body in BLOCK.findall(text)
        for line in body.splitlines()
        if language != "bash" and line.startswith("trueup ")
    ]
    assert elsewhere == ["trueup train sft --base HuggingFaceTB/SmolLM2-135M --data demos --name sft"]


def test_every_page_is_reached_from_the_map_and_is_short():
    assert set(order()) == set(PAGES) and len(PAGES) == 15
    assert {name: text.count("\n") for name, text in PAGES.items() if text.count("\n") >= LONGEST_PAGE} == {}


def test_the_numbers_that_stand_nowhere_else_are_those_that_were_measured():
    found = json.loads((GUIDE / "figures.json").read_text(encoding="utf-8"))
    rules, plan = PAGES["majority-mean-or-model.md"], PAGES["how-many-judgements.md"]
    people, gamed = PAGES["choosing-people.md"], PAGES["is-my-reward-gamed.md"]
    for pair, page in zip(found["reward_models"], (rules, rules, people, plan), strict=True):
        assert all(f"{mean:.3f}" in page for mean in pair["mean"].values()) and f"{pair['seeds'][0]['n']:,}" in page
        seeds = {way: ", ".join(f"{each[way]:.3f}" for each in pair["seeds"]) for way in pair["mean"]}
        assert page is people or all(each in page for each in seeds.values()), seeds
    for rule, page in (("raw", plan), ("majority", plan)):
        about = found["labels"][rule]
        assert f"{about['value']:.1%}" in page and f"n = {about['n']:,}" in page
    gold, shipped = found["overopt"]["curves"]["gold"]["mean"], found["overopt"]["ship"]["step"]
    assert all(f"{value:.2f}" in gamed for value in (gold[0], max(gold), gold[-1])) and f"rollout {shipped}" in gamed
    assert f"{found['agreement']['percent']['value']:.1%}" in plan
    assert found["learning"]["message"].rstrip(".") in " ".join(plan.split())


def flowing(page: str) -> str:
    """Without the ends of lines, which may fall within what is quoted."""
    return " ".join(PAGES[page].split())


def test_the_numbers_of_the_demo_are_those_that_it_found():
    found = json.loads((GUIDE / "figures.json").read_text(encoding="utf-8"))["demo"]
    assert not any("one thread" in page for page in PAGES.values()) and not any(found["threads"].values())
    sampled, greedy, best = (f"{each['value']:.1%}" for each in found["win_rates"])
    evaluated = f"{sampled} against SFT sampled, {greedy} against SFT greedy, {best} against the best of eight"
    assert evaluated in flowing("evaluate.md") and f"n = {found['win_rates'][0]['n']:,} held-out posts" in (
        flowing("evaluate.md")
    )
    assert ", ".join(each[:-1] for each in (sampled, greedy)) + f" and {best}" in flowing("README.md")

    page, (used, plain) = flowing("reward.md"), found["reward_models"]
    assert f"{used['accuracy']:.1%} with likelihood features, {plain['accuracy']:.1%} with a plain head" in page
    assert f"the ceiling is {used['ceiling']:.1%}" in page and f"where {used['ceiling']:.1%} is the most" in page
    assert found["audit"] in page and "(75.8% to 79.6%)" in found["audit"]
    assert f"n = {used['n']:,} held-out judgements" in page
    assert f"reaches {used['accuracy'] / used['ceiling']:.0%} of its ceiling" in page

    page, drawn = flowing("sample.md"), found["candidates"]
    assert f"gold score of {drawn['n']:,} candidates" in page and f"the mean {drawn['gold']:.2f}]" in page
    assert f"{drawn['posts']:,} posts, n = {drawn['n']:,}" in page and drawn["n"] == 4 * drawn["posts"]

    page, learnt = flowing("sft.md"), found["sft"]
    first, *_, last = learnt["heldout"]
    assert (
        f"from {learnt['heldout'][first]:.2f} at step {first} to {learnt['heldout'][last]:.2f} at step {last}" in page
    )
    assert f"{learnt['rows']:,} demonstrations, {learnt['batch']} a step" in page
    page, learnt = flowing("pretrain.md"), found["pretrain"]
    assert f"training from {learnt['training'][0]:.0f} to {learnt['training'][1]:.1f} nats" in page
    assert f"{learnt['steps']} steps" in page

    page, climbed = flowing("rl.md"), found["rl"]
    assert f"the score rises from 0 to about {climbed['score'][1]:.1f}" in page and abs(climbed["score"][0]) < 0.2
    assert f"gold from about {climbed['gold'][0]:.1f} to {climbed['gold'][1]:.1f}" in page
    assert f"the KL to about {climbed['kl'][1]:.1f} nats" in page
    assert f"{climbed['steps']} rollouts of n = {climbed['n']} completions" in page

    hours = f"{found['judgements'] * 30 / 3600:.0f} hours"
    assert f"{found['judgements']:,} simulated judgements" in flowing("sft-or-rlhf.md")
    assert f"At 30 seconds each that would be {hours}" in flowing("sft-or-rlhf.md")


def test_the_climb_of_a_weak_reward_model_is_told_as_it_was():
    found = json.loads((GUIDE / "figures.json").read_text(encoding="utf-8"))
    page, climb = flowing("is-my-reward-gamed.md"), found["overopt"]
    steps, n = climb["steps"], climb["n"]
    proxy, gold, judge = (climb["curves"][name] for name in ("proxy", "gold", "reward"))
    assert f"The score rose from {proxy['mean'][0]:.2f} to {proxy['mean'][-1]:.2f} and never turned" in page
    assert proxy["peak"]["place"] == len(steps) - 1 and f"n = {n} held-out posts" in page
    for curve in (gold, judge):
        top = curve["peak"]["place"]
        assert f"{_with_interval(curve, top)} at rollout {steps[top]}" in page, "at its highest"
        assert f"{_with_interval(curve, -1)} at the end" in page
    assert f"Gold went from {gold['mean'][0]:.2f} to" in page and f"{judge['mean'][0]:.2f} at the start" in page
    shipped = judge["peak"]["place"]
    assert f"shipped rollout {steps[shipped]}, where gold was {gold['mean'][shipped]:.2f}" in page
    says = found["demo"]["doctor"]["kl-too-loose"]
    assert f"fault kl-too-loose {says}" in page and "174 nats" in says and "gained 7.2" in says


def _with_interval(curve: dict[str, Any], at: int) -> str:
    return f"{curve['mean'][at]:.2f} [{curve['low'][at]:.2f}, {curve['high'][at]:.2f}]"


def test_every_picture_is_there_used_told_in_words_and_small():
    there = {path.name: path for path in (GUIDE / "pictures").iterdir()}
    used = [(alt, target) for text in PAGES.values() for mark, alt, target in LINK.findall(text) if mark]
    assert {f"pictures/{name}" for name in there} == {target for _, target in used}
    assert all(len(alt.split()) > 8 for alt, _ in used), "who does not see it is told what it shows"
    for text in PAGES.values():
        assert len(re.findall(r"\]\(pictures/[\w-]+\.svg\)\n\n\*", text)) == text.count("](pictures/"), "a caption each"
    for path in there.values():
        drawing = path.read_text(encoding="utf-8")
        assert len(drawing) < LARGEST_PICTURE and ElementTree.fromstring(drawing).tag.endswith("svg")
        assert not re.search(r"<script|https?://(?!www\.w3\.org/)|url\(|@import|<image", drawing), "nothing to load"
        assert "prefers-color-scheme:dark" in drawing, "it is read on dark pages too"
