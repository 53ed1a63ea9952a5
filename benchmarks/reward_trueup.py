"""Train a reward model with trueup for a few steps and print one JSON line: `benchmarks reward` runs this."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.measured import peak_mib, resident_mib


def main(language_model: str, reward_model: str, pairs: str, batch: int, steps: int, skip: int, threads: int) -> None:
    import torch

    import trueup
    from trueup.config import ModelSettings
    from trueup.loading import read_judgements
    from trueup.models.load import load_reward
    from trueup.runs import runs
    from trueup.train.judged import judged

    torch.set_num_threads(threads)
    import trueup.train.reward  # noqa: F401  (what importing costs is not what training costs)

    before = resident_mib()
    with tempfile.TemporaryDirectory() as folder, trueup.Workspace.create(Path(folder) / "w") as ws:
        data = trueup.add_data(ws, pairs, "preferences", heldout=0.0).artifact
        trueup.reward(
            ws, base=language_model, data=data, steps=steps, batch_size=batch, model={"adapter": "none"},
            optimizer={"lr": 1e-5, "schedule": "constant"},
            run={"threads": threads, "tensorboard": False, "checkpoint_every": 10**6, "evaluate_every": 10**6},
        )  # fmt: skip
        (run,) = runs(ws)
        timing = {row["step"]: row for row in run.timing()}
        peak = peak_mib()
        model = load_reward([reward_model], ModelSettings(device="cpu"))
        items, _ = judged(model.encoder, read_judgements(data), model.context)
    first, last = timing[skip], timing[steps]
    print(
        json.dumps(
            {
                "pairs": batch * (steps - skip),
                "cpu_seconds": last["cpu"] - first["cpu"],
                "seconds": last["wall"] - first["wall"],
                "mib": peak - before,
                "losses": _losses(model, items[:batch]),
                "tokens": sum(2 * len(prompt) + sum(map(len, answers)) for prompt, answers in (i.group for i in items)),
                "version": trueup.__version__,
            }
        )
    )


def _losses(model, items) -> list[float]:  # type: ignore[no-untyped-def]
    """Of each pair by itself, from the very weights that the other side reads too."""
    import torch

    from trueup.models.rows import lay_out
    from trueup.train.reward import likelihood_loss

    with torch.no_grad():
        rows = lay_out([item.group for item in items], model.pad_id, shared=model.shares_prompts)
        scores = model.by_objective(model(rows)).split([len(item.group[1]) for item in items])
        return [float(likelihood_loss(s, item)) for s, item in zip(scores, items, strict=True)]


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:8]))
