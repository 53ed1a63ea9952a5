"""How much of a text is said again, and how much of many texts is the same. Over any tokens: ids or words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import exp, log

Tokens = Sequence[Hashable]

MOST_BLEU = 200  # texts compared with each other; of more, evenly chosen ones


def ngrams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def repetition(tokens: Tokens, n: int = 4) -> float:
    """Share of a text's runs of `n` tokens that it had said before; a text shorter than a run repeats nothing."""
    runs = ngrams(tokens, n)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(texts: Sequence[Tokens], n: int = 2) -> float:
    """Share of all runs of `n` tokens in many texts that are different ones; 1 where there is no run at all."""
    runs = [run for tokens in texts for run in ngrams(tokens, n)]
    return len(set(runs)) / len(runs) if runs else 1.0


def duplicates(texts: Sequence[Hashable]) -> float:
    """Share of texts that another one before them equals."""
    return 1 - len(set(texts)) / len(texts) if texts else 0.0


def self_bleu(texts: Sequence[Tokens], n: int = 4) -> float | None:
    """How well the others foretell each text: the mean BLEU of each against all others (Zhu et al., 2018), from 0 where
    no run is shared to 1 where all texts are one. None of fewer than two texts.

    BLEU is of runs of one to `n` tokens, each clipped to what the most alike other text has, with the brevity penalty
    of the other nearest in length; a share of none counts as half a run, so that short texts are not all 0.
    """
    if len(texts) > MOST_BLEU:
        texts = [texts[i * len(texts) // MOST_BLEU] for i in range(MOST_BLEU)]
    texts = [text for text in texts if text]
    if len(texts) < 2:
        return None
    runs = [[Counter(ngrams(text, k)) for text in texts] for k in range(1, n + 1)]
    most = [_most_of_each(each) for each in runs]
    sizes = Counter(map(len, texts))
    return sum(_bleu(i, len(text), runs, most, sizes) for i, text in enumerate(texts)) / len(texts)


_Run = tuple[Hashable, ...]


def _most_of_each(counts: Sequence[Counter[_Run]]) -> dict[_Run, tuple[int, int, int]]:
    """Of each run: how often the text has it that has it most often, which that is, and how often the next one."""
    found: dict[_Run, tuple[int, int, int]] = {}
    for i, mine in enumerate(counts):
        for run, count in mine.items():
            most, owner, next_most = found.get(run, (0, -1, 0))
            found[run] = (count, i, most) if count > most else (most, owner, max(next_most, count))
    return found


def _bleu(
    i: int,
    length: int,
    runs: Sequence[Sequence[Counter[_Run]]],
    most: Sequence[dict[_Run, tuple[int, int, int]]],
    sizes: Counter[int],
) -> float:
    logs = []
    for counts, best in zip(runs, most, strict=True):
        mine = counts[i]
        if not mine:
            break  # too short for runs of this length
        shared = sum(min(count, best[run][2] if best[run][1] == i else best[run][0]) for run, count in mine.items())
        logs.append(log(max(shared, 0.5) / sum(mine.values())))
    others = sizes - Counter([length])
    nearest = min(others, key=lambda size: (abs(size - length), size))
    return exp(min(0.0, 1 - nearest / length) + sum(logs) / len(logs))
