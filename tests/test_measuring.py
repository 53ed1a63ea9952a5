"""`trueup eval compare`: models of all kinds on one table, with real weights."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner
from small import SENTENCES

import trueup
from trueup.cli.main import root
from trueup.errors import ConfigError, TrueupError
from trueup.loading import put_records
from trueup.records import Prompt
from trueup.reporting import report
from trueup.reports.besides import sentence
from trueup.reports.run_page import runs_page
from trueup.runs import runs

PROMPTS = [Prompt.user(f"{SENTENCES[i][:9]} {i}") for i in range(8)]
SHORT = {"run": {"threads": 1}, "sampling": {"max_new_tokens": 6}}


@pytest.fixture
def ws(workspace, tmp_path):
    put_records(workspace, "prompts", [p.to_json() for p in PROMPTS], name="asked")
    rows = [{"prompt": Prompt.user("say").to_json(), "completion": text[:40]} for text in SENTENCES[:6]]
    put_records(workspace, "demonstrations", rows, name="demos")
    meta = {"best_of": 4, "score": 1.0, "scores": [1.0, 0.0, 0.0, 0.0]}
    rows = [
        {"prompt": p.to_json(), "completions": [{"text": f"best {i}", "finished": True, "meta": meta}]}
        for i, p in enumerate(PROMPTS)
    ]
    put_records(workspace, "completions", rows, name="best")
    (tmp_path / "rules.py").write_text(
        "def longer(prompt, completion):\n    return float(len(completion))\n"
        "def vowels(prompt, completion):\n    return float(sum(c in 'aeiou' for c in completion))\n"
    )
    return workspace


def test_models_of_all_kinds_stand_on_one_table(ws, checkpoint, tmp_path):
    first, other = str(checkpoint("Llama")), str(checkpoint("Llama", 1))
    found = trueup.compare(
        ws, [first, other, "best"], prompts="asked", judge=f"{tmp_path}/rules.py:longer", reference=first,
        text="demos", measures={"vowels": f"{tmp_path}/rules.py:vowels"}, **SHORT,
    )  # fmt: skip
    base, tuned, best = found["models"]
    assert "won" not in base and tuned["won"]["n"] == 8 and best["won"]["ci"][0] <= best["won"]["value"]
    assert base["kl"]["value"] == pytest.approx(0, abs=1e-5) and tuned["kl"]["value"] > 1
    assert best["kl"] == {"value": math.log(4) - 3 / 4, "ci": None, "n": None, "how": "at most, best of 4"}
    assert base["surprise"]["n"] == 6 and "surprise" not in best, "text of a file has no model to be surprised"
    assert tuned["surprise_change"]["value"] == pytest.approx(tuned["surprise"]["value"] - base["surprise"]["value"])
    assert best["measures"]["vowels"]["value"] == 1 and base["tokens_sampled"] <= 6 and best["tokens_sampled"] is None
    assert best["score"]["value"] == 6 and {one["cpu_seconds"] for one in found["models"]} == {None}
    page = runs_page(report(ws, [runs(ws)[-1].id]))
    assert "On one table" in page and "KL to the reference (nats a completion)" in page and "best of 4" in page
    assert "on which the models differ most" in page and page.count('<article class="sample') == 8


def test_the_surprise_of_a_text_is_the_models_own(ws, checkpoint):
    """By transformers itself: minus the log-likelihood of the completion's tokens, in bits, over its bytes."""
    import torch

    from trueup.config import ModelSettings
    from trueup.models.load import load_model

    folder = str(checkpoint("Llama"))
    found = trueup.compare(ws, [folder, "best"], prompts="asked", text="demos", **SHORT)
    model = load_model([folder], ModelSettings())
    total, size = 0.0, 0
    for text in SENTENCES[:6]:
        prompt, answer = (
            model.encoder.prompt(Prompt.user("say")),
            model.encoder.completion(Prompt.user("say"), text[:40]),
        )
        with torch.no_grad():
            logits = model.network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double()
        total -= float(logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum())
        size += len(text[:40].encode())
    assert found["models"][0]["surprise"]["value"] == pytest.approx(total / math.log(2) / size, rel=1e-5)


def test_what_a_model_cost_is_of_its_own_runs(ws, checkpoint):
    base = str(checkpoint("Llama"))
    quick = {"run": {"threads": 1, "tensorboard": False}, "steps": 2}
    sft = trueup.sft(ws, base=base, data="demos", name="sft", **quick)
    more = trueup.sft(ws, base=sft, data="demos", name="more", **quick)
    found = trueup.compare(ws, ["sft", "more"], prompts="asked", **SHORT)
    spent = {run.outputs["model"].id: run.timing()[-1]["cpu"] for run in runs(ws) if run.stage == "sft"}
    assert [one["cpu_seconds"] for one in found["models"]] == [spent[sft.id], spent[more.id]]
    assert found["judge"]["kind"] == "none" and "won" not in found["models"][1]


def test_who_did_best_is_said_as_it_is():
    def found(value, ci, verdict):
        won = {"value": value, "ci": ci, "n": 80, "verdict": verdict}
        return {"models": [{"model": "sft"}, {"model": "dpo", "won": won}], "prompts": 80}

    names = {"sft": "sft", "dpo": "dpo"}
    assert sentence(found(0.7, [0.6, 0.8], "a"), names) == (
        "dpo did best against sft: it won 70.0% of 80 pairs (60.0 to 80.0%), beyond chance."
    )
    assert sentence(found(0.3, [0.2, 0.4], "b"), names) == (
        "None is better than sft: dpo, the best of the others, won 30.0% of 80 pairs (20.0 to 40.0%)."
    )
    nobody = {"models": [{"model": "sft"}, {"model": "dpo"}], "prompts": 80}
    assert sentence(nobody, names) == "sft and dpo on 80 prompts; nobody judged."


def test_on_the_command_line(ws, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUEUP_WORKSPACE", str(ws.path))
    line = f"eval compare {checkpoint('Llama')} best --prompts asked --judge {tmp_path}/rules.py:longer --threads 1"
    got = CliRunner().invoke(root, [*line.split(), "--set", "sampling.max_new_tokens=6"], standalone_mode=False)
    text = got.return_value.text
    assert text.startswith("Undecided against ") and ": best, the best of the others, won " in text, text
    assert "the same at equal length (pairs won, ties half)" in text
    assert "won against the first (pairs won, ties half)" in text and "evaluation " in text
    with pytest.raises(ConfigError, match="has no name"):
        wrong = f"{line} --measure {tmp_path}/rules.py:vowels"
        CliRunner().invoke(root, wrong.split(), standalone_mode=False, catch_exceptions=False)
    with pytest.raises(TrueupError, match="have no gold score"):
        trueup.compare(ws, ["best", "best"], prompts="asked", judge="gold")
    with pytest.raises(ConfigError, match="one model alone"):
        trueup.compare(ws, ["best"], prompts="asked")
