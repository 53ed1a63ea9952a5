"""What is said of answers without a judge: true to plain definitions, with intervals that cover."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest

from trueup.evals.measures import (
    bits_a_byte,
    findings,
    furthest_apart,
    kl_of_best,
    least_alike,
    of_answers,
    surprise,
)
from trueup.records import Completion, Prompt
from trueup.stats.diversity import self_bleu

PROMPTS = [Prompt.user(f"question {i}") for i in range(40)]


def answers(say, **meta):
    return [Completion(p, say(i), tokens=(1,) * len(say(i).split()), meta=meta) for i, p in enumerate(PROMPTS)]


def test_length_variety_repetition_and_refusals():
    found = of_answers(answers(lambda i: f"answer number {i} " + "so " * (i % 3)))
    assert found["words"]["value"] == pytest.approx(np.mean([3 + i % 3 for i in range(40)]))
    assert found["words"]["ci"][0] < found["words"]["value"] < found["words"]["ci"][1]
    assert found["repetition"]["value"] == 0 and found["duplicates"] == 0 and found["refused"]["value"] == 0
    assert found["tokens_sampled"] == found["words"]["value"]
    same = of_answers(answers(lambda i: "I cannot do that, I cannot do that, I cannot do that"))
    assert same["repetition"]["value"] > 0.4 and same["duplicates"] == 39 / 40 and same["refused"]["value"] == 1
    assert same["self_bleu"] == pytest.approx(1) and same["distinct_2"] < 0.02


def test_the_best_of_eight_costs_eight():
    assert of_answers(answers(lambda i: "a b c", best_of=8))["tokens_sampled"] == 24
    assert of_answers([Completion(p, "x") for p in PROMPTS])["tokens_sampled"] is None, "text from a file has no tokens"


def plain_self_bleu(texts, n=4):
    """By definition, text by text."""

    def counts(text, k):
        return Counter(tuple(text[i : i + k]) for i in range(len(text) - k + 1))

    scores = []
    for i, text in enumerate(texts):
        others, logs = texts[:i] + texts[i + 1 :], []
        for k in range(1, n + 1):
            mine = counts(text, k)
            if not mine:
                break
            shared = sum(min(c, max(counts(o, k)[run] for o in others)) for run, c in mine.items())
            logs.append(math.log(max(shared, 0.5) / sum(mine.values())))
        nearest = min((len(o) for o in others), key=lambda size: (abs(size - len(text)), size))
        scores.append(math.exp(min(0.0, 1 - nearest / len(text)) + sum(logs) / len(logs)))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_self_bleu_equals_its_definition(seed):
    random = Random(seed)
    texts = [[random.choice("abcde") for _ in range(random.randint(1, 12))] for _ in range(15)]
    assert self_bleu(texts) == pytest.approx(plain_self_bleu(texts), abs=1e-12)


def test_self_bleu_at_its_ends():
    assert self_bleu([["a", "b"]]) is None and self_bleu([[], ["a"]]) is None
    assert self_bleu([["a", "b", "c", "d"]] * 3) == pytest.approx(1)
    assert self_bleu([[f"{i} {k}" for k in range(6)] for i in range(9)]) < 0.2


def test_the_kl_of_best_of_n_is_known():
    assert kl_of_best(8)["value"] == pytest.approx(math.log(8) - 7 / 8) and kl_of_best(8)["ci"] is None


def test_surprise_is_bits_over_all_bytes_whatever_the_tokens():
    texts = ["abcd", "ab", "é"]
    whole = [[-4 * math.log(2)], [-1 * math.log(2), -1 * math.log(2)], [-6 * math.log(2)]]
    bits = bits_a_byte(whole, texts)
    assert bits.tolist() == pytest.approx([1, 1, 3])
    assert surprise(bits, texts)["value"] == pytest.approx(12 / 8)
    more = surprise(np.full(3, 0.5), texts)
    assert more["value"] == pytest.approx(0.5) and more["ci"] == pytest.approx([0.5, 0.5])
    assert surprise(bits[:1], texts[:1])["ci"] is None, "of one text nothing is known of the spread"


def test_examples_are_those_on_which_models_differ_most():
    assert furthest_apart([[0, 5, 1], [1, 0, 1], [0.5, 2, 9]], 2) == [2, 1]
    assert least_alike([["a b c", "x y", ""], ["a b d", "p q", ""]], 1) == [1]


def test_what_to_look_at_is_named():
    base = {"model": "base", **of_answers(answers(lambda i: f"answer number {i} of question {i * 7}"))}
    long = {"model": "long", **of_answers(answers(lambda i: f"answer number {i} of question {i * 7} " * 3))}
    same = {"model": "same", **of_answers(answers(lambda i: "this is my answer to it"))}
    prude = {"model": "prude", **of_answers(answers(lambda i: f"I cannot answer number {i} of {i * 7}"))}
    dull = {**base, "model": "dull", "surprise_change": {"value": 0.4, "ci": [0.2, 0.6], "n": 40}}
    said = {
        (one["model"], one["says"].split(",")[0].split(":")[0]) for one in findings([base, long, same, prude, dull])
    }
    assert ("long", "writes 3.0 times as much") in said and ("long", "repeats itself more") in said
    assert ("same", "has lost variety") in said and ("prude", "refuses more often") in said
    assert ("dull", "has forgotten") in said and not [one for one in said if one[0] == "base"]
