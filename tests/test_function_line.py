"""The line to a process that scores: what a function may do to it, and what reaches whoever runs trueup."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from trueup.cli import main as cli
from trueup.cli.text import shortened, to_json
from trueup.engines.fake import FakeScorer
from trueup.engines.functions import FunctionScorer, check_function
from trueup.errors import DataError, ModelError, NotFoundError, RunError, brief
from trueup.evals.scored import score_all
from trueup.inputs import find_input
from trueup.records import Completion, Prompt
from trueup.runs import Run
from trueup.store import Workspace

PROMPT = Prompt.user("the cat")
TEXTS = [Completion(PROMPT, text) for text in ("a", "bb", "cccc")]
LENGTHS = "return [float(len(c.text)) for c in completions]"


@pytest.fixture
def asked(tmp_path):
    """`asked(body)`: a scorer that asks the function `f` with this body, one line or several."""

    def make(body, arguments="completions", time_limit=20.0, before="", resume=""):
        path = tmp_path / "rules.py"
        path.write_text(f"import os, sys, time\n{before}\ndef f({arguments}):\n{textwrap.indent(body, '    ')}\n")
        return FunctionScorer(f"{path}:f", time_limit, resume)

    return make


def values(scorer, completions=TEXTS):
    return [score.value for score in scorer.score(completions)]


@pytest.mark.parametrize("fork", ["os.fork()", "os.setsid() if not os.fork() else None"])
def test_only_the_process_that_was_started_answers(asked, fork):
    """The function returns in both of them, and one answer too many would be taken for that to the next question."""
    scorer = asked(f"calls.append(1)\nif len(calls) == 2: {fork}\n{LENGTHS}", before="calls = []")
    groups = [[Completion(PROMPT, "x" * (3 * i + j)) for j in range(3)] for i in range(5)]
    found = []
    for group in groups:
        found.append(values(scorer, group))
        time.sleep(0.05)  # the second answer would be there by now
    assert found == [[3.0 * i + j for j in range(3)] for i in range(5)]


def test_a_child_that_lives_on_does_not_keep_the_line_open(asked):
    """Else, without a limit, a process that ended would be waited for as long as its child lives."""
    body = "if not os.fork():\n    os.setsid(); time.sleep(8); os._exit(0)\nos._exit(7)"
    began = time.monotonic()
    with pytest.raises(RunError, match="its process ended, with exit code 7"):
        asked(body, time_limit=0.0).score(TEXTS)
    assert time.monotonic() - began < 7


@pytest.mark.parametrize(
    "written",
    [
        r"b'\x7f\xff\xff\xff'",
        r"b'hello\n'",
        r"b'[' * 100000 + b'\n'",
        r"b'{}\n'",
        r"b'[1]\n'",
        r"""b'{"to": 2}\n'""",
        r"""b'{"to": 2, "ready": true}\n'""",
        r"""b'{"to": 2, "done": "odd"}\n'""",
        r"""b'{"to": 2, "values": [1.0]}\n'""",
        r"""b'{"to": 2, "values": ["1", "2", "3"]}\n'""",
        r"""b'{"to": 2, "values": 3}\n'""",
    ],
)
def test_what_is_no_answer_is_a_failed_try(asked, tmp_path, written):
    """The function wrote on every open file, the line too; asked once more in a new process, it does not."""
    body = f"if not os.path.exists({str(tmp_path / 'wrote')!r}):\n    open({str(tmp_path / 'wrote')!r}, 'w').close()\n"
    body += (
        f"    for fd in range(3, 20):\n        try: os.write(fd, {written})\n        except OSError: pass\n{LENGTHS}"
    )
    assert values(asked(body)) == [1.0, 2.0, 4.0]


def test_an_answer_to_another_question_is_thrown_away(asked):
    before = "LINE = next(fd for fd in range(3, 30) if os.path.exists(f'/proc/self/fd/{fd}') and "
    before += "os.readlink(f'/proc/self/fd/{fd}').startswith('socket'))"
    body = r"""os.write(LINE, b'{"to": 1, "values": [9.0, 9.0, 9.0]}' + b'\n')""" + f"\n{LENGTHS}"
    assert values(asked(body, before=before)) == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("given", ["b'x'", r"b'{\"to\": 1, \"ready\": true}' + b'\n'"])
def test_writing_without_an_answer_does_not_prolong_the_limit(asked, given):
    body = f"while True:\n    for fd in range(3, 20):\n        try: os.write(fd, {given})\n"
    body += "        except OSError: pass\n    time.sleep(0.02)"
    began = time.monotonic()
    with pytest.raises(RunError, match=r"no answer within 0.2 s"):
        asked(body, time_limit=0.2).score(TEXTS)
    assert time.monotonic() - began < 15


def test_one_that_stands_still_is_not_waited_for_with_a_question_too_long_for_the_line(asked):
    long = [Completion(PROMPT, "x" * 4_000_000)]
    with pytest.raises(RunError, match=r"no answer within 0.3 s"):
        asked("os.kill(os.getpid(), 19)", time_limit=0.3).score([*long, *long])


def test_an_error_is_cut_and_can_be_stored(asked, tmp_path):
    """As it reaches the run's row, where half a surrogate would hide it and leave the run as if it were killed."""
    with pytest.raises(RunError, match="half") as found:
        asked("raise ValueError('\\ud800 half \\0' + 'x' * 50_000)").score(TEXTS)
    assert len(found.value.message) < 1_000 and found.value.message.endswith("…")
    assert found.value.message.encode()
    with Workspace.create(tmp_path / "ws") as workspace:
        run = Run.start(workspace, "rl", {}, {}, seed=0)
        with pytest.raises(ValueError), run:
            raise ValueError("\ud800 half \0" + "x" * 50_000)
        failed = Run.load(workspace, run.id)
        assert failed.status == "failed" and r"\ud800 half \x00" in failed.row.error
        assert len(failed.row.error) < 6_000


def test_brief_keeps_what_is_short():
    assert brief("first\nsecond ") == "first\nsecond"
    assert brief("\n".join("abc")) == "a\nb\nc" and brief("a\nb\nc", lines=2) == "a\nb …"
    assert brief("x" * 9, limit=4) == "xxxx …" and brief("é\udc80") == r"é\udc80"


def test_an_error_that_cannot_be_said_still_has_its_name(asked):
    before = "class Odd(Exception):\n    def __str__(self): raise RuntimeError('no text')"
    with pytest.raises(RunError, match="in a row: Odd"):
        asked("raise Odd", before=before).score(TEXTS)


def test_what_it_prints_is_cut_at_each_call(asked, capfd):
    scorer = asked(f"print('begin' + 'x' * 3_000_000, file=sys.stderr)\nprint('more')\n{LENGTHS}")
    assert values(scorer) == values(scorer)
    scorer.close()
    printed = capfd.readouterr().err
    assert printed.count("begin") == 2 == printed.count("…") and "more" not in printed
    assert len(printed) < 5_000


def test_what_it_started_ends_with_who_asks(tmp_path):
    mark, path = tmp_path / "pid", tmp_path / "rules.py"
    body = f"def f(completions):\n    child = subprocess.Popen(['sleep', '60'])\n    open({str(mark)!r}, 'w')"
    path.write_text(f"import subprocess, time\n{body}.write(f'{{child.pid}} ')\n    time.sleep(60)\n")
    program = (
        "from trueup.engines.functions import FunctionScorer\nfrom trueup.records import Completion, Prompt\n"
        f"FunctionScorer({f'{path}:f'!r}, 0.0).score([Completion(Prompt.user('a'), 'b')])"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as asking:
        wait_until(lambda: mark.exists() and mark.read_text().endswith(" "))
        asking.kill()
    wait_until(lambda: not is_alive(int(mark.read_text())))


def wait_until(happened):
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(pid):
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_hint_of_a_scorer_that_fails_is_possible(asked):
    """A run is not resumed with a changed file, and where there is no run there is nothing to resume."""
    with pytest.raises(RunError) as found:
        asked("raise OSError").score(TEXTS)
    assert "resume" not in found.value.hint
    with pytest.raises(RunError) as found:
        asked("raise OSError", resume="trueup runs resume X").score(TEXTS)
    assert "trueup runs resume X;" in found.value.hint and "resume X --end-here" in found.value.hint


def test_a_function_of_the_wrong_form_is_told_both(asked, tmp_path):
    with pytest.raises(RunError, match=r"AttributeError.*\(prompt, completion\) or a list of completions"):
        asked("return len(completion.split())", "completion").score(TEXTS)
    with pytest.raises(RunError, match="no numbers") as found:
        asked("return len(completion)", "completion").score(TEXTS)
    assert "(prompt, completion) or a list of completions" in found.value.hint
    (tmp_path / "later.py").write_text("async def f(prompt, completion): return 1.0\n")
    with pytest.raises(ModelError, match="is async"):
        check_function(f"{tmp_path}/later.py:f")


def test_a_file_without_a_name_is_said(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace, pytest.raises(NotFoundError) as found:
        find_input(workspace, "reward", "./rules.py", ("reward", "external", "function"))
    assert "./rules.py:NAME" in found.value.hint


def test_scores_that_are_no_numbers_blame_no_model_alone():
    with pytest.raises(DataError, match="3 of 3 scores") as found:
        score_all(FakeScorer(lambda c: float(np.nan)), TEXTS)
    assert "function" in found.value.hint


def test_a_long_prompt_does_not_bury_the_others(tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"begin{i} " + "x" * 100_000}) + "\n" for i in range(3)))
    Workspace.create(tmp_path / "ws").close()
    words = ["--workspace", str(tmp_path / "ws"), "data"]
    assert cli.run([*words, "add", str(path), "--kind", "prompts", "--name", "long"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert cli.run([*words, "show", "long"]) == 0
    shown = capsys.readouterr().out
    assert all(f"begin{i}" in shown for i in range(3)) and len(shown) < 10_000
    assert cli.run([*words, "show", "long", "--json"]) == 0
    assert len(capsys.readouterr().out) > 300_000


def test_long_lines_are_cut_where_they_are_read_and_kept_in_json():
    assert shortened("one\ntwo") == "one\ntwo"
    cut = shortened("one\n" + "x" * 1_000_000)
    assert len(cut) < 3_000 and cut.endswith("(1,000,000 characters)")
    rude = {"text": "a\u202eb\x9bc\x7f\u2066 é 😀\U000e0001\n" + "x" * 5_000}
    assert json.loads(to_json(rude)) == rude
    assert all(c.isprintable() or c == "\n" for c in to_json(rude)) and "é 😀" in to_json(rude)
