"""What nobody reads is not computed: the last block's MLP sees only the positions whose states are used.

Attention needs a prompt's keys and values in every block, so all blocks but the last must finish every position. After
the last one only the states before completion tokens are read, or a single one where a reward model scores. Its MLP
works position by position, so leaving others out changes nothing for those that stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def finishing_only(trunk: Any, at_n: torch.Tensor) -> Iterator[None]:
    """Within, states elsewhere than at these flat positions are not finished: they are no states at all."""
    mlp, shape = last_mlp(trunk), torch.Size()

    def take(module: Any, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        nonlocal shape
        (hidden,) = given
        shape = hidden.shape
        return hidden.flatten(0, -2).index_select(0, at_n)

    def put_back(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
        return made.new_zeros(shape).flatten(0, -2).index_copy(0, at_n, made).view(shape)

    hooks = (mlp.register_forward_pre_hook(take), mlp.register_forward_hook(put_back))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def last_mlp(trunk: Any) -> Any:
    """Of most families; asking another for it raises AttributeError."""
    blocks = trunk.h if hasattr(trunk, "h") else trunk.layers
    return blocks[-1].mlp
