"""How alike texts are: near duplicates by hashed character n-grams, topics by k-means over weighted words.

Characters rather than words find copies in any language and through small edits. NumPy only, and all of it a function
of the texts and a seed.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]

NGRAM = 5  # characters
BANDS, BAND = 16, 4  # pairs with a Jaccard index of 0.8 meet in some band with probability 0.9998
FITTED = 8000  # texts that topics are made from; the rest is only assigned
WORDS = 4000  # the commonest of them stand for a text
COMMON = 0.3  # a word in more than this share of texts names no topic
CHUNK = 4096
STARTS = 4  # of k-means
_WORD = re.compile(r"[^\W\d_]{2,}")


# --- near duplicates


def shingles(text: str) -> Hashes:
    """Hashes of the distinct runs of characters in a text, whatever its case and spacing."""
    plain = " ".join(text.lower().split())
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < NGRAM:
        return np.array([zlib.crc32(plain.encode("utf-8", "surrogatepass"))], dtype=np.uint64)
    rolled = np.zeros(len(codes) - NGRAM + 1, dtype=np.uint64)
    for place in range(NGRAM):  # wraps around at 2^64, as a hash may
        rolled = rolled * np.uint64(1_099_511_628_211) + codes[place : place + len(rolled)]
    return np.unique(rolled)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared n-grams over all n-grams of two texts: 1 for copies, 0 for strangers."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def near_duplicates(texts: Sequence[str], threshold: float = 0.8) -> list[list[int]]:
    """Groups of two or more texts that are alike, each with its places in order. Like to like: groups may chain."""
    sets = [shingles(text) for text in texts]
    leader = list(range(len(texts)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for a, b in _candidates(sets):
        one, other = find(a), find(b)
        if one != other and jaccard(sets[a], sets[b]) >= threshold:
            leader[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = {}
    for i in range(len(texts)):
        groups.setdefault(find(i), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _candidates(sets: Sequence[Hashes]) -> Iterator[tuple[int, int]]:
    """Pairs that agree in a band of their signatures; in a crowded bucket neighbours, so that it stays linear."""
    signatures = _signatures(sets)
    for band in range(BANDS):
        keys = signatures[:, band * BAND : (band + 1) * BAND]
        buckets: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            before = buckets.get(key.tobytes())
            if before is not None:
                yield before, i
            buckets[key.tobytes()] = i


def _signatures(sets: Sequence[Hashes]) -> NDArray[np.uint32]:
    """MinHash: the smallest n-gram under each of many hash functions."""
    chance = np.random.default_rng(0)
    size = BANDS * BAND
    factor = chance.integers(1, 2**63, size, dtype=np.uint64) | np.uint64(1)
    shift = chance.integers(0, 2**63, size, dtype=np.uint64)
    made = np.empty((len(sets), size), dtype=np.uint32)
    for i, hashes in enumerate(sets):
        mixed = (hashes[:, None] * factor + shift) >> np.uint64(32)
        made[i] = mixed.min(axis=0)
    return made


# --- features of texts


def hashed_features(texts: Sequence[str], size: int = 512) -> Floats:
    """Texts as rows of length 1: signed counts of their character n-grams in `size` buckets."""
    made = np.zeros((len(texts), size), dtype=np.float32)
    for row, text in zip(made, texts, strict=True):
        hashes = shingles(text) * np.uint64(11_400_714_819_323_198_485)
        sign = np.where(hashes >> np.uint64(63), 1.0, -1.0)
        np.add.at(row, ((hashes >> np.uint64(20)) % np.uint64(size)).astype(np.int64), sign)
    return _unit(made)


def spread_out(features: Floats, k: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """k-means++ (Arthur and Vassilvitskii 2007): k rows far from one another, drawn by squared distance."""
    n = len(features)
    assert 1 <= k <= n
    chosen = [int(chance.integers(n))]
    nearest = _squared(features, features[chosen[0]])
    while len(chosen) < k:
        nearest[chosen] = 0.0
        total = float(nearest.sum())
        if total <= 0:  # everything left is a copy of something chosen
            rest = np.setdiff1d(np.arange(n), chosen)
            chosen.append(int(chance.choice(rest)))
        else:
            chosen.append(int(chance.choice(n, p=nearest / total)))
        nearest = np.minimum(nearest, _squared(features, features[chosen[-1]]))
    return np.array(chosen)


def _squared(rows: Floats, point: Floats) -> NDArray[np.float64]:
    found: NDArray[np.float64] = ((rows - point) ** 2).sum(axis=1).astype(np.float64)
    return found


def nearest_row(features: Floats, centres: Floats) -> NDArray[np.int64]:
    """For each row the centre at the smallest distance, in blocks."""
    half = 0.5 * (centres**2).sum(axis=1)
    blocks = [
        np.argmax(features[i : i + CHUNK] @ centres.T - half, axis=1) for i in range(0, max(len(features), 1), CHUNK)
    ]
    return np.concatenate(blocks).astype(np.int64)


# --- topics


@dataclass(frozen=True)
class Topics:
    """Which topic each text has, and for each topic the words that set it apart."""

    of: NDArray[np.int64]
    words: tuple[tuple[str, ...], ...]


def topics(texts: Sequence[str], k: int = 0, *, seed: int = 0, named_by: int = 4) -> Topics:
    """Spherical k-means on tf-idf rows, the best of a few starts; topics in order of size. `k` 0 chooses by size."""
    found = [Counter(_WORD.findall(text.lower())) for text in texts]
    chance = np.random.default_rng(seed)
    vocabulary, idf = _vocabulary(found)
    k = min(k or round((len(texts) / 2) ** 0.5), 12, len(texts))
    if k < 2 or not vocabulary:
        return Topics(np.zeros(len(texts), dtype=np.int64), ((),))
    sample = np.sort(chance.permutation(len(texts))[:FITTED])
    rows = _tf_idf([found[i] for i in sample], vocabulary, idf)
    centres = _k_means(rows, k, chance)
    of = np.concatenate(
        [nearest_row(_tf_idf(found[i : i + CHUNK], vocabulary, idf), centres) for i in range(0, len(found), CHUNK)]
    )
    return _named(of, centres, rows.mean(axis=0), list(vocabulary), named_by)


def _vocabulary(found: Sequence[Counter[str]]) -> tuple[dict[str, int], Floats]:
    n = len(found)
    frequency = Counter(word for counts in found for word in counts)
    useful = [(word, c) for word, c in frequency.items() if c <= max(5, COMMON * n) and (c > 1 or n < 20)]
    useful = sorted(useful, key=lambda pair: (-pair[1], pair[0]))[:WORDS]
    idf = np.array([np.log((1 + n) / (1 + count)) for _, count in useful], dtype=np.float32)
    return {word: i for i, (word, _) in enumerate(useful)}, idf


def _tf_idf(found: Sequence[Counter[str]], vocabulary: dict[str, int], idf: Floats) -> Floats:
    rows = np.zeros((len(found), len(idf)), dtype=np.float32)
    for row, counts in zip(rows, found, strict=True):
        for word, count in counts.items():
            if (place := vocabulary.get(word)) is not None:
                row[place] = (1 + np.log(count)) * idf[place]
    return _unit(rows)


def _k_means(rows: Floats, k: int, chance: np.random.Generator) -> Floats:
    tried = [_settled(rows, rows[spread_out(rows, k, chance)]) for _ in range(STARTS)]
    return max(tried, key=lambda found: found[1])[0]


def _settled(rows: Floats, centres: Floats, steps: int = 25) -> tuple[Floats, float]:
    """Centres once nothing moves any more, and how close rows are to them, as the sum of cosines."""
    of = np.full(len(rows), -1)
    for _ in range(steps):
        moved = nearest_row(rows, centres)
        if (moved == of).all():
            break
        of = moved
        sums = np.zeros_like(centres)
        np.add.at(sums, of, rows)
        filled = np.bincount(of, minlength=len(centres)) > 0
        centres = np.where(filled[:, None], _unit(sums), centres)
    return centres, float((rows * centres[of]).sum())


def _named(of: NDArray[np.int64], centres: Floats, mean: Floats, vocabulary: list[str], named_by: int) -> Topics:
    """Renumbered by size, empty ones left out; named by the words most above what they weigh in all texts."""
    sizes = np.bincount(of, minlength=len(centres))
    order = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i]]
    place = np.full(len(centres), -1)
    place[order] = np.arange(len(order))
    names = []
    for topic in order:
        above = centres[topic] - mean
        best = [int(i) for i in np.argsort(-above, kind="stable")[:named_by] if above[i] > 0]
        names.append(tuple(vocabulary[i] for i in best))
    return Topics(place[of], tuple(names))


def _unit(rows: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one."""
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return (rows / np.where(length > 0, length, 1.0)).astype(np.float32)
