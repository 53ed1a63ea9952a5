"""The loop every training stage shares: resume, step, checkpoint, stop. A stage's own loop reads

    for step in loop.steps():
        ...                                  # what this stage is about
        loop.update(items, loss_sum, count, tokens)  # one optimizer step in micro-batches, skipped when not finite
        loop.log(loss=...)

What is random or ordered in a stage must be a function of (seed, step), never of state kept in Python: then weights,
optimizer and these few counters are all a resumed run needs to equal an uninterrupted one.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..config import StageConfig
from ..errors import Interrupted, RunError, TrueupError
from ..models.device import out_of_memory, release_freed_memory, use_threads
from ..runs.checkpoints import WEIGHTS
from ..runs.progress import note, track
from ..runs.run import Run
from ..runs.signals import graceful
from ..text.batches import alike, in_turn, padding_share
from .optimizers import Optimizer, rate

T = TypeVar("T")
SHOWN = ("loss", "accuracy", "score", "kl")  # what stands beside the progress bar
LossSum = Callable[[Sequence[Any]], tuple[torch.Tensor, dict[str, torch.Tensor]]]
MUCH_PADDING, SOME_PADDING = 0.25, 0.04  # shares of the positions: from when to sort, and what is left then


class Loop:
    """One run's training: `modules[0]` is the trunk, the rest are heads. The world has one member until it has more."""

    def __init__(
        self,
        run: Run,
        modules: Sequence[nn.Module],
        config: StageConfig,
        total: int,
        head_lr: float = 0.0,
        follower: nn.Module | None = None,
    ) -> None:
        """`follower` is not trained but changes with the steps: checkpoints hold its weights too."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world != 1:
            raise RunError(f"started with WORLD_SIZE={world}, but stages run in one process", "start without torchrun")
        self.run, self.modules, self.config, self.total = run, list(modules), config, total
        self.optimizer = Optimizer(modules, config.optimizer, head_lr)
        self.follower = follower
        self._adapters = not all(p.requires_grad for p in self.modules[0].parameters())
        self.micro_batch = config.run.micro_batch
        self.skipped = 0
        self._skipped_at = 0
        self.step = 0
        self.memory: dict[str, Any] = {}  # what a stage itself must remember, as JSON (score constants, ...)
        self._values: dict[str, float] = {}
        self._score: float | None = None
        self._stopped = False
        self._learnt: dict[str, float] | None = None  # what a step logged whose evaluation failed and is still to do
        use_threads(config.run.threads)
        for module in self.modules:
            module.eval()  # dropout off everywhere: identical weights must give identical log-probs
        if run.goes_on:  # the last two, the best and the one being written, less those that are there
            run.need_space(self._checkpoint_bytes() * max(1, 4 - len(run.checkpoints())) + self._kept_bytes())
        if run.resume_folder is not None:
            self._load(run.resume_folder)

    def steps(self, examine: Callable[[], None] | None = None) -> Iterator[int]:
        """Step numbers still to do. Logging, checkpoints, Ctrl-C and the progress bar happen between them.

        `examine` evaluates what a step left, where that is due. If it fails, what was learnt is kept, and a resumed run
        begins with it: to yield that step again would be to learn from it twice.
        """
        every, label = self.config.run.checkpoint_every, self.config.stage
        self.run.stops_itself = True
        with graceful() as stop_requested, track(self.total, label, start=self.step) as advance:
            while self.step < self.total and not self._stopped and self.run.goes_on:
                self.step += 1
                learnt, self._learnt = self._learnt, None
                self._values, self._score = learnt or {}, None
                if learnt is None:
                    yield self.step
                if examine is not None and self.evaluation_due:
                    with self._learnt_kept():
                        examine()
                self.run.log(self.step, self._values)
                advance(1, **{key: self._values[key] for key in SHOWN if key in self._values})
                asked = stop_requested() or self.run.stop_asked  # once: a signal between two looks would be half obeyed
                last = self.step == self.total or self._stopped
                if last or asked or self._score is not None or self.step % every == 0:
                    self.run.checkpoint(self.step, self._save, score=self._score)
                if asked and not last:
                    raise Interrupted(
                        f"stopped at step {self.step} of {self.total}; the checkpoint is written",
                        self.run.resume_command,
                    )
        self.run.stops_itself = False
        if not self.run.goes_on:
            if self._learnt is not None:
                self.run.log(self.step, self._learnt)
            self.run.tell("end", f"ended after step {self.step} of {self.total}, as asked")
        if self.skipped > 1:  # the first was said when it came
            note(f"{label}: {self.skipped} steps in all were skipped: loss or gradient not finite")

    def update(
        self,
        items: Sequence[Any],
        loss_sum: LossSum | Sequence[LossSum],
        count: float,
        tokens: Callable[[Any], int],
        by_length: bool = False,
    ) -> dict[str, float]:
        """One optimizer step on the sum of losses over `items` divided by `count`, in micro-batches.

        `loss_sum(part)` returns the SUM over its part: with one global `count` below, the gradient does not depend on
        how the items were split. Of several, each is done with before the next: their graphs are never in memory
        together. `tokens(item)` is the length of its row, for when that is what does not fit. Items
        that need not stay side by side may be taken `by_length`, where much of a batch would be padding.
        """
        lengths = [*map(tokens, items)]
        sums = [loss_sum] if callable(loss_sum) else loss_sum

        def work(size: int) -> dict[str, float]:
            parts = in_turn(len(items), size)
            if by_length and padding_share(lengths, parts) > MUCH_PADDING:
                parts = alike(lengths, size, SOME_PADDING)
            return self._accumulate([[items[i] for i in part] for part in parts], sums, count)

        totals = self.within_memory(work, lengths)
        norms = self.optimizer.clip()
        loss = totals["loss"]
        if not all(math.isfinite(each) for each in (loss, *norms.values())):
            self._skip(loss, norms)
        else:
            lowered = self.memory.get("lr_scale", 1.0)
            self.optimizer.step(lowered * rate(self.config.optimizer, self.step, self.total))
        return totals | norms

    def within_memory(self, work: Callable[[int], T], lengths: Sequence[int]) -> T:
        """`work(micro_batch)`, done again with half as many rows at once whenever memory runs out."""
        while True:
            size = min(self.micro_batch or len(lengths), len(lengths))
            try:
                return work(size)
            except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU only the message tells
                self._halve_micro_batch(error, size, max(lengths))
            # Only here: until its handler ends, the error keeps every tensor of the failed attempt alive.
            self.optimizer.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def between_phases(self) -> None:
        """What a rollout left has nothing in common with an update: where memory matters most, it is given back."""
        if self._adapters:
            release_freed_memory()

    def log(self, **values: float | torch.Tensor | None) -> None:
        self._values |= {k: float(v) for k, v in values.items() if v is not None}

    def evaluated(self, score: float) -> None:
        """This step has a held-out score (higher is better): it gets a checkpoint, and the best one is kept."""
        self._score = score

    @property
    def evaluation_due(self) -> bool:
        return self.step % self.config.run.evaluate_every == 0 or self.step == self.total

    @property
    def rows_at_once(self) -> int:
        """How many rows an evaluation may take at once: those that fit with a gradient fit without one."""
        return self.micro_batch or self.config.batch_size

    def stop(self, reason: str) -> None:
        """End after this step. The event stands before its checkpoint, so a kill in between loses neither."""
        self._stopped = True
        self.run.tell("stop", reason, step=self.step)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Around what comes before a step's first update: if it fails, the weights are those of the step before it."""
        memory = copy.deepcopy(self.memory)
        try:
            yield
        except TrueupError:
            failed = self.step
            self.step, self.memory = self.step - 1, memory
            if self.step > 0 and all(step != self.step for step, _ in self.run.checkpoints()):
                self.run.checkpoint(self.step, self._save)
                self.run.tell("kept", f"step {failed} failed; the weights of step {self.step} are kept")
            raise

    @contextmanager
    def _learnt_kept(self) -> Iterator[None]:
        values = dict(self._values)
        try:
            yield
        except TrueupError:
            self._learnt = values
            self.run.checkpoint(self.step, self._save)
            self.run.tell("kept", f"the evaluation of step {self.step} failed; the weights of the step are kept")
            raise

    def keep_start(self, score: float) -> None:
        """A checkpoint of what the run starts from, as something that a step may turn out to be no better than."""
        assert self.step == 0
        self.run.checkpoint(0, self._save, score=score)

    def roll_back(self) -> int:
        """Weights and optimizer as they were at the best checkpoint; the steps go on counting. Returns its step."""
        best = self.run.best()
        if best is None:  # it was damaged, and somebody deleted it
            raise RunError("no checkpoint with a held-out score is left to go back to", "start a new run")
        step, folder = best
        self._load_weights(folder)
        self.optimizer.load(load_file(folder / "optimizer.safetensors"))
        return step

    def restore_best(self) -> int:
        """Put the best checkpoint's weights back; returns its step."""
        best = self.run.best()
        if best is None:
            return self.step
        step, folder = best
        self._load_weights(folder)
        return step

    def _accumulate(self, parts: Sequence[Sequence[Any]], sums: Sequence[LossSum], count: float) -> dict[str, float]:
        self.optimizer.zero_grad()
        totals: dict[str, torch.Tensor] = {}
        for part, loss_sum in itertools.product(parts, sums):
            if len(sums) > 1 and self._adapters:
                release_freed_memory()
            loss, more = loss_sum(part)
            (loss / count).backward()
            for key, value in {"loss": loss, **more}.items():
                value = value.detach() / count
                totals[key] = totals[key] + value if key in totals else value
        return {k: float(v) for k, v in totals.items()}

    def _halve_micro_batch(self, error: Exception, size: int, longest: int) -> None:
        message = str(error)
        if not out_of_memory(error):
            raise error
        if size == 1:
            raise RunError(
                f"memory ran out at step {self.step} with one row at a time, the longest of {longest} tokens: "
                f"{message.splitlines()[0]}",
                f"lower {self.config.row_limit}, or train less at once: model.adapter=lora",
            ) from error
        self.micro_batch = size // 2
        self.run.tell("memory", f"memory ran out with {size} rows at once; going on with {self.micro_batch}")

    def _skip(self, loss: float, norms: Mapping[str, float]) -> None:
        """Counted once a step: one bad score spoils every pass over a rollout."""
        self.optimizer.zero_grad()
        self.run.event(
            "skip",
            "loss or gradient not finite",
            step=self.step,
            loss=repr(loss),
            norm=", ".join(map(repr, norms.values())),
        )
        if self._skipped_at == self.step:
            return
        self._skipped_at = self.step
        self.skipped += 1
        allowed = self.config.run.max_skipped
        if self.skipped == 1:
            note(f"{self.config.stage}: step {self.step} skipped: loss or gradient not finite (1 of at most {allowed})")
        if self.skipped > allowed:
            raise self._given_up()

    def _given_up(self) -> RunError:
        """A skipped step leaves the weights as they were: where no checkpoint came before, they become one now."""
        failed = self.step
        if not self.run.checkpoints():
            self.step -= 1
            self.run.checkpoint(self.step, self._save)
        step, folder = self.run.checkpoints()[-1]
        return RunError(
            f"{self.skipped} steps had a non-finite loss or gradient (the last: step {failed}); "
            f"the weights of step {step} are kept in {folder}",
            f"`{self.run.resume_command} --end-here` makes a model of what is kept; "
            "or start anew with a lower optimizer.lr, or look at the data and at what the scorer says (trueup score)",
        )

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().contiguous() for name, p in self.optimizer.learnt.items()}

    def _checkpoint_bytes(self) -> int:
        beside = [] if self.follower is None else self.follower.parameters()
        return 3 * self._trained_bytes() + sum(p.numel() * p.element_size() for p in beside)

    def _kept_bytes(self) -> int:
        """Of the weights of evaluations to come, where all are kept."""
        settings = self.config.run
        due = (self.total - self.step) // settings.evaluate_every if settings.keep_weights else 0
        return due * self._trained_bytes()

    def _trained_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.optimizer.learnt.values())

    def _save(self, folder: Path) -> None:
        save_file(self._weights(), folder / WEIGHTS)
        save_file(self.optimizer.state(), folder / "optimizer.safetensors")
        if self.follower is not None:
            save_file(_named(self.follower), folder / "follower.safetensors")
        state = {
            "step": self.step,
            "skipped": self.skipped,
            "micro_batch": self.micro_batch,
            "stopped": self._stopped,
            "learnt": self._learnt,
            "memory": self.memory,
            "torch_random": torch.get_rng_state().numpy().tobytes().hex(),
        }
        (folder / "loop.json").write_text(json.dumps(state))

    def _load(self, folder: Path) -> None:
        self._load_weights(folder)
        self.optimizer.load(load_file(folder / "optimizer.safetensors"))
        state = json.loads((folder / "loop.json").read_text())
        self.step, self.skipped, self._stopped = state["step"], state["skipped"], state["stopped"]
        self.micro_batch, self.memory = state["micro_batch"], state["memory"]
        self._learnt = state["learnt"]
        if self._learnt is not None and self.run.goes_on:
            self.step -= 1  # this step is not done
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch_random"]), dtype=torch.uint8))

    def _load_weights(self, folder: Path) -> None:
        with torch.no_grad():
            for name, tensor in load_file(folder / WEIGHTS).items():
                self.optimizer.learnt[name].copy_(tensor)
            self.optimizer.round()
            if self.follower is not None:
                named = dict(self.follower.named_parameters())
                for name, tensor in load_file(folder / "follower.safetensors").items():
                    named[name].copy_(tensor)


def _named(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().contiguous() for name, parameter in module.named_parameters()}
