"""The README.md of an exported model, in the format of model cards on the Hugging Face hub.

Everything in it is read from the workspace: lineage, the run's settings and results, who judged. What nobody has
measured is said to be unknown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from .auditing import latest_audit
from .config import STAGES, as_toml, flat
from .records import Prompt
from .reporting import about, measuring
from .reports import measured
from .runs import Run
from .store import Artifact, Lineage, Workspace
from .text.chat import PromptFormat

Form = Literal["model", "adapter", "reward", "features"]

EXAMPLE = Prompt.user("What makes bread rise?")
REPLY = "Yeast: it turns sugar into gas, and the dough keeps the bubbles."
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_MADE_BY: dict[str, tuple[str, str]] = {  # stage -> (what was done, the hub's tag)
    "pretrain": ("trained from scratch on demonstrations", "pretraining"),
    "sft": ("fine-tuned on demonstrations", "sft"),
    "rl": ("tuned with PPO against a reward model, held near the model it started from by a KL penalty", "ppo"),
    "dpo": ("tuned on judgements by direct preference optimisation, held near the model it started from", "dpo"),
    "kto": ("tuned on thumbs by Kahneman-Tversky optimisation, held near the model it started from", "kto"),
    "ilql": ("tuned on scored completions by implicit Q-learning", "ilql"),
    "reward": ("trained on judgements: of two completions, the better one gets the higher score", "reward-model"),
}
INTERNAL = (  # results of a run's last step by which somebody watches a run, and nobody knows a model
    *("ratio_gap", "ratio_max", "ratio_mean", "drift", "drift_mean", "clip_fraction", "clipped", "approx_kl"),
    *("updates", "lr", "gradient_norm", "value_gradient_norm", "tokens", "kl_coefficient", "skipped"),
)
_FORMS: dict[Form, tuple[str, str, str]] = {  # form -> (library, pipeline, what it is)
    "model": ("transformers", "text-generation", "A causal language model"),
    "adapter": ("peft", "text-generation", "A LoRA adapter for a causal language model"),
    "reward": ("transformers", "text-classification", "A reward model (sequence classification, one output)"),
    "features": ("trueup", "text-classification", "A reward model in a format of trueup's own"),
}

_USE_MODEL = """
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
"""
_USE_ADAPTER = """
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
base = {base}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
"""
_GENERATE = """
messages = [{{"role": "user", "content": {question}}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_USE_REWARD = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
text = {text}
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
raw = model(**inputs).logits[0, 0].item()
score = (raw - {mean!r}) / {std!r}
print(score)
"""


@dataclass(frozen=True)
class Base:
    """What a model rests on."""

    root: str  # the artifact with the whole weights under the adapters
    source: str  # the hub id or folder where others find those; empty if only this workspace has them
    origin: str  # the hub id or folder that training began with, however many stages ago


def model_card(ws: Workspace, artifact: Artifact, form: Form, folder: Path, base: Base) -> str:
    """`folder` holds the exported files."""
    lineage = ws.lineage(artifact)
    name = _called(lineage, artifact.id)
    told = [found for run in measuring(ws, artifact.id) if measured.is_told(found := about(run))]
    audits = _audits(ws, lineage)
    mine = audits.get(artifact.id)
    parts = [
        _header(artifact, form, base, measured.model_index(name, told, artifact.id, mine)),
        f"# {name}",
        *_what_it_is(artifact, form, base, lineage),
        "## How to use it",
        *_how_to_use(form, folder, base),
        "## Prompt format",
        *_prompt_format(PromptFormat.load(folder)),
        "## Where it comes from",
        _fence(lineage.text()),
        *_judged(lineage),
        *_run(ws, artifact, lineage),
        "## What was measured",
        *_measured(artifact, told, audits, lineage),
        "## Intended use and limits",
        *_limits(form, artifact, bool(told or mine)),
    ]
    return "\n\n".join(parts) + "\n"


def _called(lineage: Lineage, identity: str) -> str:
    names = lineage.nodes[identity].names
    return names[0] if names else identity


def _header(artifact: Artifact, form: Form, base: Base, results: Iterable[str] = ()) -> str:
    """The hub's metadata. The licence is the owner's to choose; a folder on somebody's disk is no base on the hub."""
    library, pipeline, _ = _FORMS[form]
    tags = ["trueup", "rlhf", *([_MADE_BY[_stage(artifact)][1]] if _stage(artifact) in _MADE_BY else [])]
    lines = [f"library_name: {library}", f"pipeline_tag: {pipeline}", "license: unknown"]
    on_hub = form == "adapter" and _HUB_ID.fullmatch(base.source)
    relation, named = ("adapter", base.source) if on_hub else ("finetune", base.origin)
    if _HUB_ID.fullmatch(named):
        lines += [f"base_model: {named}", f"base_model_relation: {relation}"]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), *results, "---"])


def _what_it_is(artifact: Artifact, form: Form, base: Base, lineage: Lineage) -> Iterator[str]:
    done = f", {_MADE_BY[_stage(artifact)][0]}" if _stage(artifact) in _MADE_BY else ""
    yield f"{_FORMS[form][2]}{done}. Made and exported by trueup; artifact `{artifact.id}`."
    if form == "features":
        yield (
            "**Other software cannot open this folder.** It holds a trunk, the frozen model whose likelihoods it reads "
            "and two small heads, in a format of trueup's own (`reward_model.json`)."
        )
    elif form == "adapter":
        yield f"It holds the adapter only. Its base is `{base.source}`, which has to be there to use it."
    elif artifact.meta.get("adapter"):
        yield "A LoRA adapter was merged into its base; weights are stored in float32, so that merging lost nothing."
    if base.origin and base.origin != base.source:
        yield f"Training began with `{base.origin}`."
    if _sources(lineage) and _sources(lineage).keys() <= {"simulated"}:
        yield "**The judgements behind this model come from simulated people: programs, not persons.**"


def _how_to_use(form: Form, folder: Path, base: Base) -> Iterator[str]:
    if form == "features":
        yield "Copy the folder and name it in trueup wherever a reward model is asked for."
        return
    if form == "reward":
        stored = json.loads((folder / "reward_model.json").read_text(encoding="utf-8"))
        format = PromptFormat.load(folder)
        text = format.render_prompt(EXAMPLE) + format.render_completion(EXAMPLE, REPLY)
        yield _fence(_USE_REWARD.format(text=_quoted(text), mean=stored["mean"], std=stored["std"]).strip(), "python")
        yield (
            "The text is a prompt and its completion in the format below, with the token that ends the completion: "
            "the score is read there. `score` has mean 0 and standard deviation 1 on the completions it learnt from. "
            + _padding(folder)
        )
        return
    start = _USE_ADAPTER.format(base=_quoted(base.source))
    code = (start if form == "adapter" else _USE_MODEL) + _GENERATE.format(question=_quoted(EXAMPLE.text))[1:]
    yield _fence(code.strip(), "python")


def _padding(folder: Path) -> str:
    pad = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("pad_token")
    return f"Batches are padded on the right with `{pad}`." if pad else "The tokenizer cannot pad: one text at a time."


def _prompt_format(format: PromptFormat) -> Iterator[str]:
    stops = ", ".join(f"`{stop}`" for stop in format.stops)
    yield (
        "The tokenizer's chat template writes it, the system text included where there is one. "
        f"A completion ends with {stops}. A prompt, up to where the model begins to write:"
    )
    yield _fence(format.render_prompt(EXAMPLE))
    yield "And a completion of it:"
    yield _fence(format.render_completion(EXAMPLE, REPLY))


def _sources(lineage: Lineage) -> Counter[str]:
    """Of a set whose texts were judged anew the judgements took no part."""
    counts: Counter[str] = Counter()
    waiting, seen = [lineage.root], set()
    while waiting:
        if (identity := waiting.pop()) in seen:
            continue
        seen.add(identity)
        node = lineage.nodes[identity]
        waiting += [source for role, source in node.sources.items() if role != "texts"]
        for entry in node.judgements:
            counts[entry["source"]] += entry["count"]
    return counts


def _judged(lineage: Lineage) -> Iterator[str]:
    counts = _sources(lineage)
    if not counts:
        yield "No judgements went into it."
        return
    yield "Judgements that went into it, by source:"
    yield _table(("source", "judgements"), {source: f"{count:,}" for source, count in sorted(counts.items())})
    if "simulated" in counts:
        yield "Simulated judgements were made by programs that stand in for people. No person gave them."


def _run(ws: Workspace, artifact: Artifact, lineage: Lineage) -> Iterator[str]:
    maker = lineage.nodes[artifact.id].run
    yield "## How it was trained"
    if maker is None:
        yield "No run of this workspace made it; how it was trained is unknown here."
        return
    row = ws.run_row(maker["id"])
    yield f"Run `{row.id}`, stage `{row.stage}`, seed {row.seed}."
    found = flat(row.result)
    if step := next((role.partition("@")[2] for role, made in row.outputs.items() if made == artifact.id), ""):
        yield f"It is step {step} of that run, and not the model that the run itself ended with."
        found = next((each for each in Run(ws, row).metrics() if each.get("step") == int(step)), {})
    if results := {key: _shown(value) for key, value in found.items() if key not in INTERNAL}:
        yield "Results, as the run recorded them:"
        yield _table(("result", "value"), results)
    yield "Settings:"
    yield _fence(*_settings(row.stage, row.config))
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in row.versions.items()) + "."


def _settings(stage: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """As the TOML that repeats them; as stored if an older trueup had settings that this one does not know."""
    try:
        return as_toml(STAGES[stage].model_validate(dict(config))).strip(), "toml"
    except (KeyError, ValidationError):
        return json.dumps(config, indent=1, ensure_ascii=False), "json"


def _audits(ws: Workspace, lineage: Lineage) -> dict[str, dict[str, Any]]:
    """The last audit of each reward model that had a part in it, itself included."""
    rewards = [node.id for node in lineage.nodes.values() if node.kind == "reward"]
    return {identity: audit for identity in rewards if (audit := latest_audit(ws, identity))}


def _measured(
    artifact: Artifact, told: Iterable[Mapping[str, Any]], audits: Mapping[str, Any], lineage: Lineage
) -> Iterator[str]:
    parts = [line for each in told for line in measured.lines(each, artifact.id)]
    about_rewards = [
        line for identity, audit in audits.items() for line in measured.audit_lines(_called(lineage, identity), audit)
    ]
    if parts:
        yield "Runs of this workspace that measured it, oldest first. Never a rate without its interval and n."
    elif artifact.id not in audits:
        yield "No evaluation of it is in the workspace that it comes from."
    yield from parts
    if audits.keys() - {artifact.id}:
        yield "The reward model behind it was audited; of this model itself that says nothing."
    elif not audits and artifact.meta.get("stage") == "rl":
        yield "The reward model behind it was not audited."
    yield from about_rewards


def _limits(form: Form, artifact: Artifact, was_measured: bool) -> Iterator[str]:
    known = "no more was measured than is said above" if was_measured else "nothing was measured"
    yield (
        f"For research, and for whoever made it to evaluate further. Of this model {known}: what else it does well or "
        "badly, its biases, and whether it is safe to use are unknown."
    )
    if bits := artifact.meta.get("quantised"):
        where = "On the whole base" if form == "adapter" else "Merged into the whole base, as here,"
        yield f"Its adapter learnt beside a base in {bits}. {where} it gives near but not equal numbers."
    if form in ("reward", "features"):
        yield (
            "A reward model repeats the taste and the errors of its judges, and knows only texts like those they saw. "
            "Its scores compare completions of one prompt; they are not a measure of truth or harm."
        )
    elif _stage(artifact) == "rl" or "reward" in artifact.parents:
        yield "It was tuned to please a reward model. A higher score of that model is no proof of a better answer."
    yield (
        "The licence is left to its owner to choose; those of the base model and of the data apply as well. "
        "Complete this card before publishing the model."
    )


def _stage(artifact: Artifact) -> str:
    return str(artifact.meta.get("stage", ""))


def _table(columns: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [columns, ("---", "---"), *rows.items()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "unknown" if value is None else str(value)


def _fence(text: str, language: str = "text") -> str:
    """A code block that nothing in the text can close."""
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    mark = "`" * (longest + 1)
    return f"{mark}{language}\n{text}\n{mark}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
