"""The shape of the code: who may import whom, what may load torch, how long a file may be.

Read from the source with ast, so nothing is imported. The table of layers stands a second time in ARCHITECTURE.md, for
people; the two have to agree.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "trueup"

# From the lowest to the highest. A module imports only from layers below its own.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "records", "ports", "config"),
    ("algo", "stats", "process"),
    ("text", "store", "world"),
    ("runs", "models"),
    ("engines",),
    ("train", "feedback", "evals", "reports"),
    (
        *(
            "inputs",
            "loading",
            "preparing",
            "scorers",
            "wiring",
            "offline_wiring",
            "rejecting",
            "running",
            "api",
            "asking",
            "collecting",
            "helping",
            "retraining",
            "exporting",
            "ensembling",
            "joining",
            "contrasting",
        ),
        *(
            "auditing",
            "climbing",
            "comparing",
            "measuring",
            "refusing",
            "evaluating",
            "questioning",
            "chatting",
            "voting",
            "kept_models",
            "trying",
            "trying_process",
            "watching",
            "writing",
            "reporting",
            "planning",
            "memory",
            "sizing",
            "model_card",
            "demonstrate",
        ),
        *("web", "cli", "__init__", "__main__"),
    ),
)
ROW = {module: row for row, modules in enumerate(LAYERS) for module in modules}
TOP = len(LAYERS) - 1
# The words of the lowest layer are made of one another; elsewhere neighbours do not know each other.
NEIGHBOURS = {("config", "errors"), ("ports", "config"), ("ports", "records")}

HEAVY = {"torch", "transformers", "peft", "safetensors"}
MAY_USE_TORCH = {"algo", "models", "engines", "train", "memory", "sizing"}

LONGEST_FILE, LONGEST_FUNCTION = 600, 120
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


@dataclass(frozen=True)
class Import:
    """One name that a file imports. `deferred`: inside a function; `for_types`: under TYPE_CHECKING."""

    file: Path
    line: int
    target: str  # absolute, dotted: trueup.text.chat, torch.nn
    deferred: bool
    for_types: bool

    @property
    def owner(self) -> str:
        return module_of(self.file)

    @property
    def own(self) -> str:
        """The module of trueup that is imported: `text` of trueup.text.chat; empty for other packages."""
        parts = self.target.split(".")
        return "" if parts[0] != "trueup" else parts[1] if len(parts) > 1 else "__init__"

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """The name by which a layer lists the file: its package, or the file itself at the top of trueup."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports() -> list[Import]:
    return [found for file in files() for found in imports_of(file)]


def imports_of(file: Path) -> Iterator[Import]:
    def walk(node: ast.AST, deferred: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in targets(child, file):
                    yield Import(file, child.lineno, target, deferred, for_types)
            elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                yield from walk(ast.Module(child.body, []), deferred, True)
                yield from walk(ast.Module(child.orelse, []), deferred, for_types)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, deferred or inside, for_types)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False, False)


def targets(node: ast.Import | ast.ImportFrom, file: Path) -> Iterator[str]:
    """`from .. import api` in trueup/cli/x.py is trueup.api; `from ..text import chat` is trueup.text."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = ("trueup", *file.relative_to(PACKAGE).parts[:-1])
    above = package[: len(package) - (node.level - 1)] if node.level else ()
    module = ".".join((*above, *filter(None, [node.module])))
    if module == "trueup":
        yield from (f"trueup.{alias.name}" if alias.name in ROW else "trueup" for alias in node.names)
    else:
        yield module


def forbidden(found: Import) -> bool:
    """Whether an import of trueup itself goes up, or sideways where it may not."""
    mine, other = ROW[found.owner], ROW[found.own]
    if found.owner == found.own or mine == TOP:
        return False
    return other > mine or (other == mine and (found.owner, found.own) not in NEIGHBOURS)


# Layers


def test_every_module_has_a_layer_and_every_layer_its_modules():
    there = {module_of(file) for file in files()}
    assert there <= ROW.keys(), f"give a layer to {sorted(there - ROW.keys())}"
    assert ROW.keys() == there


def test_modules_import_only_from_layers_below():
    wrong = [found for found in imports() if found.own and forbidden(found)]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_rule_would_notice():
    """The check itself, on imports that must and must not be."""

    def judged(file: str, line: str) -> list[bool]:
        node = ast.parse(line).body[0]
        path = PACKAGE / file
        return [forbidden(Import(path, 1, target, False, False)) for target in targets(node, path)]

    assert judged("train/sft.py", "from ..text.batches import order") == [False]
    assert judged("train/sft.py", "from ..evals.compare import compare") == [True]
    assert judged("text/chat.py", "from ..models import load") == [True]
    assert judged("text/chat.py", "from ..store import Workspace") == [True]
    assert judged("store/files.py", "from .. import errors, wiring") == [False, True]
    assert judged("store/files.py", "import trueup.api") == [True]
    assert judged("records.py", "from .errors import DataError") == [True]
    assert judged("runs/run.py", "import trueup") == [True]
    assert judged("cli/main.py", "from .. import demonstrate") == [False]


def test_architecture_md_has_the_same_layers():
    """A Markdown table under '## Layers': the name of the layer, its modules, ...; lines of one name are one layer."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = re.search(r"^## Layers$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, "ARCHITECTURE.md has no section '## Layers'"
    lines = [line for line in section[1].splitlines() if line.startswith("|")][2:]
    written: dict[str, set[str]] = {}
    for line in lines:
        layer, modules = (cell.strip() for cell in line.strip("|").split("|")[:2])
        written.setdefault(layer, set()).update(re.findall(r"\w+", modules))
    assert list(written.values()) == [set(modules) for modules in LAYERS]


# Torch


def test_torch_stays_in_its_layers():
    """Elsewhere it is at most a type, or, at the top, loaded by the function that needs it."""
    wrong = [
        found
        for found in imports()
        if found.target.partition(".")[0] in HEAVY
        and found.owner not in MAY_USE_TORCH
        and not (found.for_types or (found.deferred and ROW[found.owner] == TOP))
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_modules_without_torch_do_not_import_modules_with_it():
    """At least not while they are imported themselves."""
    wrong = [
        found
        for found in imports()
        if found.own in MAY_USE_TORCH
        and found.owner not in MAY_USE_TORCH
        and not (found.for_types or (found.deferred and ROW[found.owner] == TOP))
    ]
    assert not wrong, "\n".join(map(str, wrong))


WITHOUT_TORCH = """
import sys
import trueup, trueup.api, trueup.store, trueup.runs, trueup.text.chat, trueup.text.formats, trueup.text.show
import trueup.world, trueup.stats, trueup.evals.compare, trueup.evals.reward, trueup.reports, trueup.cli.main
import trueup.wiring, trueup.inputs, trueup.planning, trueup.exporting, trueup.model_card, trueup.demonstrate
heavy = {"torch", "transformers", "peft", "datasets", "pandas", "pyarrow", "scipy", "tensorboardX"} & set(sys.modules)
assert not heavy, heavy
"""


def test_what_needs_no_torch_does_not_load_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Names and sizes


def test_no_file_has_a_name_that_says_nothing():
    vague = [file for file in files() if VAGUE & {file.stem, *file.relative_to(PACKAGE).parts[:-1]}]
    assert not vague


def test_files_and_functions_are_short_enough_to_read():
    long = []
    for file in (*files(), *(ROOT / "scripts").glob("*.py")):
        source = file.read_text(encoding="utf-8")
        functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [file] * (source.count("\n") > LONGEST_FILE)
        long += [f"{file}: {n.name}" for n in functions if n.end_lineno - n.lineno + 1 > LONGEST_FUNCTION]
    assert not long


def test_every_file_says_what_it_is_for():
    silent = [str(f.relative_to(ROOT)) for f in files() if not ast.get_docstring(ast.parse(f.read_text("utf-8")))]
    assert not silent
