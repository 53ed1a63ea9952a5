"""Keys and values of rows of different length in one pool of blocks, and attention that reads just what is filled.

Each row owns whole blocks, in no particular order; a finished row's blocks go to the next one without anything being
copied. A token's query is multiplied with every block in use at once, and the blocks of a row are joined afterwards by
a softmax over all of them. Blocks are contiguous, which is what makes it fast on a CPU: the same products over slices
of padded rows took four times as long, and padding to the longest row doubles what is read.

transformers lets a model's attention be another function; it is used only where it was seen to compute the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, Cache, DynamicCache

NAME = "trueup_pages"
BLOCK = 16  # tokens; larger blocks leave more of themselves empty, smaller ones cost more calls
UNKNOWN = ("s_aux", "position_bias", "cache")  # what attention here knows nothing of
NOBODY = 1 << 40  # where a block without an owner begins: after every position
CLEARED = 64  # blocks at a time
CROWDED = 0.8  # blocks in use move together when they are a smaller share of those that are read


class Pages(Cache):
    """A transformers cache for one new token a row. Block 0 belongs to nobody: rows that only fill a shape write it."""

    def __init__(self, prompts: PromptPages, blocks: int) -> None:
        super().__init__(layers=[])
        like = prompts.blocks
        self.pool = like.new_empty(like.shape[0], blocks + 1, *like.shape[2:])
        self._clear = 0  # blocks before it have been cleared
        self.owner, self.begins = np.zeros(blocks + 1, np.int64), np.full(blocks + 1, NOBODY)
        self._free, self._fresh = [], 1  # a heap of blocks that were given back; those from `_fresh` on are unused yet
        self._reading: _Reading | None = None

    def take(self, row: int, begins: Sequence[int]) -> list[int]:
        """Blocks for the row's tokens from these positions on, the lowest that are free."""
        found = [heapq.heappop(self._free) if self._free else self._unused() for _ in begins]
        self.owner[found], self.begins[found] = row, begins
        return found

    def give_back(self, blocks: Sequence[int]) -> None:
        self.owner[blocks], self.begins[blocks] = 0, NOBODY
        for block in blocks:
            heapq.heappush(self._free, block)

    def renumber(self, kept: Sequence[int]) -> None:
        """Rows have left: row `kept[i]` is row i from now on."""
        number = np.zeros(1 + max(self.owner[: self._fresh].max(), *kept, 0), np.int64)
        number[list(kept)] = np.arange(len(kept))
        self.owner[: self._fresh] = number[self.owner[: self._fresh]]

    def crowd(self) -> dict[int, int]:
        """Move what is in use together if much of what is read is not; returns which block is where now."""
        count = self._fresh - len(self._free)
        if count > CROWDED * self._fresh:
            return {}
        holes = sorted(block for block in self._free if block < count)
        free = set(self._free)
        beyond = [block for block in range(count, self._fresh) if block not in free]
        assert len(holes) == len(beyond)
        self.pool[:, holes] = self.pool[:, beyond]
        for each in (self.owner, self.begins):
            each[holes] = each[beyond]
        self.owner[count : self._fresh], self.begins[count : self._fresh] = 0, NOBODY
        self._free, self._fresh = [], count
        return dict(zip(beyond, holes, strict=True))

    def in_use(self, at_least: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Owner and first position of each block that is read."""
        count = min(max(self._fresh, at_least), len(self.owner))
        self._clear_until(count)
        return self.owner[:count], self.begins[:count]

    def fill(self, blocks: Sequence[int], prompts: PromptPages, of: Sequence[int]) -> None:
        self.pool[:, blocks] = prompts.blocks[:, of]

    @contextmanager
    def reading(
        self, trunk: Any, position_r: torch.Tensor, where_r: torch.Tensor, owner_n: torch.Tensor, begins_n: torch.Tensor
    ) -> Iterator[None]:
        """Within, `trunk` takes one token a row: row r's is at `position_r`, and is written at `where_r` of the pool.

        `where_r` counts tokens, block by block.
        """
        heads = self.pool.shape[2]
        at = where_r // BLOCK * (heads * BLOCK) + where_r % BLOCK
        write = (at[:, None] + torch.arange(0, heads * BLOCK, BLOCK, device=at.device)).flatten()
        key_position = begins_n[:, None] + torch.arange(BLOCK, device=at.device)
        unseen = key_position > position_r[owner_n][:, None]
        dtype = at_least_float(self.pool[:0]).dtype
        hide = torch.zeros(unseen.shape, dtype=dtype, device=at.device).masked_fill_(unseen, -torch.inf)
        self._reading = _Reading(write, owner_n, hide[:, None])
        config, token = trunk.config, _current.set(self._reading)
        before, config._attn_implementation = config._attn_implementation, NAME
        try:
            yield
        finally:
            config._attn_implementation = before
            _current.reset(token)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes a token of each row; returns all blocks in use, which only the attention below can read."""
        now = self._reading
        assert now is not None, "pages are written while they are read"
        found = []
        for pool, states in zip(self.pool[2 * layer_idx : 2 * layer_idx + 2], (key_states, value_states), strict=True):
            width = pool.shape[-1]
            pool.view(-1, width).index_copy_(0, now.write_rh, states.reshape(-1, width).to(pool.dtype))
            found.append(pool[: len(now.owner_n)])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def _unused(self) -> int:
        assert self._fresh < len(self.owner), "more tokens than the pages have room for"
        self._fresh += 1
        self._clear_until(self._fresh)
        return self._fresh - 1

    def _clear_until(self, count: int) -> None:
        """What lay in memory before may be NaN, and 0 times NaN is NaN. What is not needed stays untouched: until it is
        written, a large tensor takes no memory."""
        if count > self._clear:
            upto = max(count, self._clear + CLEARED)
            self.pool[:, self._clear : upto] = 0
            self._clear = upto


@dataclass(frozen=True, eq=False)
class PromptPages:
    """Keys and values of prompts that were read together, in blocks; and what stands before the first new token."""

    blocks: torch.Tensor  # (2 x layers, prompts x blocks each, heads, BLOCK, width): keys and values in turn
    hidden: torch.Tensor
    each: int  # blocks of a prompt, the longest one's

    def of(self, prompt: int, tokens: int) -> range:
        return range(prompt * self.each, prompt * self.each + blocks_of(tokens))


@torch.no_grad()
def read_prompts(trunk: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> PromptPages:
    """One pass over prompts of like length. Padding stands on the right, where nothing before it can see it."""
    device, width = trunk.device, max(map(len, prompts))
    tokens = torch.tensor([[*prompt] + [pad_id] * (width - len(prompt)) for prompt in prompts], device=device)
    cache = DynamicCache()
    states = trunk(
        input_ids=tokens,
        position_ids=torch.arange(width, device=device).expand(len(prompts), -1),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    return PromptPages(
        _in_blocks(cache, width), states[torch.arange(len(prompts), device=device), last], blocks_of(width)
    )


def blocks_of(tokens: int) -> int:
    return -(-tokens // BLOCK)


def _in_blocks(cache: DynamicCache, width: int) -> torch.Tensor:
    kept = [states for layer in cache.layers for states in (layer.keys, layer.values)]
    prompts, heads, _, size = kept[0].shape
    shape, dtype = (prompts, heads, blocks_of(width), BLOCK, size), _pool_dtype(kept[0])
    pages = torch.empty(len(kept), prompts, shape[2], heads, BLOCK, size, dtype=dtype, device=kept[0].device)
    for page, states in zip(pages, kept, strict=True):
        page.copy_(pad(states, (0, 0, 0, shape[2] * BLOCK - width)).view(shape).transpose(1, 2))
    return pages.flatten(1, 2)


def _pool_dtype(states: torch.Tensor) -> torch.dtype:
    """On a CPU small products are faster in float32 than in 16 bits, and more exact."""
    return torch.float32 if states.dtype.itemsize < 4 and states.device.type == "cpu" else states.dtype


@dataclass(frozen=True)
class _Reading:
    write_rh: torch.Tensor  # where the new token's key and value go, head by head
    owner_n: torch.Tensor
    hide_n1b: torch.Tensor  # added to a score: minus infinity on what is not there yet, or of nobody


_current: ContextVar[_Reading] = ContextVar("what is read")


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Products block by block; then each row's softmax over all that is in its blocks, in float32 at least."""
    if dropout or attention_mask is not None or any(more.get(name) is not None for name in UNKNOWN):
        raise ValueError("this attention is of a kind that does not go by pages")
    now = _current.get()
    rows, heads, _, width = query.shape
    blocks, shared = key.shape[:2]
    owner, flat = now.owner_n, (blocks * shared, -1, width)
    scale = width**-0.5 if scaling is None else scaling
    asked = (query.to(key.dtype) * scale).reshape(rows, heads * width).index_select(0, owner).view(flat)
    score = at_least_float(torch.bmm(asked, key.view(flat).transpose(1, 2))).view(blocks, heads, BLOCK)
    if softcap is not None:
        score = torch.tanh(score / softcap) * softcap
    score = score.add_(now.hide_n1b)
    lowest = score.new_full((rows, heads), torch.finfo(score.dtype).min)
    highest = lowest.scatter_reduce_(0, owner[:, None].expand(-1, heads), score.amax(-1), "amax")
    weight = score.sub_(highest.index_select(0, owner)[..., None]).exp_()
    total = score.new_zeros(rows, heads).index_add_(0, owner, weight.sum(-1))
    parts = torch.bmm(weight.to(value.dtype).view(blocks * shared, -1, BLOCK), value.view(flat))
    whole = score.new_zeros(rows, heads, width).index_add_(0, owner, at_least_float(parts).view(blocks, heads, width))
    found = whole / total.clamp_(min=1)[..., None]  # less than 1 only where a row has no blocks: it fills a shape
    return found.to(query.dtype)[:, None], None


def at_least_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


AttentionInterface.register(NAME, _attention)
