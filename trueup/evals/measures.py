"""What can be said of a model's answers without a judge: length, variety, repetition, refusals, how far it moved.

Every mean has its interval: Student's over prompts. Variety is of all answers together and has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import numpy as np

from ..records import Completion
from ..stats.curves import best_of_n_kl
from ..stats.diversity import distinct, duplicates, repetition, self_bleu
from ..stats.intervals import Floats, clustered_mean, wilson
from .refusals import by_rules

MOST_MOVED = 0.1  # bits a byte of other text, above which a model is said to have forgotten


def of_answers(completions: Sequence[Completion]) -> dict[str, Any]:
    words = [completion.text.split() for completion in completions]
    prompts = [completion.prompt.id for completion in completions]
    n, refused = len(completions), sum(by_rules(completion.text) == "refused" for completion in completions)
    tokens = [len(c.tokens) * c.meta.get("best_of", 1) for c in completions]
    return {
        "n": n,
        "words": mean([len(each) for each in words], prompts),
        "unfinished": sum(not completion.finished for completion in completions) / n,
        "repetition": mean([repetition(each) for each in words], prompts),
        "distinct_2": distinct(words, 2),
        "distinct_3": distinct(words, 3),
        "self_bleu": self_bleu(words),
        "duplicates": duplicates([completion.text for completion in completions]),
        "refused": {"value": refused / n, "ci": list(wilson(refused, n)), "n": n},
        "tokens_sampled": float(np.mean(tokens)) if all(tokens) else None,
    }


def mean(values: Sequence[float], prompts: Sequence[str]) -> dict[str, Any]:
    found = clustered_mean(values, prompts)
    return {"value": found.value, "ci": _ends(found.ci), "n": found.n}


def kl_of(
    mine: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], prompts: Sequence[str]
) -> dict[str, Any]:
    """Nats a completion, on the model's own samples: unbiased, and each may be negative."""
    gaps = [sum(a) - sum(b) for a, b in zip(mine, reference, strict=True)]
    return mean(gaps, prompts) | {"how": "sampled"}


def kl_of_best(n: int) -> dict[str, Any]:
    """Of the best of n samples of the reference: at most this (arXiv 2401.01879); exact for scores without ties."""
    return {"value": best_of_n_kl(n), "ci": None, "n": None, "how": f"at most, best of {n}"}


def bits_a_byte(logprobs: Sequence[Sequence[float]], texts: Sequence[str]) -> Floats:
    """Of each text, so that models with other tokens can be compared: how surprising each byte is on average."""
    sizes = np.array([max(1, len(text.encode())) for text in texts], dtype=float)
    found: Floats = np.array([-sum(each) / log(2) for each in logprobs]) / sizes
    return found


def surprise(bits: Floats, texts: Sequence[str]) -> dict[str, Any]:
    """Bits a byte over all bytes, so that long texts count for more, with Student's interval over texts."""
    sizes = np.array([max(1, len(text.encode())) for text in texts], dtype=float)
    whole = float((bits * sizes).sum() / sizes.sum())
    found = clustered_mean((bits - whole) * sizes / sizes.mean(), np.arange(len(texts)))
    low, high = whole + found.ci[0], whole + found.ci[1]
    return {"value": whole, "ci": _ends((low, high)), "n": found.n}


def _ends(ci: tuple[float, float]) -> list[float] | None:
    """None where nothing is known of the spread: of one prompt alone."""
    return list(ci) if np.isfinite(ci).all() else None


def furthest_apart(scores: Sequence[Sequence[float]], most: int) -> list[int]:
    """Places of the prompts on which the models' scores lie furthest apart."""
    spread = np.ptp(np.array(scores), axis=0)
    return [int(place) for place in np.argsort(-spread, kind="stable")[:most]]


def least_alike(texts: Sequence[Sequence[str]], most: int) -> list[int]:
    """Places of the prompts on which the models' answers share the fewest words, where nobody scored them."""
    shared = []
    for answers in zip(*texts, strict=True):
        sets = [set(answer.lower().split()) for answer in answers]
        every = set.union(*sets)
        shared.append(len(set.intersection(*sets)) / len(every) if every else 1.0)
    return [int(place) for place in np.argsort(shared, kind="stable")[:most]]


def findings(models: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What one should look at, of each model beside the first."""
    found, base = [], models[0]
    for each in models[1:]:
        said = []
        low, high = each["words"]["ci"] or (-np.inf, np.inf)
        if low > 1.25 * base["words"]["value"] or high < 0.8 * base["words"]["value"]:
            said.append(f"writes {each['words']['value'] / max(base['words']['value'], 1e-9):.1f} times as much")
        if _surely_above(each["repetition"], base["repetition"]):
            said.append(f"repeats itself more: {each['repetition']['value']:.0%} of its runs of four words")
        if each["distinct_2"] < 0.7 * base["distinct_2"]:
            said.append("has lost variety: its answers to different prompts have more in common")
        if _surely_above(each["refused"], base["refused"]):
            said.append(f"refuses more often: {each['refused']['value']:.0%}")
        moved = each.get("surprise_change")
        if moved and moved["ci"] and moved["ci"][0] > 0 and moved["value"] > MOST_MOVED:
            said.append(f"has forgotten: other text surprises it more, by {moved['value']:.2f} bits a byte")
        found += [{"model": each["model"], "says": what} for what in said]
    return found


def _surely_above(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["ci"] and other["ci"] and one["ci"][0] > other["ci"][1])
