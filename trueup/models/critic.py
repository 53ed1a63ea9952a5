"""The critic of implicit Q-learning: two Q, their slowly following targets, and a value, all on the policy's trunk."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..algo.logprobs import chunked_logprobs
from .value import ValueHead


class QHead(nn.Module):
    """What each token of the vocabulary would be worth next; exactly 0 at first."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, vocabulary)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def features(self, hidden_nd: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(hidden_nd.float()))

    def forward(self, hidden_nd: torch.Tensor, token_n: torch.Tensor) -> torch.Tensor:
        """Of the given tokens alone, without the rest of the vocabulary."""
        return (self.features(hidden_nd) * self.outer.weight[token_n]).sum(-1) + self.outer.bias[token_n]

    def log_share(self, hidden_nd: torch.Tensor, token_n: torch.Tensor) -> torch.Tensor:
        """log softmax of Q over the vocabulary, at the given tokens."""
        return chunked_logprobs(self.features(hidden_nd), self.outer.weight, token_n, bias=self.outer.bias)


class Critic(nn.Module):
    """The targets never get a gradient. They count as trainable all the same: then they are in every checkpoint."""

    def __init__(self, width: int, vocabulary: int, seed: int) -> None:
        super().__init__()
        self.value = ValueHead(width, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.q = nn.ModuleList([QHead(width, vocabulary) for _ in range(2)])
        self.target = copy.deepcopy(self.q)

    def both(self, hidden_nd: torch.Tensor, token_n: torch.Tensor) -> torch.Tensor:
        """(2, n)"""
        return torch.stack([head(hidden_nd, token_n) for head in self.q])

    @torch.no_grad()
    def lower(self, hidden_nd: torch.Tensor, token_n: torch.Tensor) -> torch.Tensor:
        """The lower of the two targets: an overestimate of one is not believed."""
        return torch.stack([head(hidden_nd, token_n) for head in self.target]).amin(0)

    @torch.no_grad()
    def follow(self, share: float) -> None:
        for slow, fast in zip(self.target.parameters(), self.q.parameters(), strict=True):
            slow.lerp_(fast, share)
