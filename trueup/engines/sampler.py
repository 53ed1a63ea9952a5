"""The built-in engine: batched sampling with a key-value cache over transformers modules.

A prompt is read once for all its completions, and the place of a finished row goes to the next one (`continuous`;
`plain` for models that need it). The log-probability of each token is that of the distribution it was drawn from.
Randomness belongs to the completion, not to the batch: the i-th completion of a call draws its j-th token with the
uniform number u[i, j], so the same seed gives the same text whatever the batch size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

import torch

from ..config import Sampling
from ..errors import ModelError
from ..models.adapters import merged
from ..models.device import out_of_memory
from ..models.language_model import LanguageModel
from ..records import Completion, Prompt
from ..runs.progress import note
from . import continuous, plain
from .row import Row

WINDOWS = ("sliding_window", "attention_chunk_size")  # how far back some layers look, by the names in a config
CHUNK = 64  # tokens whose probabilities are added up first when one of a vocabulary is chosen


class Sampler:
    """An `Engine` over a model in this process. It reads the model's present weights, so it is never out of date."""

    def __init__(self, model: LanguageModel, progress: Callable[[int], None] | None = None) -> None:
        self.model = model
        self.progress = progress or (lambda count: None)
        self._rows_that_fit: int | None = None  # known once memory has run out

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        encoded = [tuple(self.model.encoder.prompt(prompt)) for prompt in prompts]
        self._check_lengths(encoded, sampling.max_new_tokens)
        limit = sampling.max_new_tokens
        rows = [Row(i * n + k, tokens, limit, seed) for i, tokens in enumerate(encoded) for k in range(n)]
        missing = Counter(row.index // n for row in rows)

        def done(row: Row) -> None:
            missing[row.index // n] -= 1
            if not missing[row.index // n]:
                self.progress(1)

        # Prompts of like length go together: less padding. The order of the answer is the order of the question.
        with self._at_rest():
            self._write(sorted(rows, key=lambda row: (len(row.prompt), row.prompt)), sampling, done)
        return [self._completion(prompts[row.index // n], row) for row in rows]

    @torch.no_grad()
    def logprobs(self, completions: Sequence[Completion], temperature: float = 1.0) -> list[list[float]]:
        found: list[list[float]] = []
        training = self.model.training
        self.model.eval()
        for start in range(0, len(completions), 32):
            rows = self.model.rows(self.model.groups([[c] for c in completions[start : start + 32]]))
            for values, mask in zip(self.model.logprobs(rows, temperature), rows.mask_cl, strict=True):
                found.append(values[mask].tolist())
        self.model.train(training)
        return found

    def pick(
        self, logits_nv: torch.Tensor, rows: Sequence[Row], draw_n: torch.Tensor, sampling: Sampling
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next token of each row and its log-probability: the one place where tokens are chosen.

        `rows[i].index` is the completion's place in the answer, `rows[i].tokens` what it has so far. The logits may be
        changed on the way: the log-probability is of the distribution that is drawn from.
        """
        if sampling.min_new_tokens:
            early = torch.tensor([len(row.tokens) < sampling.min_new_tokens for row in rows], device=logits_nv.device)
            stops = torch.zeros_like(logits_nv[0], dtype=torch.bool)
            stops[[*self.model.encoder.stop_ids]] = True
            logits_nv = logits_nv.masked_fill(early[:, None] & stops, -torch.inf)
        return choose(logits_nv, draw_n, sampling)

    def _write(self, rows: Sequence[Row], sampling: Sampling, done: Callable[[Row], None]) -> None:
        """All rows to their end, with fewer at once whenever memory runs out: who was not done then starts again."""
        way = self._continuous(sampling) if self._fits_pages(rows) else plain.write
        while left := [row for row in rows if not row.done]:
            at_once = min(sampling.batch_size, self._rows_that_fit or len(left), len(left))
            try:
                with torch.inference_mode():  # quicker than without gradients: there are many small operations
                    way(self.model, left, sampling, self.pick, at_once, done)
                return
            except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU only the message tells
                self._halve(error, at_once)
            # Only here: until its handler ends, the error keeps every tensor of the failed attempt alive.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            for row in left:
                if not row.done:
                    row.restart()

    def _continuous(self, sampling: Sampling) -> Callable[..., None]:
        """On a GPU the host looks at what was written only now and then, unless `pick` needs to know it at once."""
        gpu = self.model.device.type == "cuda"
        blind = gpu and type(self).pick is Sampler.pick and not sampling.min_new_tokens
        return partial(continuous.write, static=gpu, stride=continuous.GPU_STRIDE if blind else 1)

    def _fits_pages(self, rows: Sequence[Row]) -> bool:
        """Can the rows go by pages? Attention there looks at all that was written: a window must not be outgrown."""
        config = self.model.network.config.get_text_config()
        windows = [size for name in WINDOWS if (size := getattr(config, name, None))]
        if not windows and {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}:
            return False
        longest = max((len(row.prompt) + row.limit for row in rows), default=0)
        return all(longest <= size for size in windows) and self._goes_by_pages

    @cached_property
    def _goes_by_pages(self) -> bool:
        return continuous.same_as_plain(self.model)

    def _halve(self, error: RuntimeError, at_once: int) -> None:
        if not out_of_memory(error):
            raise error
        if at_once == 1:
            raise ModelError(
                f"memory ran out while a single completion was sampled: {str(error).splitlines()[0]}",
                "lower sampling.max_new_tokens, shorten the prompts, or take fewer bits: model.quantise",
            ) from error
        self._rows_that_fit = at_once // 2
        note(f"memory ran out with {at_once} completions at once; sampling goes on with {self._rows_that_fit}")

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Without dropout, and with LoRA folded in; then as before."""
        training = self.model.training
        self.model.eval()
        try:
            with merged(self.model):
                yield
        finally:
            self.model.train(training)

    def _completion(self, prompt: Prompt, row: Row) -> Completion:
        text = self.model.encoder.decode(row.tokens)
        return Completion(prompt, text, tuple(row.tokens), tuple(row.logprobs), row.finished, self.model.source)

    def _check_lengths(self, encoded: Sequence[Sequence[int]], room: int) -> None:
        longest = max(map(len, encoded), default=0)
        if longest + room > self.model.context:
            raise ModelError(
                f"a prompt of {longest} tokens and {room} new tokens do not fit the context of {self.model.context}",
                "lower sampling.max_new_tokens or shorten the prompts",
            )


def choose(logits_nv: torch.Tensor, draw_n: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row by inverting the cumulative distribution at `draw_n`, and its log-probability.

    Greedy at temperature 0 (log-probabilities are then those of temperature 1: a point mass has none worth storing).
    """
    logits = logits_nv.float() if logits_nv.dtype.itemsize < 4 else logits_nv
    if sampling.temperature > 0:
        logits = _restrict(logits / sampling.temperature, sampling)
    rows, size = logits.shape
    logits = logits - logits.amax(-1, keepdim=True)
    weights = logits.new_zeros(rows, -(-size // CHUNK), CHUNK)
    torch.exp(logits, out=weights.view(rows, -1)[:, :size])
    sums = weights.sum(-1, dtype=torch.float64).cumsum(-1)
    chosen = logits.argmax(-1) if sampling.temperature == 0 else _invert(weights, sums, draw_n)
    return chosen, logits.gather(-1, chosen[:, None]).squeeze(1) - sums[:, -1].log().to(logits.dtype)


def _invert(weights_nkc: torch.Tensor, sums_nk: torch.Tensor, draw_n: torch.Tensor) -> torch.Tensor:
    """Where the running sum of the weights passes the draw's share of the total: first the chunk, then the token in it.

    The sums are in double precision: over 100,000 tokens a float's rounding would move the tail.
    """
    target = _below(draw_n[:, None] * sums_nk[:, -1:], sums_nk[:, -1:])
    chunk = torch.searchsorted(sums_nk, target, right=True)
    inside = weights_nkc.gather(1, chunk[..., None].expand(-1, -1, CHUNK))[:, 0].double().cumsum(-1)
    before = sums_nk.gather(1, (chunk - 1).clamp(min=0)) * (chunk > 0)
    return (chunk * CHUNK + torch.searchsorted(inside, _below(target - before, inside[:, -1:]), right=True)).squeeze(1)


def _below(target: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """At least 0 and less than `end`, whatever rounding says: what is found is then possible."""
    return torch.minimum(target.clamp(min=0), end * (1 - 2**-52))


def _restrict(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Top-k, then top-p: what falls outside gets no probability, the rest is renormalised by the caller."""
    if sampling.top_k:
        kept = logits.topk(min(sampling.top_k, logits.shape[-1]), -1).values[:, -1:]
        logits = logits.masked_fill(logits < kept, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        mass = ordered.softmax(-1).cumsum(-1)
        outside = mass - ordered.softmax(-1) >= sampling.top_p  # the token that crosses the line stays
        logits = logits.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    return logits
