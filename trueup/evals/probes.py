"""Small changes that should change nothing, and large ones that should: what a scorer does with them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from ..ports import Scorer
from ..records import Completion, Message, Prompt, Score
from ..stats.intervals import Floats
from .scored import Advance, Ints, Pairs, score_all, values
from .slices import share

Fits = Callable[[Completion], bool]

_WORD = re.compile(r"[^\W\d_]{4,}")
_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
SPREAD = "spread"  # the part of a score that says how far the members of an ensemble disagree
ALONE = 64  # completions scored one by one


def trailing_blank(completion: Completion) -> Completion:
    return replace(completion, text=completion.text + " ")


def double_spaces(completion: Completion) -> Completion:
    return replace(completion, text=re.sub(r"(?<=\S) (?=\S)", "  ", completion.text))


def typo(completion: Completion) -> Completion:
    """Two neighbouring letters inside a word change places; which ones is decided by the text."""
    words = [word for word in _WORD.finditer(completion.text) if len(set(word.group()[1:-1])) > 1]
    if not words:
        return completion
    chance = Random(zlib.crc32(completion.text.encode("utf-8", "surrogatepass")))
    word = chance.choice(words)
    inside = [i for i in range(word.start() + 1, word.end() - 2) if completion.text[i] != completion.text[i + 1]]
    if not inside:
        return completion
    i = chance.choice(inside)
    text = completion.text
    return replace(completion, text=text[:i] + text[i + 1] + text[i] + text[i + 2 :])


def first_half(completion: Completion) -> Completion:
    """Cut off in the middle, as at a length limit."""
    half = completion.text[: len(completion.text) // 2]
    cut = half.rsplit(None, 1)[0] if len(half.split()) > 1 else half
    return replace(completion, text=cut, finished=False)


def one_message(completion: Completion) -> Completion:
    """The whole conversation as one user message: what another way of writing prompts makes of it."""
    said = completion.prompt.messages
    if len(said) < 2:
        return completion
    text = "\n\n".join(f"{_SPEAKERS[message.role]}: {message.content}" for message in said)
    return replace(completion, prompt=Prompt((Message("user", text),), completion.prompt.meta))


SMALL = {"trailing blank": trailing_blank, "double spaces": double_spaces, "typo": typo}
LARGE = {"first half only": first_half, "prompt as one message": one_message}


def sampled(pairs: Pairs, n: int, seed: int) -> Pairs:
    """At most `n` of the decided pairs, for what has to be scored again."""
    decided = pairs.decided
    chosen = np.sort(np.random.default_rng(seed).permutation(decided.n)[:n])
    kept = np.zeros(decided.n, dtype=bool)
    kept[chosen] = True
    return decided.where(kept)


def changed(scorer: Scorer, pairs: Pairs, score: Floats, fits: Fits, advance: Advance) -> dict[str, dict[str, Any]]:
    """Each change made to both sides of the pairs: how many change their order, and how far scores move."""
    std = float(score.std()) or 1.0
    return {
        name: _one_change(scorer, pairs, score / std, change, std, fits, advance)
        for name, change in (SMALL | LARGE).items()
    }


def _one_change(
    scorer: Scorer,
    pairs: Pairs,
    score: Floats,
    change: Callable[[Completion], Completion],
    std: float,
    fits: Fits,
    advance: Advance,
) -> dict[str, Any]:
    """Only pairs that the change does something to, and that the model can still read."""
    used = np.unique(np.concatenate([pairs.first, pairs.second])).tolist()
    made = dict(zip(used, _changed([pairs.completions[i] for i in used], change), strict=True))
    differs = {i: made[i] != pairs.completions[i] for i in used}
    readable = {i: not differs[i] or (bool(made[i].text.strip()) and fits(made[i])) for i in used}
    sides = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    kept = pairs.where(
        np.array([(differs[i] or differs[j]) and readable[i] and readable[j] for i, j in sides], dtype=bool)
    )
    there = sorted({i for i in (*kept.first.tolist(), *kept.second.tolist()) if differs[i]})
    advance(len(used) - len(there))
    if not kept.n:
        return {"n": 0, "flips": None, "change": None, "left_out": pairs.n}
    after = score.copy()
    after[there] = values(score_all(scorer, [made[i] for i in there], advance)) / std
    before_sign, after_sign = np.sign(kept.gap(score)), np.sign(kept.gap(after))
    ordered = before_sign != 0
    flips = share((before_sign != after_sign)[ordered].astype(float), kept.prompt[ordered], draws=400)
    found = {
        "n": kept.n,
        "flips": flips,
        "change": float(np.abs(after - score)[there].mean()),
        "left_out": pairs.n - kept.n,
    }
    if change is first_half:
        lower = (after < score)[there] + 0.5 * (after == score)[there]
        found["whole_is_better"] = share(lower.astype(float), pairs.prompt_of[there], draws=400)
    return found


def _changed(completions: Sequence[Completion], change: Callable[[Completion], Completion]) -> list[Completion]:
    """As `change` makes them; those of one prompt still share one prompt object, as scorers like it."""
    prompts: dict[Prompt, Prompt] = {}
    made = [change(completion) for completion in completions]
    return [replace(c, prompt=prompts.setdefault(c.prompt, c.prompt)) for c in made]


def steady(scorer: Scorer, pairs: Pairs, score: Floats, seed: int, advance: Advance) -> dict[str, Any]:
    """The same completions one by one, in another order, and twice in one call: scores must not move.

    What differs is padding and the size of batches. Differences are in standard deviations of the scores.
    """
    std = float(score.std()) or 1.0
    used = np.unique(np.concatenate([pairs.first, pairs.second]))[:ALONE].tolist()
    if not used:
        return {"n": 0}
    those, known = [pairs.completions[i] for i in used], score[used]
    alone = np.array([scorer.score([completion])[0].value for completion in those])
    advance(len(those))
    order = np.random.default_rng(seed).permutation(len(those))
    mixed = np.empty(len(those))
    mixed[order] = values(score_all(scorer, [those[i] for i in order], advance))
    twice = values(score_all(scorer, [c for completion in those for c in (completion, completion)], advance))
    return {
        "n": len(those),
        "alone": float(np.abs(alone - known).max() / std),
        "other_order": float(np.abs(mixed - known).max() / std),
        "duplicates": float(np.abs(twice[::2] - twice[1::2]).max() / std),
    }


def off_topic(
    scorer: Scorer, pairs: Pairs, scores: Sequence[Score], fits: Fits, seed: int, advance: Advance
) -> dict[str, Any]:
    """Completions set under another prompt: far from what the model has learnt, so it should score them lower.

    An ensemble should also disagree more there: `spread` has its mean on both sides, and how often the higher spread
    is the one off topic.
    """
    used, other, same = _exchanged(pairs, seed)
    advance(same)
    moved = [Completion(p, pairs.completions[i].text, finished=pairs.completions[i].finished) for i, p in other]
    kept = [k for k, completion in enumerate(moved) if fits(completion)]
    advance(len(moved) - len(kept))
    if not kept:
        return {"n": 0}
    there = [scores[used[k]] for k in kept]
    away = score_all(scorer, [moved[k] for k in kept], advance)
    points = (np.sign(values(there) - values(away)) + 1) / 2
    found: dict[str, Any] = {"n": len(kept), "own_prompt_higher": share(points, pairs.prompt_of[used][kept], draws=400)}
    if all(SPREAD in score.parts for score in (*there, *away)):
        near, far = (np.array([score.parts[SPREAD] for score in side]) for side in (there, away))
        found["spread"] = {
            "in": float(near.mean()),
            "out": float(far.mean()),
            "told_apart": float((np.sign(far[:, None] - near[None, :]) / 2 + 0.5).mean()),
        }
    return found


def _exchanged(pairs: Pairs, seed: int) -> tuple[Ints, list[tuple[int, Prompt]], int]:
    """Every completion with the prompt of another one, drawn; those that drew their own are left out, and counted."""
    used = np.unique(np.concatenate([pairs.first, pairs.second]))
    drawn = used[np.random.default_rng(seed).permutation(len(used))]
    apart = pairs.prompt_of[used] != pairs.prompt_of[drawn]
    prompts = [pairs.completions[i].prompt for i in drawn[apart]]
    return used[apart], list(zip(used[apart].tolist(), prompts, strict=True)), int((~apart).sum())
