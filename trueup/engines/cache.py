"""A key-value cache that is written in place, for rows that start together (`plain`).

transformers' dynamic cache grows by concatenation, which copies every key and value once a token: three quarters of
the time of sampling from a small model on a CPU. Here each layer is given its room once.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """`keys` and `values` are views of buffers with room for `room` more tokens than the first update brings."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if start == 0:
            self.lazy_initialization(key_states, value_states)
            self._allot(key_states.shape, value_states.shape, end + self.room)
        assert end <= self._all_keys.shape[-2], "more tokens than the cache has room for"
        self._all_keys[..., start:end, :] = key_states
        self._all_values[..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._rebuild(indices)

    def _rebuild(self, rows: torch.Tensor) -> None:
        """The same rows in another number or order; only what is filled is copied."""
        keys, values, length = self.keys, self.values, self.get_seq_length()
        capacity = self._all_keys.shape[-2]
        self._allot((len(rows), *keys.shape[1:]), (len(rows), *values.shape[1:]), capacity)
        self._show(length)
        self.keys.copy_(keys[rows])
        self.values.copy_(values[rows])

    def _allot(self, keys: tuple[int, ...], values: tuple[int, ...], capacity: int) -> None:
        self._all_keys = torch.empty(*keys[:-2], capacity, keys[-1], dtype=self.dtype, device=self.device)
        self._all_values = torch.empty(*values[:-2], capacity, values[-1], dtype=self.dtype, device=self.device)

    def _show(self, length: int) -> None:
        self.keys, self.values = self._all_keys[..., :length, :], self._all_values[..., :length, :]


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """The cache a model asks for, with its plain layers given room; sliding or other layers stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
