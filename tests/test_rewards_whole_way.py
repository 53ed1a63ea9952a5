"""Reward models from odd and other data, as somebody types it: bad pairs, verdicts, demonstrations, trade-offs."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from small import WORDS, settings

from trueup import api
from trueup.cli.main import main
from trueup.loading import put_records, read_judgements
from trueup.records import Completion, Judgement, Prompt
from trueup.runs import runs
from trueup.store import Workspace

SMALL = {"hidden": 32, "layers": 1, "heads": 2, "mlp": 48, "vocabulary": 320, "context": 96}
QUICK = ("--steps", "3", "--threads", "1", "--set", "run.tensorboard=false")
PROBED = ("--threads", "1", "--probes", "5")
CHANCE = random.Random(0)


def words(count: int) -> str:
    return " ".join(CHANCE.choice(WORDS) for _ in range(count))


def rainy(i: int) -> dict[str, str]:
    return {"prompt": f"{words(3)} {i}", "chosen": words(3) + " rain", "rejected": words(4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("odd")
    with Workspace.create(path / "workspace") as ws:
        rows = [{"prompt": f"{words(3)} {i}", "completion": words(4)} for i in range(40)]
        (path / "demos.jsonl").write_text("\n".join(map(json.dumps, rows)))
        api.add_data(ws, str(path / "demos.jsonl"), "demonstrations", name="demos")
        api.pretrain(ws, data="demos", name="base", config=settings("pretrain", steps=4, architecture=SMALL))
    return path / "workspace"


@pytest.fixture
def ws(folder):
    with Workspace.open(folder) as opened:
        yield opened


@pytest.fixture
def say(folder, capsys, monkeypatch):
    monkeypatch.setenv("TRUEUP_QUIET", "")

    def call(*words: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["--workspace", str(folder), *words])
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said.out, said.err

    return call


@pytest.fixture
def add(say, tmp_path):
    def call(name: str, rows: list[dict], *more: str, kind: str = "preferences", code: int = 0) -> str:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        out, err = say("data", "add", str(file), "--kind", kind, "--name", name, *more, code=code)
        return out + err

    return call


def judgement(i: int, *texts: str, ranks=(1, 2), judge="ann", split="train", **meta) -> dict:
    prompt = Prompt.user(f"the cat {i}")
    return Judgement(prompt, texts, tuple(ranks), judge, "human", split=split, meta=meta).to_json()


# Bad input


def test_pairs_that_cannot_be_used_are_counted_and_explained(add):
    def talk(asked: str, answer: str) -> list[dict]:
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]

    good = [rainy(i) for i in range(5)]
    odd = [{"prompt": "x", "chosen": "same", "rejected": "same"}, {"prompt": "x", "chosen": "", "rejected": "no"}]
    said = add("odd", [*good, *odd])
    assert "5 rows, 2 skipped" in said and "odd.jsonl:6: equal sides" in said
    assert "odd.jsonl:7: empty completion" in said
    other = [
        {"chosen": talk("q", "a"), "rejected": talk("q", "b")},
        {"chosen": talk("q", "a"), "rejected": talk("r", "b")},
    ]
    assert "talks.jsonl:2: differing prompts" in add("talks", other)
    assert "no usable row among 1: 1 x equal sides" in add("equal", odd[:1], code=1)


def test_what_is_longer_than_the_context_is_counted_and_all_of_it_refused(add, say):
    long = [{"prompt": f"far {i}", "chosen": words(300), "rejected": "no"} for i in range(3)]
    add("partly", [rainy(i) for i in range(12)] + long, "--heldout", "0")
    _, said = say("train", "reward", "--base", "base", "--data", "partly", *QUICK)
    assert "3 of 15 prompts" in said and "left out: longer than 96 tokens" in said and "row 13" in said
    add("wholly", long, "--heldout", "0")
    _, said = say("train", "reward", "--base", "base", "--data", "wholly", *QUICK, code=1)
    assert "no judgement is left to train on; 3 of 3 prompts" in said and "hint: raise max_tokens" in said


def test_equal_sides_that_came_another_way_are_counted_too(ws, say):
    rows = [judgement(i, "old rain", "red") for i in range(9)] + [judgement(9, "same", "same"), judgement(9, "a", "b")]
    put_records(ws, "preferences", rows, name="twins")
    _, said = say("train", "reward", "--base", "base", "--data", "twins", *QUICK)
    assert "two equal sides say nothing: 1 left out" in said
    put_records(ws, "preferences", [judgement(i, "same", "same") for i in range(4)], name="only-twins")
    _, said = say("train", "reward", "--base", "base", "--data", "only-twins", *QUICK, code=1)
    assert "no judgement is left to train on" in said


def test_a_strength_that_nobody_gave_is_no_setting(ws, say):
    """It would change nothing, and a table of ablations would show that it does not help."""
    put_records(ws, "preferences", [judgement(i, "old rain", "red") for i in range(9)], name="plain")
    weighed = ("--data", "plain", *QUICK, "--set", "strength=weight")
    _, said = say("train", "reward", "--base", "base", *weighed, code=1)
    assert "no judgement to train on says how much better" in said
    rows = [judgement(i, "old rain", "red", strength=1 + i % 3) for i in range(9)]
    put_records(ws, "preferences", rows, name="weighty")
    say("train", "reward", "--base", "base", "--data", "weighty", *QUICK, "--set", "strength=weight")


def test_a_set_that_is_held_out_as_a_whole_says_so(ws, say):
    put_records(ws, "preferences", [judgement(i, "old rain", "red", split="heldout") for i in range(9)], name="kept")
    _, said = say("train", "reward", "--base", "base", "--data", "kept", *QUICK, code=1)
    assert "no judgement is left to train on: 9 prompts are held out" in said


def test_one_judge_and_one_prompt_are_said_and_the_audit_claims_nothing(ws, say):
    rows = [judgement(0, f"old rain {words(2)}", f"red {words(2)}") for _ in range(12)]
    put_records(ws, "preferences", rows, name="narrow")
    _, said = say("train", "reward", "--base", "base", "--data", "narrow", *QUICK, "--name", "narrow-judge")
    assert "about one prompt" in said and "one judge's" in said
    out, _ = say("eval", "reward", "narrow-judge", "narrow", *PROBED, "--gate", "--json", code=1)
    found = json.loads(out)
    assert found["accuracy"]["ci"] == [0.0, 1.0] and "accuracy" in found["gate"]["failed"]
    assert any("one judge's" in each for each in found["findings"])
    assert any("about one prompt" in each for each in found["findings"])


def test_nothing_but_ties_is_refused_on_both_ways(ws, say):
    put_records(ws, "preferences", [judgement(i, "a", "b", ranks=(1, 1)) for i in range(6)], name="ties")
    _, said = say("train", "reward", "--base", "base", "--data", "ties", *QUICK, code=1)
    assert "every judgement to train on is a tie" in said
    put_records(ws, "preferences", [judgement(i, "old rain", "red") for i in range(9)], name="choices")
    say("train", "reward", "--base", "base", "--data", "choices", *QUICK, "--name", "some-judge")
    _, said = say("eval", "reward", "some-judge", "ties", *PROBED, code=1)
    assert "none of the 6 judgements prefers" in said


def test_an_adapter_on_a_base_with_another_tokenizer_is_refused(ws, say, checkpoint, tmp_path):
    """The same shapes, other words: it would load, and every score would mean nothing."""
    from transformers import PreTrainedTokenizerFast

    from trueup.config import ModelSettings
    from trueup.errors import ModelError
    from trueup.inputs import chain
    from trueup.models.load import load_reward
    from trueup.text.tokenizer import train_tokenizer

    put_records(ws, "preferences", [judgement(i, "old rain", "red") for i in range(9)], name="few")
    base = tmp_path / "base"
    shutil.copytree(checkpoint("Llama"), base)
    lora = ("--set", "model.adapter=lora")
    say("train", "reward", "--base", str(base), "--data", "few", *QUICK, *lora, "--name", "adapter")
    folders = chain(ws, ws.get("adapter"))
    load_reward(folders, ModelSettings())
    other = train_tokenizer(["entirely other words make another vocabulary of pieces"] * 3, 320)
    PreTrainedTokenizerFast(tokenizer_object=other, eos_token="<eos>", pad_token="<pad>").save_pretrained(base)
    with pytest.raises(ModelError, match="another tokenizer than its base"):
        load_reward(folders, ModelSettings())
    _, said = say("score", "adapter", "--prompt", "the cat", "--completion", "sat", code=1)
    assert "not the one it was when it was first used" in said, "by its files, before anything is loaded"


# Right or wrong, on single completions


def test_verdicts_train_a_scorer_and_its_audit_measures_them(add, say):
    def verdict(i: int) -> dict:
        text = words(3) + (" rain" if i % 2 else " mat")
        return {"prompt": f"{words(2)} {i}", "completion": text, "label": bool(i % 2)}

    add("thumbs", [verdict(i) for i in range(160)], "--heldout", "0.4", kind="unpaired")
    steps = ("--steps", "60", "--threads", "1", "--set", "run.tensorboard=false", "--set", "optimizer.lr=0.01")
    say("train", "reward", "--base", "base", "--data", "thumbs", *steps, "--name", "thumb")
    out, _ = say("eval", "reward", "thumb", "thumbs", *PROBED, "--json")
    found = json.loads(out)
    verdicts = found["verdicts"]
    assert verdicts["n"] == found["judgements"] > 40 and found["matched"] == found["pairs"] > 20
    assert verdicts["accuracy"]["ci"][0] > verdicts["always"] and found["accuracy"]["ci"][0] > 0.7
    text, _ = say("eval", "reward", "thumb", "thumbs", *PROBED)
    assert "Nobody compared two completions" in text


# Demonstrations


def test_demonstrations_are_preferred_to_what_a_model_wrote(ws, say):
    demos = api.loading.read_demonstrations(ws.get("demos"))
    written = [Completion(d.prompt, f"the mat {i}", finished=bool(i % 3)) for i, d in enumerate(demos[:30])]
    written += [Completion(demos[0].prompt, demos[0].completion), Completion(Prompt.user("another"), "a dog")]
    put_records(ws, "completions", api.loading.completion_rows(written), name="drafts")
    text, _ = say("data", "contrast", "demos", "drafts", "--name", "shown", "--heldout", "0.3")
    assert "30 judgements" in text and "demonstrations of prompts without a completion: 10" in text
    assert "prompts without a demonstration: 1" in text and "a demonstration word for word: 1" in text
    made, artifact = read_judgements(ws.get("shown")), ws.get("shown")
    best = {d.prompt.id: d.completion for d in demos}
    for each in made:
        assert each.completions[each.ranks.index(1)] == best[each.prompt.id] and each.source == "rule"
        assert each.meta["finished"][each.ranks.index(1)] is True
    assert any(False in each.meta["finished"] for each in made)
    assert 5 < sum(each.ranks == (1, 2) for each in made) < 25, "neither always stands first"
    assert {each.split for each in made} == {"train", "heldout"}
    assert set(artifact.parents.values()) == {ws.get("demos").id, ws.get("drafts").id}
    assert "judgements, rule: 30" in say("lineage", "shown")[0]
    say("train", "reward", "--base", "base", "--data", "shown", *QUICK, "--name", "imitator")
    found = json.loads(say("eval", "reward", "imitator", "shown", *PROBED, "--json")[0])
    assert found["position"]["value"] not in (0.0, 1.0) and found["leakage"]["value"] == 0.0


def test_several_demonstrations_of_a_prompt_are_never_set_against_one_another(ws, say):
    from trueup.records import Demonstration

    prompt = Prompt.user("the cat")
    rows = [Demonstration(prompt, text).to_json() for text in ("sat", "ran")]
    put_records(ws, "demonstrations", rows, name="two")
    drafts = [Completion(prompt, text) for text in ("ran", "fell", "fell")]
    put_records(ws, "completions", api.loading.completion_rows(drafts), name="three")
    say("data", "contrast", "two", "three", "--name", "pairs")
    assert {frozenset(j.completions) for j in read_judgements(ws.get("pairs"))} == {
        frozenset({"sat", "fell"}), frozenset({"ran", "fell"})
    }  # fmt: skip
    put_records(ws, "completions", api.loading.completion_rows(drafts[:1]), name="same")
    assert "has a completion that differs" in say("data", "contrast", "two", "same", code=1)[1]


# Trade-offs


def test_a_trade_off_is_an_artifact_with_a_page(ws, say, tmp_path):
    sides = [(f"old rain {words(2)}", f"red {words(2)}") for _ in range(20)]
    rows = [judgement(i, *texts, objective=("rainy", "red")[i % 2]) for i, texts in enumerate(sides)]
    put_records(ws, "preferences", rows, name="both")
    two = ("--set", 'objectives=["rainy", "red"]')
    say("train", "reward", "--base", "base", "--data", "both", *QUICK, *two, "--name", "pair-judge")
    drafts = [Completion(Prompt.user(f"the cat {i}"), words(4)) for i in range(12) for _ in range(4)]
    long = Completion(Prompt.user("the cat 0"), words(300))
    put_records(ws, "completions", api.loading.completion_rows([*drafts, long]), name="many")
    floor = 'scoring.objectives=[{name = "rainy"}, {name = "red", weight = 0.0, at_least = 0.5}]'
    line = ["eval", "tradeoff", "pair-judge", "many", "--threads", "1", "--set", floor]
    text, _ = say(*line, "--out", str(tmp_path / "out"))
    assert "48 completions of 12 prompts" in text and "completions longer than it reads: 1" in text
    assert "red >= 0.5" in text and "as set" in text
    found = json.loads(say(*line, "--json")[0])
    (pair,) = found["pairs"]
    kept = next(row for row in pair["floors"] if row["kept"] == "red" and row["at_least"] == 0.5)
    assert pair["chosen"]["a"]["value"] == pytest.approx(kept["a"]["value"]), (
        "the floor that was set is the one of the table"
    )
    artifact = ws.get(found["evaluation"])
    assert artifact.meta["stage"] == "tradeoff" and set(artifact.parents) == {"model", "data"}
    assert "red against rainy" in (tmp_path / "out" / "card.html").read_text()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["pairs"] == found["pairs"]
    assert any(run.stage == "tradeoff" for run in runs(ws))
    by_votes = json.loads(say("eval", "tradeoff", "pair-judge", "both", "--threads", "1", "--json")[0])
    assert by_votes["completions"] == 40 and "none is marked as held out" in by_votes["taken"]
