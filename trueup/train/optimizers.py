"""One optimizer for every stage: AdamW, or Muon on the hidden matrices with AdamW on everything else.

The learning rate is a pure function of the step, so a resumed run needs no scheduler state.

Weights of 16 bits are too coarse to be learnt: a small step would be rounded away. Of each there is a copy in float32,
which gathers the gradients of all micro-batches and moves; the model's own are that copy, rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from ..config import OptimizerSettings


class Optimizer:
    """One or two torch optimizers that step, clip and save as one."""

    def __init__(self, modules: Iterable[nn.Module], settings: OptimizerSettings, head_lr: float = 0.0) -> None:
        """`modules` in a fixed order; every module after the first is a head and learns at `head_lr` if given.

        A head may also be part of the first module, as a reward model's is.
        """
        trunk, *heads = modules
        in_head = {id(p) for head in heads for p in head.parameters()}
        self.settings = settings
        self.named = {
            f"{i}.{name}": p
            for i, module in enumerate((trunk, *heads))
            for name, p in module.named_parameters()
            if p.requires_grad and (i > 0 or id(p) not in in_head)
        }
        assert self.named, "nothing to train"
        own = {str(i) for i, module in enumerate((trunk, *heads)) if getattr(module, "apart", False)}
        self.learnt = {name: _exact(p) for name, p in self.named.items()}
        muon = {n for n, p in self.learnt.items() if settings.name == "muon" and _is_hidden_matrix(n, p)}
        groups: dict[str, list[nn.Parameter]] = {"matrix": [], "vector": [], "head": []}
        for name, p in self.learnt.items():
            if name not in muon:
                groups["head" if _is_head(name) else "matrix" if p.ndim > 1 else "vector"].append(p)
        rates = {"matrix": settings.lr, "vector": settings.lr, "head": head_lr or settings.lr}
        decay = {"matrix": settings.weight_decay, "vector": 0.0, "head": 0.0}
        chosen = [{"params": ps, "lr": rates[g], "weight_decay": decay[g]} for g, ps in groups.items() if ps]
        self.parts: list[torch.optim.Optimizer] = []
        if chosen:  # LoRA layers are all hidden matrices: Muon may have everything
            self.parts.append(torch.optim.AdamW(chosen, betas=settings.betas, eps=settings.eps, fused=True))
        if muon:
            self.parts.append(
                torch.optim.Muon([self.learnt[n] for n in sorted(muon)], lr=settings.muon_lr, weight_decay=0.0)
            )
        self.peaks = [[g["lr"] for g in part.param_groups] for part in self.parts]
        self._apart = [p for name, p in self.learnt.items() if name.split(".")[0] in own]
        self._together = [p for name, p in self.learnt.items() if name.split(".")[0] not in own]
        for name, p in self._rounded():
            p.register_post_accumulate_grad_hook(partial(_gather, self.learnt[name]))

    def step(self, rate: float) -> None:
        """Move by the present gradients at `rate` times the peak learning rates."""
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * rate
            part.step()
        self.round()
        self.zero_grad()

    @torch.no_grad()
    def round(self) -> None:
        """The model's own weights of 16 bits, as what was learnt has them."""
        for name, p in self._rounded():
            p.copy_(self.learnt[name])

    def _rounded(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named.items() if self.learnt[name] is not p)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def clip(self) -> dict[str, float]:
        """Scale the gradient down to the largest norm allowed; returns the norm before, which may be non-finite.

        A value model apart from the policy is clipped apart: its large first gradients would shrink the policy's steps.
        """
        norms = {"gradient_norm": self._clipped(self._together)}
        return norms | ({"value_gradient_norm": self._clipped(self._apart)} if self._apart else {})

    def _clipped(self, parameters: Sequence[nn.Parameter]) -> float:
        return float(nn.utils.clip_grad_norm_(parameters, self.settings.grad_clip))

    def state(self) -> dict[str, torch.Tensor]:
        """Everything torch's optimizers remember, by parameter name: flat, so that safetensors can hold it."""
        names = {id(p): n for n, p in self.learnt.items()}
        return {
            f"{names[id(p)]}::{key}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
            for part in self.parts
            for p, slots in part.state.items()
            for key, value in slots.items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for part in self.parts:
            own = {id(p) for group in part.param_groups for p in group["params"]}
            for name, parameter in self.learnt.items():
                if id(parameter) in own:
                    slots = {k.split("::")[1]: v for k, v in tensors.items() if k.split("::")[0] == name}
                    part.state[parameter] = {k: v.to(parameter.device, copy=True) for k, v in slots.items()}


def _exact(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter itself, if it can be learnt as it is."""
    return parameter if parameter.dtype.itemsize >= 4 else nn.Parameter(parameter.detach().float())


def _gather(exact: nn.Parameter, parameter: torch.Tensor) -> None:
    """The gradient of one micro-batch, as soon as it is whole."""
    assert parameter.grad is not None
    found = parameter.grad.float()
    exact.grad = found if exact.grad is None else exact.grad.add_(found)
    parameter.grad = None


HEADS = ("score", "token_head", "readout")  # as parts of a parameter's name


def _is_head(name: str) -> bool:
    return not name.startswith("0.") or any(part in HEADS for part in name.split("."))


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Muon is for matrices between hidden states: not embeddings, not the vocabulary projection, not a head."""
    outside = any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
    return parameter.ndim == 2 and not outside and not _is_head(name)


def rate(settings: OptimizerSettings, step: int, total: int) -> float:
    """Share of the peak learning rate at `step` (1-based) of `total`."""
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    if settings.schedule == "constant":
        return 1.0
    left = 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.final_lr + (1 - settings.final_lr) * left
