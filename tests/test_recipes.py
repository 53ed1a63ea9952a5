"""Every recipe runs: the very command lines of its README, in its CPU form, on made-up rows in the real files' columns.

`hf download` is played by a function that writes a few rows where the hub's files would lie; the base model is a Llama
of a few thousand random weights; and training takes two steps. All else is as it stands in the README.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small import SENTENCES, random_network

from trueup.cli import main as cli
from trueup.config import load
from trueup.runs import runs
from trueup.store import Workspace

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path.name for path in (ROOT / "recipes").iterdir() if path.is_dir())
HUB_ID = r"[\w.-]+/[\w.-]+"
QUICK = {"train": "--set steps=2 --set run.threads=1 --set run.tensorboard=false", "eval winrate": "--threads 1"}
pytestmark = pytest.mark.timeout(200)


# The hub's files, with a few rows each


def said(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(SENTENCES).split()[:words])


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)


def tldr_posts(folder: Path) -> None:
    for split in ("train", "validation", "test"):
        chance = random.Random(split)
        rows = [
            {
                "prompt": f"SUBREDDIT: r/cats\n\nTITLE: {split} {i}\n\nPOST: {said(chance, 9)}\n\nTL;DR:",
                "completion": f" {said(chance, 4)}",
            }
            for i in range(30)
        ]
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows)


def compared_summaries(folder: Path) -> None:
    """Comparisons of summaries; the validation split has some of news, as the published one."""
    for split in ("train", "validation"):
        chance, rows = random.Random(split), []
        for i in range(30):
            news = split == "validation" and i % 5 == 0
            info = {"id": f"{split}{i}", "post": None, "title": None, "subreddit": None, "site": None, "article": None}
            info |= {"article": f"{said(chance, 9)} {i}"} if news else {
                "post": f"{said(chance, 9)} {i}", "title": "a cat", "subreddit": "cats"
            }  # fmt: skip
            summaries = [{"text": f" {said(chance, n)}", "policy": "sup2", "note": None} for n in (3, 5)]
            rows.append({
                "info": info, "summaries": summaries, "choice": i % 2, "worker": f"w{i % 3}", "batch": "batch3",
                "split": "valid1" if split == "validation" else "train",
                "extra": {"confidence": 1 + i % 9},
            })  # fmt: skip
        write_parquet(folder / "comparisons" / split / "0000.parquet", rows)


def voted_answers(folder: Path) -> None:
    for number in range(5):
        chance, rows = random.Random(number), []
        for i in range(30):
            answers = [
                {
                    "answer_id": 100 * i + k, "author": "Ann", "author_id": k, "author_profile": "https://example.org",
                    "pm_score": (i + 2 * k) % 5, "selected": k == 0, "text": f"<p>{said(chance, 4 + k)}</p>\n",
                }
                for k in range(2 + i % 3)
            ]  # fmt: skip
            rows.append({
                "qid": 1000 * number + i, "question": f"<p>{said(chance, 7)} {number} {i}?</p>", "answers": answers,
                "date": "2021/01/01", "metadata": ["https://askubuntu.com/questions/1"],
            })  # fmt: skip
        write_parquet(folder / "data" / "askubuntu.com" / f"train-0000{number}-of-00005.parquet", rows)


def chosen_conversations(folder: Path) -> None:
    for half in ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base"):
        for split in ("train", "test"):
            chance, lines = random.Random(half + split), []
            for i in range(30):
                asked = f"\n\nHuman: {said(chance, 5)} {i}"
                if i % 3 == 0:
                    asked += f"\n\nAssistant: {said(chance, 3)}\n\nHuman: {said(chance, 4)} {half}"
                pair = {"chosen": f" {said(chance, 6)}", "rejected": f" {said(chance, 3)} no"}
                lines.append(json.dumps({side: f"{asked}\n\nAssistant:{text}" for side, text in pair.items()}))
            path = folder / half / f"{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress("\n".join(lines).encode()))


def labelled_reviews(folder: Path) -> None:
    for split in ("train", "test", "unsupervised"):
        chance = random.Random(split)
        rows = [
            {
                "text": f"{i} {said(chance, 7)}<br /><br />it was {'good' if i >= 15 else 'bad'} {said(chance, 8)}",
                "label": -1 if split == "unsupervised" else int(i >= 15),
            }
            for i in range(30)
        ]
        write_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet", rows)


HUB: dict[str, Callable[[Path], None]] = {
    "trl-lib/tldr": tldr_posts,
    "openai/summarize_from_feedback": compared_summaries,
    "HuggingFaceH4/stack-exchange-preferences": voted_answers,
    "Anthropic/hh-rlhf": chosen_conversations,
    "stanfordnlp/imdb": labelled_reviews,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer) -> Path:
    """A Llama as transformers saves it, with room for a post and its summary."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    random_network("Llama", max_position_embeddings=2048).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(folder)
    return folder


# The README


def blocks(recipe: str) -> list[str]:
    text = (ROOT / "recipes" / recipe / "README.md").read_text(encoding="utf-8")
    return [body.replace("\\\n", " ") for body in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def variables(recipe: str, size: str) -> dict[str, str]:
    """What the line for this size sets."""
    (line,) = [line for line in blocks(recipe)[0].splitlines() if f" SIZE={size} " in line]
    return dict(word.split("=", 1) for word in shlex.split(line, comments=True))


def commands(recipe: str, size: str, **changed: str) -> Iterator[list[str]]:
    """The command lines as a shell hands them over, in the form for this size."""
    values = variables(recipe, size) | changed
    for line in filter(None, blocks(recipe)[1].splitlines()):
        filled = re.sub(r"\$(BASE|SIZE|FIRST)\b", lambda match: values[match[1]], line)
        yield shlex.split(filled.replace("$PWD", os.getcwd()))


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command line prints, as JSON where it is one of trueup's."""
    program, *rest = words
    if program == "hf":
        assert rest[0] == "download" and rest[rest.index("--repo-type") + 1] == "dataset"
        HUB[rest[1]](Path(rest[rest.index("--local-dir") + 1]))
    elif program == "python":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", rest)
            runpy.run_path(rest[0], run_name="__main__")
    else:
        assert program == "trueup", words
        capsys.readouterr()
        quick = next((given for name, given in QUICK.items() if " ".join(rest).startswith(name)), "")
        code = cli.run([*rest, *quick.split(), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, f"{shlex.join(words)}\n{err}"
        return json.loads(out)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_of_a_recipe_runs(recipe, base, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "recipes" / recipe, tmp_path / recipe)
    monkeypatch.chdir(tmp_path / recipe)
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    rates: list[float] = []
    best_of: list[float] = []
    for words in commands(recipe, "cpu", BASE=str(base)):
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
            continue
        found = run(words, capsys)
        if words[1:3] == ["data", "add"]:
            assert found["rows"] >= 20 and not found["skipped"], found
        if words[1:3] == ["eval", "winrate"]:
            (best_of if "--best-of" in words else rates).append(found["value"])
            assert found["n"] == 30 and 0 <= found["ci"][0] <= found["value"] <= found["ci"][1] <= 1
    assert rates and best_of, "a recipe ends with what came of it, beside what needs no training"

    with Workspace.open("work") as ws:
        tuned = ws.lineage(ws.get("tuned"))
        stages = {node.run["stage"] for node in tuned.nodes.values() if node.run}
        beside = [run for run in runs(ws) if run.stage == "winrate" and run.config["best_of"] == 8]
        assert beside and all(run.inputs["reward"].id in tuned.nodes for run in beside), "by the scorer RL learnt from"
        assert {"sft", "reward", "rl"} <= stages and ws.get("judge").id in tuned.nodes
        judged = sum(len(node.judgements) for node in tuned.nodes.values())
        assert judged >= 2, "the votes of the reward model and of the judge, with who gave them"

    for words in commands(recipe, "7b", BASE=str(base)):
        if words[:2] == ["trueup", "train"]:
            plan = run([*words, "--dry-run"], capsys)
            assert plan["config"]["preset"] == "7b-lora" and plan["makes"][0]["adapter"] is True, words


def test_the_hub_is_played_by_what_the_recipes_download_and_by_nothing_else():
    downloads = [words for recipe in RECIPES for words in commands(recipe, "7b") if words[0] == "hf"]
    assert sorted(words[2] for words in downloads) == sorted(HUB)
    for recipe in RECIPES:
        readme = (ROOT / "recipes" / recipe / "README.md").read_text(encoding="utf-8")
        named = set(re.findall(rf"https://huggingface.co/datasets/({HUB_ID})", readme))
        assert named == {words[2] for words in commands(recipe, "7b") if words[0] == "hf"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_both_sizes_have_sound_settings_for_every_command_and_no_others(recipe):
    """The one for a 7B model starts from its preset, the one for a CPU takes few steps; either reads the same files."""
    used = set()
    for size, preset in (("7b", "7b-lora"), ("cpu", "100m-lora")):
        assert re.fullmatch(HUB_ID, variables(recipe, size)["BASE"])
        for words in commands(recipe, size):
            if "--config" not in words:
                continue
            file = ROOT / "recipes" / recipe / words[words.index("--config") + 1]
            config = load(words[2], file)
            used.add(file)
            assert getattr(config, "preset", preset) == preset, file
            assert size == "7b" or not hasattr(config, "steps") or 0 < config.steps <= 40, file
    assert used == set((ROOT / "recipes" / recipe).rglob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_what_it_costs_and_its_links_lead_somewhere(recipe):
    folder = ROOT / "recipes" / recipe
    text = (folder / "README.md").read_text(encoding="utf-8")
    cost = text.partition("## What it costs")[2]
    assert "`--dry-run`" in cost and "GiB" in cost and "Disk:" in cost and "arithmetic" in cost
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert all((folder / target).is_file() for target in links), links
    assert f"../recipes/{recipe}/README.md" in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_a_function_of_words_scores_praise_above_blame():
    positive = runpy.run_path(str(ROOT / "recipes" / "imdb" / "words.py"))["positive"]
    assert positive("", "A GREAT film, good fun.") > positive("", "a film") == 0 > positive("", "bad, boring")
    assert positive("", "") == 0


def test_the_first_rows_alone_are_read_where_that_is_asked(workspace, tmp_path):
    from trueup import api

    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\nnot JSON\n')
    report = api.add_data(workspace, str(tmp_path / "rows.jsonl"), "prompts", first=2)
    assert report.rows == 2 and report.artifact.meta["first"] == 2
