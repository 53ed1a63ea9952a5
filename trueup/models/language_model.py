"""A causal language model with its tokenizer and prompt format: what every stage trains, samples or compares.

`hidden` runs the trunk over rows, `logprobs` reads the log-probability of each completion token. Prompt positions
never reach the vocabulary projection; that alone is most of what a plain `model(...).logits` would waste.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..algo.logprobs import chunked_logprobs, entropy_of, token_logprobs
from ..errors import ModelError
from ..records import Completion, Prompt
from ..text.chat import Encoder
from .last_block import finishing_only
from .packed import row_by_row
from .rows import PLAIN, Group, Layout, Rows, lay_out

# Above this many logits (64 MiB in fp32) the projection is done in chunks that are recomputed in the backward pass.
WHOLE_LOGITS = 2**24


class LanguageModel(nn.Module):
    """A transformers causal LM. `network` may carry LoRA layers; `adapter` is then the peft object that owns them."""

    def __init__(self, network: Any, encoder: Encoder, *, adapter: Any = None, source: str = "") -> None:
        super().__init__()
        self.network = network
        encoder.restrict(network.get_input_embeddings().weight.shape[0])
        self.encoder = encoder
        self.source = source  # the artifact these weights came from
        self.chain: tuple[str, ...] = ()  # the folders they were loaded from
        self._adapter = [adapter]  # in a list: peft's wrapper holds `network`, which must not be registered twice
        self.context = context_of(network.config)
        self.eval()  # no dropout, in training neither: it would make ratio noise out of identical weights
        self.layout, self.plain_head = _probe(network)

    @property
    def adapter(self) -> Any:
        return self._adapter[0]

    @property
    def device(self) -> torch.device:
        return self.network.device

    def rows(self, groups: Sequence[Group]) -> Rows:
        """Rows on this model's device, as the model is known to compute them correctly."""
        return lay_out(groups, self.encoder.pad_id, self.layout).to(self.device)

    def groups(self, completions: Sequence[Sequence[Completion]]) -> list[Group]:
        """Tokens of completions that answer one prompt each; text without tokens is encoded as the model would."""
        return [
            (self.encoder.prompt(group[0].prompt), [self.tokens(completion) for completion in group])
            for group in completions
        ]

    def tokens(self, completion: Completion) -> Sequence[int]:
        return completion.tokens or self.encoder.completion(
            completion.prompt, completion.text, finished=completion.finished
        )

    def fits(self, prompt: Prompt, room: int) -> bool:
        return len(self.encoder.prompt(prompt)) + room <= self.context

    def hidden(self, rows: Rows, *, whole: bool = False) -> torch.Tensor:
        """Final hidden states, flat: (b*t, width). No cache, no logits.

        They are there before completion tokens; elsewhere only in the `whole`.
        """
        return run_trunk(self.network.get_decoder(), rows, None if whole else rows.read_n)

    def logprobs(self, rows: Rows, temperature: float = 1.0, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Log-probability of each completion token under the distribution that sampling at `temperature` draws from.

        (c, l), zero where `mask_cl` is False. At least fp32.
        """
        hidden = self.hidden(rows) if hidden is None else hidden
        found = self.read(hidden[rows.before_n], rows.target_n, temperature)
        return found.new_zeros(rows.mask_cl.shape).masked_scatter(rows.mask_cl, found)

    def read(self, hidden_nd: torch.Tensor, target_n: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """log p(target | hidden state), through the vocabulary projection."""
        head = self.network.get_output_embeddings()
        if self.plain_head and len(target_n) * head.weight.shape[0] > WHOLE_LOGITS:
            return chunked_logprobs(hidden_nd, head.weight, target_n, temperature, bias=head.bias)
        return token_logprobs(self.logits(hidden_nd), target_n, temperature)

    def entropy(self, hidden_nd: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """How undecided the next token is after each hidden state, in nats; with its gradient."""
        return entropy_of(self.logits, hidden_nd, temperature)

    def logits(self, hidden_nd: torch.Tensor) -> torch.Tensor:
        return _finish_logits(self.network.get_output_embeddings()(hidden_nd), self.network.config)


def context_of(config: Any) -> int:
    """The longest row the model was made for; a model without position limits gets one that is never reached."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)


def _finish_logits(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What some families do after the projection (Gemma's soft cap, Cohere's and Granite's scales)."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


@torch.no_grad()
def _probe(network: Any) -> tuple[Layout, bool]:
    """Ask the model itself, on eight tokens, what it computes correctly: (how rows may lie, plain head).

    Families differ in how they treat a 4-D mask (sliding windows, ALiBi, recurrent layers) and in what follows the
    projection. A wrong guess would shift log-probs silently, so nothing is assumed from a name.
    """
    trunk, head = network.get_decoder(), network.get_output_embeddings()
    plain = _probe_rows(network, PLAIN)
    states = run_trunk(trunk, plain)
    logits = network(
        input_ids=plain.tokens_bt, attention_mask=plain.real_bt, position_ids=plain.positions_bt, use_cache=False
    ).logits
    if not alike(_finish_logits(head(states), network.config), logits.flatten(0, 1)):
        raise ModelError(
            f"{type(network).__name__} does more between its trunk and its logits than trueup knows",
            "use a model of the Llama, Qwen, Mistral, Gemma, GPT-2 or GPT-NeoX kind",
        )
    known = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    return trunk_layout(trunk), not any(getattr(network.config, k, None) for k in known)


@torch.no_grad()
def trunk_layout(trunk: Any) -> Layout:
    """How rows may lie: may completions stand side by side, and rows one after another?

    Packed on a CPU only: what many small calls of attention cost on a GPU was not measured.
    """
    if getattr(trunk.config, "sliding_window", None):  # eight tokens cannot show what a window does to a long row
        return PLAIN
    shared = _computes(trunk, Layout(shared=True))
    if trunk.device.type != "cpu":
        return Layout(shared, trimmed=_computes(trunk, Layout(shared, trimmed=True)))
    packed = _computes(trunk, Layout(packed=True)) and (not shared or _computes(trunk, Layout(True, True)))
    return Layout(shared, packed, _computes(trunk, Layout(shared, packed, trimmed=True)))


def _computes(trunk: Any, layout: Layout) -> bool:
    """Does the trunk give a completion the same states in this layout as in a row of its own?"""
    plain, rows = _probe_rows(trunk, PLAIN), _probe_rows(trunk, layout)
    try:
        return alike(run_trunk(trunk, plain)[plain.before_cl], run_trunk(trunk, rows, rows.read_n)[rows.before_cl])
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return False


def run_trunk(trunk: Any, rows: Rows, at_n: torch.Tensor | None = None) -> torch.Tensor:
    """Final hidden states, flat (b*t, width): no cache, no logits. With `at_n`, at these positions only."""
    mask = None if rows.packed else rows.real_bt if rows.allow_b1tt is None else rows.allow_b1tt
    with ExitStack() as ways:
        if rows.packed:
            ways.enter_context(row_by_row(trunk, rows.packed))
        if at_n is not None:
            ways.enter_context(finishing_only(trunk, at_n))
        states = trunk(
            input_ids=rows.tokens_bt, attention_mask=mask, position_ids=rows.positions_bt, use_cache=False
        ).last_hidden_state
    return states.reshape(-1, states.shape[-1])


def _probe_rows(network: Any, layout: Layout) -> Rows:
    limit = network.get_input_embeddings().weight.shape[0]
    prompt, first, second = ([i % limit for i in ids] for ids in ((5, 11, 3, 7), (9, 2), (4, 8)))
    return lay_out([(prompt, [first, second])], 0, layout).to(network.device)


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for rounding, row by row: a wrong mask or position changes a row by far more."""
    limit = 3e-2 if a.dtype.itemsize < 4 else 1e-4
    return bool(((a - b).norm(dim=-1) <= limit * b.norm(dim=-1)).all())
