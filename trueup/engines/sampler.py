"""The built-in engine: batched sampling with a key-value cache over transformers modules.

A prompt is prefilled once for all its completions, finished rows leave the batch, and the log-probability of each
token is that of the distribution it was drawn from. Randomness belongs to the completion, not to the batch: the
i-th completion of a call draws its j-th token with the uniform number u[i, j], so the same seed gives the same text
whatever the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..config import Sampling
from ..errors import ModelError
from ..models.adapters import merged
from ..models.language_model import LanguageModel
from ..records import Completion, Prompt
from .cache import roomy_cache

DROP_AT = 0.85  # finished rows leave when this share or less is still writing: leaving copies the whole cache


class Sampler:
    """An `Engine` over a model in this process. It reads the model's present weights, so it is never out of date."""

    def __init__(self, model: LanguageModel, progress: Callable[[int], None] | None = None) -> None:
        self.model = model
        self.progress = progress or (lambda count: None)

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        encoded = [self.model.encoder.prompt(prompt) for prompt in prompts]
        self._check_lengths(encoded, sampling.max_new_tokens)
        done: list[_Row | None] = [None] * (len(prompts) * n)
        # Prompts of like length go together: less padding. The order of the answer is the order of the question.
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        size = max(1, sampling.batch_size // n)
        training = self.model.training
        self.model.eval()
        with merged(self.model):
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                rows = [_Row(i * n + k) for i in chosen for k in range(n)]
                self._decode([encoded[i] for i in chosen], rows, sampling, seed, n)
                for row in rows:
                    done[row.index] = row
                self.progress(len(chosen))
        self.model.train(training)
        return [self._completion(prompts[i // n], row) for i, row in enumerate(done) if row is not None]

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

    def _decode(self, prompts: list[tuple[int, ...]], rows: list[_Row], sampling: Sampling, seed: int, n: int) -> None:
        """Fill `rows` (n for each prompt, in order) token by token until all have stopped."""
        device, stops = self.model.device, self.model.encoder.stop_ids
        tokens, seen, positions = _left_pad(prompts, self.model.encoder.pad_id, device)
        trunk = self.model.network.get_decoder()
        cache = roomy_cache(self.model.network.config, sampling.max_new_tokens)
        draws = _uniform(seed, [row.index for row in rows], sampling.max_new_tokens).to(device)
        hidden = trunk(
            input_ids=tokens, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        if n > 1:
            cache.batch_repeat_interleave(n)
            hidden, seen = hidden.repeat_interleave(n, 0), seen.repeat_interleave(n, 0)
        alive = list(rows)
        for t in range(sampling.max_new_tokens):
            chosen, logprob = choose(self.model.logits(hidden), draws[:, t], sampling)
            for row, token, value in zip(alive, chosen.tolist(), logprob.tolist(), strict=True):
                row.take(token, value, stops)
            going = [i for i, row in enumerate(alive) if not row.finished]
            if not going or t + 1 == sampling.max_new_tokens:
                return
            if len(going) <= DROP_AT * len(alive):
                keep = torch.tensor(going, device=device)
                alive, draws, chosen, seen = [alive[i] for i in going], draws[keep], chosen[keep], seen[keep]
                cache.batch_select_indices(keep)
            position = seen.sum(1, keepdim=True)
            seen = torch.cat([seen, seen.new_ones(len(alive), 1)], 1)
            hidden = trunk(
                input_ids=chosen[:, None],
                attention_mask=seen,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]

    def _completion(self, prompt: Prompt, row: _Row) -> Completion:
        text = self.model.encoder.decode(row.tokens)
        return Completion(prompt, text, tuple(row.tokens), tuple(row.logprobs), row.finished, self.model.source)

    def _check_lengths(self, encoded: Sequence[Sequence[int]], room: int) -> None:
        longest = max(map(len, encoded), default=0)
        if longest + room > self.model.context:
            raise ModelError(
                f"a prompt of {longest} tokens and {room} new tokens do not fit the context of {self.model.context}",
                "lower sampling.max_new_tokens or shorten the prompts",
            )


@dataclass
class _Row:
    """One completion being written: `index` is its place in the answer and in the table of random draws."""

    index: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False

    def take(self, token: int, logprob: float, stops: Collection[int]) -> None:
        """The next token; a row that has stopped but not yet left the batch takes no more."""
        if not self.finished:
            self.tokens.append(token)
            self.logprobs.append(logprob)
            self.finished = token in stops


def choose(logits_nv: torch.Tensor, draw_n: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row by inverting the cumulative distribution at `draw_n`, and its log-probability.

    Greedy at temperature 0 (log-probabilities are then those of temperature 1: a point mass has none worth storing).
    The sum runs in double precision: over 100,000 tokens a float's rounding would move the tail.
    """
    if sampling.temperature == 0:
        logprobs = torch.log_softmax(logits_nv.float(), -1)
        chosen = logprobs.argmax(-1)
    else:
        logprobs = torch.log_softmax(_restrict(logits_nv.float() / sampling.temperature, sampling), -1)
        total = logprobs.double().exp().cumsum(-1)
        chosen = torch.searchsorted(total, (draw_n * total[:, -1])[:, None], right=True).squeeze(1)
        chosen = chosen.clamp(max=logits_nv.shape[-1] - 1)
    return chosen, logprobs.gather(-1, chosen[:, None]).squeeze(1)


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


def _uniform(seed: int, indices: Sequence[int], count: int) -> torch.Tensor:
    """`count` uniform numbers for each completion, from a stream of its own: (seed, index) decides, nothing else."""
    streams = (np.random.Generator(np.random.Philox(key=[seed, index])) for index in indices)
    return torch.from_numpy(np.stack([stream.random(count) for stream in streams]))


def _left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, mask and positions; padding on the left so that all rows are written at the same column."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return tokens, seen, (seen.cumsum(1) - 1).clamp(min=0)
