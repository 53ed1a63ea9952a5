"""Near duplicates against exact Jaccard, topics that were put in, and thin spots that are there."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trueup.feedback import coverage, likeness
from trueup.records import Message, Prompt

THEMES = {
    "cooking": "recipe oven butter flour bake sauce garlic onion simmer".split(),
    "sailing": "boat harbour mast wind anchor tide rope deck storm".split(),
    "gardens": "tomato soil compost seedling prune roses shovel bloom shade".split(),
}


def made(theme: str, chance: random.Random) -> str:
    return " ".join(["please", "tell", "me", *(chance.choice(THEMES[theme]) for _ in range(8))])


@pytest.fixture(scope="module")
def prompts() -> list[tuple[str, Prompt]]:
    chance = random.Random(0)
    return [(theme, Prompt.user(made(theme, chance))) for theme in THEMES for _ in range(40)]


def test_copies_are_found_whatever_their_case_spacing_or_one_word():
    text = "Write a short poem about the sea in winter, and keep it under forty words if you can."
    texts = [text, "Explain recursion to a child.", text.upper().replace(" ", "  "), text.replace("forty", "fifty")]
    assert likeness.near_duplicates(texts) == [[0, 2, 3]]
    assert likeness.near_duplicates(texts, threshold=0.99) == [[0, 2]]


def test_near_duplicates_agree_with_all_pairs_compared():
    chance = random.Random(1)
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
    texts = []
    for _ in range(30):
        text = [chance.choice(words) for _ in range(25)]
        texts.append(" ".join(text))
        text[chance.randrange(25)] = "changed"
        texts.append(" ".join(text))
    sets = [likeness.shingles(text) for text in texts]
    exact = {(i, j) for i in range(60) for j in range(i + 1, 60) if likeness.jaccard(sets[i], sets[j]) >= 0.8}
    groups = likeness.near_duplicates(texts)
    together = {(i, j) for group in groups for i in group for j in group if i < j}
    assert exact and exact == together


def test_short_empty_and_broken_texts_have_shingles():
    assert len(likeness.shingles("")) == len(likeness.shingles("hi")) == 1
    assert likeness.near_duplicates(["", "", "hi", "\ud800"]) == [[0, 1]]


def test_topics_are_those_that_were_put_in_and_carry_their_words(prompts):
    found = likeness.topics([prompt.text for _, prompt in prompts], 3)
    for topic in range(3):
        themes = {theme for (theme, _), of in zip(prompts, found.of, strict=True) if of == topic}
        assert len(themes) == 1
        assert set(found.words[topic]) <= set(THEMES[themes.pop()])
    again = likeness.topics([prompt.text for _, prompt in prompts], 3)
    assert (again.of == found.of).all() and again.words == found.words


def test_a_topic_nobody_judged_is_thin(prompts):
    judged = {prompt.id: 3 for theme, prompt in prompts if theme != "sailing"}
    found = coverage.describe([prompt for _, prompt in prompts], judged, topics=3)
    thin = [topic for topic in found.topics if topic.thin]
    assert [set(topic.words) <= set(THEMES["sailing"]) for topic in thin] == [True]
    assert thin[0].judgements == 0 and thin[0].unjudged == thin[0].prompts == 40
    assert found.judgements == 240 and found.unjudged == 40


def test_counts_lengths_and_turns():
    long = Prompt.user("one two three four")
    talk = Prompt((Message("user", "a b"), Message("assistant", "c"), Message("user", "d e")))
    found = coverage.describe([long, long, talk], {})
    assert (found.prompts, found.exact_copies, found.near_copies) == (3, 1, 0)
    assert found.words["0%"] == 2 and found.words["100%"] == 4 and found.turns == {"1": 1, "3": 1}
    assert not any(topic.thin for topic in found.topics), "nothing is thin where nothing was judged at all"


def test_spread_out_takes_one_of_each_cluster_before_a_second():
    chance = np.random.default_rng(0)
    corners = np.eye(5, dtype=np.float32)
    features = np.repeat(corners, 20, axis=0)
    for _ in range(10):
        assert sorted(likeness.spread_out(features, 5, chance) // 20) == [0, 1, 2, 3, 4]
    assert len(set(likeness.spread_out(features, 12, chance))) == 12, "copies are taken when nothing else is left"
