"""PPO on one rollout a second time, in float64: a Llama and all the arithmetic after it, a row and a token at a time.

Written from the papers (RoFormer 2104.09864, GAE 1506.02438, PPO 1707.06347, Adam 1412.6980) and from what two programs
say they do, without importing either: no batch, no padding, no mask, nothing clever. What other software does
otherwise is a way with a name; with no way it is what trueup means to compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .same_ppo_ways import AFTER_END, MEAN_OF_MEANS, PENALTY, SAMPLE_VARIANCE, UNCLIPPED, UNLIMITED_KL

Array = np.ndarray
Row = Mapping[str, Any]  # prompt_tokens, tokens, finished


class Llama:
    """One row at a time. Weights go by the names that transformers gives them inside its trunk."""

    def __init__(self, weights: Mapping[str, Array], shape: Mapping[str, Any]) -> None:
        self.weights = {name: torch.tensor(w, dtype=torch.float64, requires_grad=True) for name, w in weights.items()}
        self.shape = shape

    def states(self, tokens: Sequence[int]) -> torch.Tensor:
        """After the last norm, one for each token."""
        x = self.weights["embed_tokens.weight"][list(tokens)]
        for i in range(self.shape["layers"]):
            x = x + self._attention(self._norm(x, f"layers.{i}.input_layernorm"), f"layers.{i}.self_attn")
            x = x + self._mlp(self._norm(x, f"layers.{i}.post_attention_layernorm"), f"layers.{i}.mlp")
        return self._norm(x, "norm")

    def logprobs(self, row: Row, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each token of the completion, and the entropy of the distribution that it was drawn from."""
        start, tokens = len(row["prompt_tokens"]), row["tokens"]
        head = self.weights.get("lm_head.weight", self.weights["embed_tokens.weight"])
        logits = self.states([*row["prompt_tokens"], *tokens])[start - 1 : -1] @ head.T / temperature
        logp = logits - logits.exp().sum(-1, keepdim=True).log()
        return torch.stack([logp[t, token] for t, token in enumerate(tokens)]), -(logp.exp() * logp).sum(-1)

    def values(self, row: Row) -> torch.Tensor:
        """Of the state before each token of the completion, and last of the one behind its end."""
        states = self.states([*row["prompt_tokens"], *row["tokens"]])[len(row["prompt_tokens"]) - 1 :]
        return self._linear(torch.tanh(self._linear(states, "head.inner")), "head.outer")[:, 0]

    def score(self, row: Row) -> float:
        states = self.states([*row["prompt_tokens"], *row["tokens"]])
        return float(self._linear(states[-1:], "score"))

    def _attention(self, x: torch.Tensor, name: str) -> torch.Tensor:
        heads, shared = self.shape["heads"], self.shape["heads"] // self.shape["key_heads"]
        width, found = x.shape[1] // heads, []
        q, k, v = (self._linear(x, f"{name}.{part}_proj") for part in "qkv")
        for h in range(heads):
            own, theirs = (slice(i * width, (i + 1) * width) for i in (h, h // shared))
            alike = _turned(q[:, own]) @ _turned(k[:, theirs]).T / math.sqrt(width)
            later = torch.ones_like(alike).triu(1).bool()
            found.append(alike.masked_fill(later, -math.inf).softmax(-1) @ v[:, theirs])
        return self._linear(torch.cat(found, 1), f"{name}.o_proj")

    def _mlp(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gate, up = self._linear(x, f"{name}.gate_proj"), self._linear(x, f"{name}.up_proj")
        return self._linear(gate * torch.sigmoid(gate) * up, f"{name}.down_proj")

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.shape["norm_eps"]).sqrt() * self.weights[f"{name}.weight"]

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        found = x @ self.weights[f"{name}.weight"].T
        return found + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else found


def _turned(x: torch.Tensor) -> torch.Tensor:
    """Each position turns its pairs of numbers by angles of its own; the pairs are (i, i + half)."""
    half = x.shape[1] // 2
    angles = torch.tensor([[t * 10000.0 ** (-i / half) for i in range(half)] for t in range(len(x))], dtype=x.dtype)
    first, second = x[:, :half], x[:, half:]
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], dim=1
    )


class Adam:
    def __init__(self, parameters: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
        self.parameters, self.settings, self.t = parameters, settings, 0
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, gradient: Mapping[str, torch.Tensor]) -> None:
        self.t += 1
        (b1, b2), lr, eps = self.settings["betas"], self.settings["lr"], self.settings["eps"]
        for name, g in gradient.items():
            m, v = self.moments[name]
            m.copy_(b1 * m + (1 - b1) * g)
            v.copy_(b2 * v + (1 - b2) * g * g)
            self.parameters[name] -= lr * m / (1 - b1**self.t) / ((v / (1 - b2**self.t)).sqrt() + eps)


class Ppo:
    """One rollout, looked at once and learnt from in the given order."""

    def __init__(
        self,
        case: Mapping[str, Any],
        rows: Sequence[Row],
        weights: Mapping[str, Mapping[str, Array]],
        ways: Sequence[str] = (),
    ) -> None:
        self.case, self.rows, self.ways = case, rows, ways
        self.policy, self.reference, self.critic, self.judge = (
            Llama(weights[role], case["shape"]) for role in ("policy", "reference", "value", "reward")
        )
        self.width = max(len(row["tokens"]) for row in rows)
        self.found: dict[str, Any] = {}

    def run(self, orders: Sequence[Sequence[int]]) -> dict[str, Array]:
        """`orders`: the rows of each update."""
        self.observe()
        self.give_credit()
        learnt = {f"policy/{name}": w for name, w in self.policy.weights.items()}
        learnt |= {f"value/{name}": w for name, w in self.critic.weights.items()}
        adam, logs = Adam(learnt, self.case["optimizer"]), []
        for u, chosen in enumerate(orders):
            adam.step(self.update(u, chosen, learnt, logs))
        self.found |= {f"weights/{name}": w.detach().numpy() for name, w in learnt.items()}
        self.found |= {key: sum(log[key] for log in logs) / len(logs) for key in logs[0]}
        return {key: np.asarray(value, dtype=np.float64) for key, value in self.found.items()}

    @torch.no_grad()
    def observe(self) -> None:
        temperature = self.case["temperature"]
        self.logp = [self.policy.logprobs(row, temperature)[0].tolist() for row in self.rows]
        self.reference_logp = [self.reference.logprobs(row, temperature)[0].tolist() for row in self.rows]
        self.value = [self.critic.values(row).tolist() for row in self.rows]
        self.score = [self._score(row) for row in self.rows]

    def _score(self, row: Row) -> float:
        score, missing = self.judge.score(row), self.case["missing_eos"]
        if row["finished"] or missing is None:
            return score
        return score - missing if PENALTY in self.ways else -missing

    def give_credit(self) -> None:
        """From scores to advantages: one row after the other, its tokens from the last to the first."""
        case, kls, rewards, advantages, self.returns = self.case, [], [], [], []
        for i, row in enumerate(self.rows):
            kl = [self._kl(p - r) for p, r in zip(self.logp[i], self.reference_logp[i], strict=True)]
            reward = [-case["kl_coefficient"] * k for k in kl]
            if self._goes_on(row):
                reward.append(self.score[i])
            else:
                reward[-1] += self.score[i]
            value = [*self.value[i][: len(reward)], 0.0]
            advantage, following = [0.0] * len(reward), 0.0
            for t in reversed(range(len(reward))):
                delta = reward[t] + case["gamma"] * value[t + 1] - value[t]
                following = advantage[t] = delta + case["gamma"] * case["lam"] * following
            self.returns.append([a + v for a, v in zip(advantage, value, strict=False)])
            kls.append(kl)
            rewards.append(reward)
            advantages.append(advantage[: len(kl)])
        self.advantage = self._whitened(advantages)
        self._note(kl=kls, rewards=rewards, advantages=self.advantage, returns=self.returns)
        self._note(logprobs=self.logp, reference_logprobs=self.reference_logp, values=self.value)
        self.found["score"] = self.score

    def _kl(self, log_ratio: float) -> float:
        kl = log_ratio if self.case["kl_estimator"] == "k1" else math.exp(-log_ratio) - 1 + log_ratio
        return kl if UNLIMITED_KL in self.ways else min(max(kl, -10.0), 10.0)

    def _goes_on(self, row: Row) -> bool:
        """One more state, behind the end, where there is room for it."""
        return AFTER_END in self.ways and len(row["tokens"]) < self.width

    def _whitened(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        every = [a for row in rows for a in row]
        mean = sum(every) / len(every)
        squares = sum((a - mean) ** 2 for a in every)
        if SAMPLE_VARIANCE in self.ways:
            spread = math.sqrt(squares / (len(every) - 1) + 1e-8)
        else:
            spread = math.sqrt(squares / len(every)) + 1e-8
        return [[(a - mean) / spread for a in row] for row in rows]

    def _note(self, **named: Sequence[Sequence[float]]) -> None:
        """What stands at tokens, row after row; and what stands behind the end, where that counts."""
        for name, values in named.items():
            own = [v for row, each in zip(self.rows, values, strict=True) for v in each[: len(row["tokens"])]]
            self.found[name] = own
            if name in ("rewards", "values", "returns"):
                behind = [
                    each[len(row["tokens"])] for row, each in zip(self.rows, values, strict=True) if self._goes_on(row)
                ]
                if behind:
                    self.found[f"{name}_behind"] = behind

    def update(
        self, u: int, chosen: Sequence[int], learnt: Mapping[str, torch.Tensor], logs: list[dict[str, float]]
    ) -> dict[str, torch.Tensor]:
        size = len(chosen) // self.case["accumulation"] if MEAN_OF_MEANS in self.ways else len(chosen)
        parts = [self.losses(chosen[i : i + size], logs) for i in range(0, len(chosen), size)]
        on_policy, on_value = (sum(part[i] for part in parts) / len(parts) for i in range(2))
        loss = on_policy + self.case["value_coefficient"] * on_value
        gradient = dict(zip(learnt, torch.autograd.grad(loss, list(learnt.values())), strict=True))
        if UNCLIPPED not in self.ways:
            gradient = self._clipped(gradient)
        losses = {"policy_loss": on_policy, "value_loss": on_value, "loss": loss}
        self.found |= {f"{u}/{name}": float(each.detach()) for name, each in losses.items()}
        self.found |= {f"{u}/gradient/{name}": g.numpy() for name, g in gradient.items()}
        return gradient

    def _clipped(self, gradient: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Policy and critic are two models, and each has its own norm."""
        squares = {"policy": 0.0, "value": 0.0}
        for name, g in gradient.items():
            squares[name.split("/")[0]] += float(g.square().sum())
        limit = self.case["optimizer"]["grad_clip"]
        shares = {model: min(1.0, limit / (math.sqrt(square) + 1e-6)) for model, square in squares.items()}
        return {name: g * shares[name.split("/")[0]] for name, g in gradient.items()}

    def losses(self, chosen: Sequence[int], logs: list[dict[str, float]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Means over tokens of the policy's loss and of the value's."""
        case, of_policy, of_value, steps, entropies = self.case, [], [], [], []
        for i in chosen:
            row = self.rows[i]
            logp, entropy = self.policy.logprobs(row, case["temperature"])
            for t in range(len(row["tokens"])):
                ratio, advantage = torch.exp(logp[t] - self.logp[i][t]), self.advantage[i][t]
                near = torch.clamp(ratio, 1 - case["clip"], 1 + case["clip"])
                of_policy.append(torch.maximum(-advantage * ratio, -advantage * near))
                steps.append(float(logp[t].detach()) - self.logp[i][t])
                entropies.append(float(entropy[t].detach()))
            values = self.critic.values(row)
            for t, target in enumerate(self.returns[i]):
                old = self.value[i][t]
                near = torch.clamp(values[t], old - case["value_clip"], old + case["value_clip"])
                of_value.append(torch.maximum((values[t] - target) ** 2, (near - target) ** 2) / 2)
        logs.append(self._logged(steps, entropies, len(chosen) * self.width))
        return sum(of_policy) / len(of_policy), sum(of_value) / len(of_value)

    def _logged(self, steps: Sequence[float], entropies: Sequence[float], places: int) -> dict[str, float]:
        """How far the policy is from the one that wrote, over tokens, and `log` as over all places of a padded batch:
        in padding nothing has moved."""
        ratios, squares = [math.exp(s) for s in steps], sum(s * s / 2 for s in steps)
        padding = places - len(steps)
        return {
            "approx_kl": sum(ratio - 1 - s for ratio, s in zip(ratios, steps, strict=True)) / len(steps),
            "real/approx_kl": squares / len(steps),
            "real/ratio": sum(ratios) / len(steps),
            "real/entropy": sum(entropies) / len(entropies),
            "log/approx_kl": squares / places,
            "log/ratio": (sum(ratios) + padding) / places,
        }
