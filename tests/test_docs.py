"""What the pages say, as far as a program can check it: commands parse, links lead somewhere, every file has its line,
named tests, constants and settings exist, the quoted loop is the one in the code, and the Python examples run."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from trueup.cli.main import root
from trueup.config import STAGES
from trueup.config.keys import settings
from trueup.text.formats import SHAPES

ROOT = Path(__file__).resolve().parents[1]
TOP = [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CHANGELOG", "CONTRIBUTING")]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in [*TOP, *ROOT.glob("docs/**/*.md")]}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(PAGES[page]) if found == language]


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", PAGES[page])


def spans(page: str) -> list[str]:
    """What stands in `backticks`."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


# Commands


def parse(words: list[str]) -> click.Command:
    """The command that a command line reaches, after click has read all its options and arguments; nothing runs."""
    command: click.Command = root
    context = click.Context(root, info_name="trueup")
    words = [word for word in words if word != "--help"]  # click would print the page and leave
    while isinstance(command, click.Group):
        if not words:
            return command
        context = command.make_context(context.info_name, words, parent=context.parent)
        name, child, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None
        command = child
        context = click.Context(command, parent=context, info_name=name)
    command.make_context(context.info_name, words, parent=context.parent)
    return command


def command_lines(page: str) -> Iterator[tuple[str, bool]]:
    """Every `trueup ...` of a page; True where it stands in a block, to be copied, and so has to be complete."""
    for language, body in BLOCK.findall(PAGES[page]):
        if language != "python":
            lines = body.replace("\\\n", " ").splitlines()
            yield from ((line.strip(), True) for line in lines if line.strip().startswith("trueup "))
    yield from ((span, False) for span in spans(page) if span.startswith("trueup "))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page):
    wrong = []
    for line, complete in command_lines(page):
        try:
            parse(shlex.split(re.sub(r"(?<!\S)#.*", "", line))[1:])  # within a word, # is no comment
        except click.MissingParameter as error:
            if complete:
                wrong.append(f"{line}: {error.format_message()}")
        except click.ClickException as error:
            wrong.append(f"{line}: {error.format_message()}")
    assert not wrong, "\n".join(wrong)


def test_the_check_of_commands_would_notice():
    assert sum(complete for _, complete in command_lines("README.md")) >= 10
    assert parse("train sft --base m --data d --steps 3".split()).name == "sft"
    assert parse(["eval"]).name == "eval"
    for line in ("train sfft", "train sft --base m --data d --stepps 3", "artifacts show", "data add x --kind votes"):
        with pytest.raises(click.ClickException):
            parse(line.split())


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {span.split()[1] for span in spans(page) if re.match(r"make [a-z]", span)}
    named |= {m for body in blocks(page, "bash") for m in re.findall(r"^make ([a-z-]+)", body, re.MULTILINE)}
    assert named <= targets


# Links


def anchors(page: str) -> set[str]:
    """The names that a page's headings get on the web: lower case, spaces to hyphens, other signs left out."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / place).resolve() if place else ROOT / page
        known = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
        if not path.is_file() or (anchor and (known not in PAGES or anchor not in anchors(known))):
            broken.append(target)
    assert not broken


def test_links_with_anchors_are_looked_up():
    assert "randomness-is-a-function-of-seed-step" in anchors("ARCHITECTURE.md")
    assert "what-stands-and-what-does-not-yet" in anchors("README.md")


# What is named exists


def test_every_file_has_a_line_and_every_line_a_file():
    section = re.search(r"^## Where things live$(.*?)^## ", PAGES["ARCHITECTURE.md"], re.MULTILINE | re.DOTALL)
    assert section
    named = re.findall(r"^- `([^`]+)`: \S", section[1], re.MULTILINE)
    there = [str(path.relative_to(ROOT)) for path in (ROOT / "trueup").rglob("*.py")]
    assert sorted(named) == sorted(there)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_in_passing_exists(page):
    """A path from the root of the repository, or from that of the package."""
    named = {span for span in spans(page) if re.fullmatch(r"\.?[\w./-]+/[\w.-]+\.(py|md|json|yml)", span)}
    from_root = {name for name in named if name.split("/")[0] in ("trueup", "tests", "docs", "scripts")}
    in_package = {name for name in named - from_root if (ROOT / "trueup" / name.split("/")[0]).is_dir()}
    missing = [n for n in from_root if not (ROOT / n).is_file() and "*" not in n]
    assert not missing + [n for n in in_package if not (ROOT / "trueup" / n).is_file()]


@pytest.mark.parametrize("page", PAGES)
def test_every_test_named_exists(page):
    defined = {
        f"{path.name}::{name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"test_\w+\.py::test_\w+", PAGES[page]))
    assert named <= defined, sorted(named - defined)
    if page == "docs/correctness.md":
        assert len(named) > 50


def test_every_constant_of_the_world_exists():
    named = {span for span in spans("docs/world.md") if re.fullmatch(r"(words|posts|summaries|gold|people)\.\w+", span)}
    assert len(named) > 20
    for name in named:
        module, _, constant = name.partition(".")
        assert hasattr(importlib.import_module(f"trueup.world.{module}"), constant), name


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_named_exists(page):
    known = {key for config in STAGES.values() for key in settings(config)}
    tables = {key.partition(".")[0] for key in known if "." in key}
    named = {s for s in spans(page) if s.partition(".")[0] in tables and re.fullmatch(r"\w+\.\w+", s)}
    named = {name for name in named if not name.endswith((".py", ".safetensors"))}
    named |= {key for body in blocks(page, "bash") for key in re.findall(r"--set ([\w.]+)=", body)}
    assert named <= known


def test_data_md_has_every_shape():
    for kind, shapes in SHAPES.items():
        section = re.search(rf"^### {kind}$(.*?)(?=^##)", PAGES["docs/data.md"], re.MULTILINE | re.DOTALL)
        assert section
        cells = re.findall(r"^\| ([^|]+) \|", section[1], re.MULTILINE)[1:]
        columns = [tuple(re.findall(r"`(\w+)`", cell)) for cell in cells]
        assert [c for c in columns if c] == [shape.columns for shape in shapes]


def test_quoted_code_stands_in_the_file_it_is_quoted_from():
    quotes = re.findall(
        r"<!-- quoted: (\S+) -->\n```python\n(.*?)^```$", PAGES["ARCHITECTURE.md"], re.MULTILINE | re.DOTALL
    )
    assert quotes
    for file, code in quotes:
        lines = {line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()}
        assert [line for line in code.splitlines() if line.strip() not in lines] == []


# Examples run


def own_material(folder: Path) -> None:
    """The files that the README speaks of."""
    rows = [(f"say {i}", f"the cat sat {i}", "rain") for i in range(30)]
    demonstrations = [json.dumps({"prompt": p, "completion": c}) for p, c, _ in rows]
    (folder / "demonstrations.jsonl").write_text("\n".join(demonstrations))
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": p}) for p, _, _ in rows))
    (folder / "votes.csv").write_text("question,best,worst\n" + "\n".join(map(",".join, rows)))


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_examples_run(page, tmp_path, monkeypatch, checkpoint, capsys):
    """From top to bottom, in a folder of their own, each going on from the one before."""
    monkeypatch.chdir(tmp_path)
    own_material(tmp_path)
    shutil.copytree(checkpoint("Llama"), tmp_path / "my-model")
    names: dict[str, object] = {}
    examples = blocks(page, "python")
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), names)
    assert "judgements" in capsys.readouterr().out, "the lineage tells who judged"
