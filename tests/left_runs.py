"""Runs as stages leave them, without training anything: for what reads runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trueup.runs import Run
from trueup.store import Workspace


def prompts(ws: Workspace, count: int, words: str = "What is {}?") -> Any:
    rows = [json.dumps({"messages": [{"role": "user", "content": words.format(i)}]}) for i in range(count)]
    return ws.put("prompts", {"prompts.jsonl": "\n".join(rows).encode()}, meta={"count": count})


def sample(prompt: str, text: str, score: float, step: int = 0) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": text,
        "finished": step % 3 > 0,
        "length": len(text.split()),
        "score": score,
        "kl": step / 9,
    }


def rl_run(
    ws: Workspace, steps: int = 12, each: int = 4, text: str = "about @prompt at @step",
    also: Callable[[int], dict[str, float]] = lambda step: {}, **row: Any,
) -> Run:  # fmt: skip
    """A run as RL leaves one: metrics, evaluations, rollouts, a rollback; nothing is trained. `also` is logged, too."""
    config = {"prompts_per_step": each, "samples_per_prompt": 2, "optimizer": {"lr": 0.25}, "run": {"seed": 3}}
    run = Run.start(ws, "rl", config, row.pop("inputs", {}), seed=3, **row)
    texts = [(f"p{i}", text.replace("@prompt", str(i))) for i in range(each)]
    run.event("start", "what evaluations are compared with", prompts=each, heldout_score=0.1, heldout_kl=0.0)
    run.keep_samples(0, [sample(p, t.replace("@step", "0"), i / 7) for i, (p, t) in enumerate(texts)], heldout=True)
    for step in range(1, steps + 1):
        rows = [
            sample(p, t.replace("@step", str(step)), step + i + k, step)
            for i, (p, t) in enumerate(texts)
            for k in range(2)
        ]
        run.keep_samples(step, rows)
        values = {"score": sum(row["score"] for row in rows) / len(rows), "kl": step / 9, "length": 4.0}
        if step in (steps // 2, steps):
            run.keep_samples(
                step,
                [sample(p, t.replace("@step", str(step)) + " more", 9 - i, step) for i, (p, t) in enumerate(texts)],
                heldout=True,
            )
            values |= {"heldout_score": 7.5, "heldout_kl": step / 9}
        run.log(step, values | also(step))
    run.event("rollback", "the judge's score fell", step=steps // 2)
    return run
