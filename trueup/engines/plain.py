"""The plain way to write rows: they start together, padded on the left, with transformers' own masks and attention.

For models of which it is not known that `continuous` computes the same: sliding windows that the rows outgrow, ALiBi,
recurrent layers. Rows that are done leave now and then; nobody takes their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..config import Sampling
from ..models.language_model import LanguageModel
from .cache import roomy_cache
from .row import Pick, Row

DROP_AT = 0.85  # finished rows leave when this share or less is still writing: leaving copies the whole cache


def write(
    model: LanguageModel,
    rows: Sequence[Row],
    sampling: Sampling,
    pick: Pick,
    at_once: int,
    done: Callable[[Row], None],
) -> None:
    """Write all rows to their end. Those of one prompt stand side by side, those of like length near each other."""
    for start in range(0, len(rows), at_once):
        _write_together(model, rows[start : start + at_once], sampling, pick, done)


def _write_together(
    model: LanguageModel,
    rows: Sequence[Row],
    sampling: Sampling,
    pick: Pick,
    done: Callable[[Row], None],
) -> None:
    device, trunk, limit = model.device, model.network.get_decoder(), max(row.limit for row in rows)
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    tokens, seen, positions = _left_pad(prompts, model.encoder.pad_id, device)
    cache = roomy_cache(model.network.config, limit)
    draws = torch.stack([torch.from_numpy(row.draws()) for row in rows]).to(device)
    hidden = trunk(
        input_ids=tokens, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state[:, -1]
    if len(prompts) < len(rows):  # a prompt is read once for all its completions
        of = torch.tensor([prompts.index(row.prompt) for row in rows], device=device)
        cache.batch_select_indices(of)
        hidden, seen = hidden[of], seen[of]
    alive = list(rows)
    for t in range(limit):
        chosen, logprob = pick(model.logits(hidden), alive, draws[:, t], sampling)
        for row, token, value in zip(alive, chosen.tolist(), logprob.tolist(), strict=True):
            if not row.done:
                row.take(token, value, model.encoder.stop_ids)
                if row.done:
                    done(row)
        going = [i for i, row in enumerate(alive) if not row.done]
        if not going:
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


def _left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, mask and positions; padding on the left so that all rows are written at the same column."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return tokens, seen, (seen.cumsum(1) - 1).clamp(min=0)
