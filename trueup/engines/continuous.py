"""Rows that are written side by side, where the place of one that is done goes to the next in the queue.

A token is one pass of the trunk over as many rows as there may be at once, until nobody waits any more. Prompts are
read some at a time, before their rows' turn comes, and once for all their completions.

The host looks at the tokens every `stride` of them: after each on a CPU, seldom on a GPU, which then need not wait for
it. What is written of a row after its end is thrown away. With `static`, shapes hardly ever change: a GPU replays the
pass from a graph instead of being told of each small operation. A CPU can do both, and writes the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from ..config import Sampling
from ..models.language_model import LanguageModel, alike
from .graph import Replayed
from .pages import BLOCK, Pages, PromptPages, blocks_of, read_prompts
from .row import Pick, Row

GPU_STRIDE = 8  # tokens between two looks of the host
AHEAD = 4  # a quarter of the rows at once: for so many more the prompts are read when the last ones were used up
STEPS_OF_BLOCKS = 8  # with static shapes the number of blocks that are read grows in so many steps


def write(
    model: LanguageModel,
    rows: Sequence[Row],
    sampling: Sampling,
    pick: Pick,
    at_once: int,
    done: Callable[[Row], None],
    *,
    stride: int = 1,
    static: bool = False,
) -> None:
    """Write all rows to their end. Those of one prompt stand side by side, those of like length near each other."""
    if rows:
        batch = _Batch(model, rows, sampling, pick, min(at_once, len(rows)), stride, static)
        while batch.fill():
            for row in batch.write_on():
                done(row)


@torch.no_grad()
def same_as_plain(model: LanguageModel) -> bool:
    """Asked of the model itself: does it compute the same so as in one pass over each row alone?

    Families differ in what their attention does beside what `pages` knows, and a wrong guess would shift what is
    sampled without a word. Two rows, one of which goes on in a second block.
    """
    size, stops = model.network.get_input_embeddings().weight.shape[0], model.encoder.stop_ids
    usual = [token for token in range(size) if token not in stops][:BLOCK]
    rows = [
        Row(i, tuple(usual[(3 * k + i) % len(usual)] for k in range(length)), 4, 0)
        for i, length in enumerate((3, BLOCK - 2))
    ]
    seen: dict[int, list[torch.Tensor]] = {row.index: [] for row in rows}

    def pick(logits: torch.Tensor, at_work: Sequence[Row], *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        for row, given in zip(at_work, logits, strict=True):
            seen[row.index].append(given)
        chosen = [usual[(5 * row.index + 7 * len(row.tokens)) % len(usual)] for row in at_work]
        return torch.tensor(chosen, device=logits.device), logits[:, 0]

    try:
        write(model, rows, Sampling(), pick, len(rows), lambda row: None)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return False
    for row in rows:
        whole = torch.tensor([[*row.prompt, *row.tokens[:-1]]], device=model.device)
        states = model.network.get_decoder()(input_ids=whole, use_cache=False).last_hidden_state[0]
        if not alike(torch.stack(seen[row.index]), model.logits(states[len(row.prompt) - 1 :])):
            return False
    return True


@dataclass
class _Place:
    """A row that is being written, and where its keys and values are."""

    row: Row
    draws: np.ndarray
    blocks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """A row whose prompt has been read: it is this number of those that were read together."""

    row: Row
    prompts: PromptPages
    number: int


class _Batch:
    """`places` are the rows at work, in the order of all tensors; `hidden` is what precedes their next tokens."""

    def __init__(
        self,
        model: LanguageModel,
        rows: Sequence[Row],
        sampling: Sampling,
        pick: Pick,
        at_once: int,
        stride: int,
        static: bool,
    ) -> None:
        self.model, self.sampling, self.pick = model, sampling, pick
        self.at_once, self.stride, self.static = at_once, stride, static
        self.trunk = model.network.get_decoder()
        self.waiting = deque(rows)
        self.read: deque[_Read] = deque()
        self.places: list[_Place] = []
        self.hidden: torch.Tensor | None = None
        self.pages: Pages | None = None
        self.room = at_once * blocks_of(max(len(row.prompt) + row.limit for row in rows))
        self.forward: Callable[..., torch.Tensor] | None = None

    def fill(self) -> bool:
        """Free places go to who waits. Is there anything left to write?"""
        while (free := self.at_once - len(self.places)) and (self.read or self.waiting):
            if not self.read:
                self._read_prompts(max(free, self.at_once // AHEAD))
            self._seat([self.read.popleft() for _ in range(min(free, len(self.read)))])
        return bool(self.places)

    def write_on(self) -> list[Row]:
        """`stride` tokens for each row; those that are done leave and are returned."""
        assert self.pages is not None and self.hidden is not None
        self._move_together()
        positions, where, draws = self._plan()
        rows, drawn = [place.row for place in self.places], []
        blocks = self._blocks() if self.stride > 1 else ()  # they are the same until somebody leaves
        for t in range(self.stride):
            tokens, logprobs = self.pick(self.model.logits(self.hidden), rows, draws[t], self.sampling)
            drawn.append((tokens, logprobs))
            if t + 1 < self.stride:
                self.hidden = self._step(tokens, positions[t], where[t], blocks)
        self._look(rows, drawn)
        going = [i for i, row in enumerate(rows) if not row.done]
        self._leave(going)
        if going:
            kept = torch.tensor(going, device=tokens.device)
            self.hidden = self._step(tokens[kept], positions[-1][kept], where[-1][kept], self._blocks())
        return [row for row in rows if row.done]

    def _read_prompts(self, count: int) -> None:
        """The prompts of at least the next `count` rows."""
        rows: list[Row] = []
        prompts: list[tuple[int, ...]] = []
        while self.waiting and (len(rows) < count or self.waiting[0].prompt == prompts[-1]):
            rows.append(self.waiting.popleft())
            if not prompts or rows[-1].prompt != prompts[-1]:
                prompts.append(rows[-1].prompt)
        read = read_prompts(self.trunk, prompts, self.model.encoder.pad_id)
        if self.pages is None:
            self.pages = Pages(read, self.room)
            # Of the trunk and the pages alone: with this batch in it, its memory would wait for the garbage collector.
            forward = partial(_forward, self.trunk, self.pages)
            self.forward = Replayed(forward) if self.static and self.model.device.type == "cuda" else forward
        number = {prompt: i for i, prompt in enumerate(prompts)}
        self.read.extend(_Read(row, read, number[row.prompt]) for row in rows)

    def _seat(self, coming: Sequence[_Read]) -> None:
        assert self.pages is not None
        hidden = [] if self.hidden is None or not self.places else [self.hidden]
        for prompts, together in groupby(coming, key=lambda read: read.prompts):
            to, of, which = [], [], []
            for read in together:
                own = prompts.of(read.number, len(read.row.prompt))
                blocks = self.pages.take(len(self.places), range(0, len(own) * BLOCK, BLOCK))
                self.places.append(_Place(read.row, read.row.draws(), blocks))
                to, of, which = to + blocks, [*of, *own], [*which, read.number]
            self.pages.fill(to, prompts, of)
            hidden.append(prompts.hidden[which])
        self.hidden = torch.cat(hidden)

    def _plan(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positions, places in the pool and draws of the next `stride` tokens: (stride, rows) each.

        A row that may have no more tokens writes its last one again.
        """
        assert self.pages is not None
        count = len(self.places)
        positions, where = np.zeros((2, self.stride, count), np.int64)
        draws = np.zeros((self.stride, count))
        for r, place in enumerate(self.places):
            for t in range(self.stride):
                number = min(len(place.row.tokens) + t, place.row.limit - 1)
                position = len(place.row.prompt) + number
                if position // BLOCK == len(place.blocks):
                    place.blocks += self.pages.take(r, [position])
                positions[t, r], draws[t, r] = position, place.draws[number]
                where[t, r] = place.blocks[position // BLOCK] * BLOCK + position % BLOCK
        device = self.model.device
        return tuple(torch.from_numpy(each).to(device) for each in (positions, where, draws))  # type: ignore[return-value]

    def _look(self, rows: Sequence[Row], drawn: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        stops = self.model.encoder.stop_ids
        tokens, logprobs = (torch.stack(each).tolist() for each in zip(*drawn, strict=True))
        for t in range(self.stride):
            for row, token, logprob in zip(rows, tokens[t], logprobs[t], strict=True):
                row.take(token, logprob, stops)

    def _leave(self, going: Sequence[int]) -> None:
        assert self.pages is not None
        if len(going) == len(self.places):
            return
        for place in self.places:
            if place.row.done:
                self.pages.give_back(place.blocks)
        self.pages.renumber(going)
        self.places = [self.places[i] for i in going]

    def _move_together(self) -> None:
        assert self.pages is not None
        if moved := self.pages.crowd():
            for place in self.places:
                place.blocks = [moved.get(block, block) for block in place.blocks]

    def _step(
        self, token_r: torch.Tensor, position_r: torch.Tensor, where_r: torch.Tensor, blocks: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """What stands before the token after `token_r`."""
        assert self.forward is not None
        count, rows = len(token_r), (token_r, position_r, where_r)
        if self.static:
            rows = tuple(torch.cat([each, each.new_zeros(self.at_once - count)]) for each in rows)
        return self.forward(*rows, *blocks)[:count]

    def _blocks(self) -> tuple[torch.Tensor, ...]:
        """Owner and beginning of each block that is read."""
        assert self.pages is not None
        least = 0
        if self.static:
            step = -(-self.room // STEPS_OF_BLOCKS)
            least = -(-len(self.pages.in_use()[0]) // step) * step
        return tuple(torch.from_numpy(each.copy()).to(self.model.device) for each in self.pages.in_use(least))


def _forward(
    trunk: Any,
    pages: Pages,
    token_r: torch.Tensor,
    position_r: torch.Tensor,
    where_r: torch.Tensor,
    owner_n: torch.Tensor,
    begins_n: torch.Tensor,
) -> torch.Tensor:
    with pages.reading(trunk, position_r, where_r, owner_n, begins_n):
        states: torch.Tensor = trunk(
            input_ids=token_r[:, None],
            position_ids=position_r[:, None],
            past_key_values=pages,
            use_cache=True,
        ).last_hidden_state
    return states[:, -1]
