"""The built-in world: the same everywhere, readable, and with a gold score and people that behave as documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from random import Random

import pytest

from trueup.errors import ConfigError, DataError
from trueup.records import Completion, Judgement, Prompt
from trueup.world import (
    BEST,
    PERSONAS,
    STREAMS,
    GoldScorer,
    Post,
    SimulatedPeople,
    World,
    ceiling,
    demonstration,
    describe,
    expected_agreement,
    faithful,
    gold_score,
    make_posts,
    p_true,
    persona_named,
    utility,
    vote_probability,
    wordings,
    words,
)
from trueup.world.gold import template_trigrams
from trueup.world.summaries import PARTIAL, VAGUE, render

POSTS = make_posts(3, 1500)


def candidates(posts: list[Post], n: int, seed: int = 0) -> list[list[Completion]]:
    """`n` demonstration-like completions a post, as a policy after supervised fine-tuning writes them."""
    rng = Random(seed)
    prompts = [(post, post.prompt()) for post in posts]
    return [[Completion(prompt, demonstration(post, rng)) for _ in range(n)] for post, prompt in prompts]


def distinct_pairs(posts: list[Post]) -> list[tuple[Completion, Completion]]:
    """Two drafts a post of a small model after fine-tuning: its own copying errors come on top of its teachers'."""
    rng = Random(0)
    drafts = [[Completion(post.prompt(), demonstration(post, rng, error=0.2)) for _ in range(2)] for post in posts]
    return [(a, b) for a, b in drafts if a.text != b.text]


# --- posts ---------------------------------------------------------------------------------------------------------

DIGEST = """
from trueup.records import digest
from trueup.world import SimulatedPeople, World
from trueup.records import Completion
world = World(5)
groups = world.pretraining(40)
items = [[Completion(p, t) for t in ts] for p, ts in groups]
judged = [j.to_json() for j in SimulatedPeople(1, judges_per_item=2).judge(items)]
judged += [j.to_json() for j in SimulatedPeople(1, mode="pairs", pairs_per_prompt=3).judge(items)]
print(digest([[d.to_json() for d in world.demonstrations(40)], judged]))
"""


def test_everything_is_the_same_in_every_process() -> None:
    root = Path(__file__).parents[1]
    seen = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(seen) == 1 and len(seen.pop().strip()) == 64


def test_more_posts_only_add_at_the_end_and_seeds_differ() -> None:
    assert make_posts(3, 50) == POSTS[:50]
    assert make_posts(4, 50) != POSTS[:50]


def test_streams_share_no_combination_of_facts_and_avoid_is_obeyed() -> None:
    keys = [{post.key for post in make_posts(7, 800, stream=stream)} for stream in STREAMS]
    assert all(len(own) == 800 for own in keys)
    assert not any(a & b for a, b in combinations(keys, 2))
    assert not keys[0] & {post.key for post in make_posts(7, 800, stream=STREAMS[0], avoid=keys[0])}


def test_an_unknown_stream_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="heldout"):
        make_posts(0, 1, stream="held_out")


def test_all_values_are_used_about_equally() -> None:
    posts = make_posts(0, 4000)
    for slot in words.SLOTS:
        counts = Counter(getattr(post.facts, slot) for post in posts)
        known = {value for family in words.FAMILIES for value in family.values(slot)}
        assert set(counts) == known
        assert min(counts.values()) > 35


def test_a_post_says_its_facts_and_its_distractors() -> None:
    for post in POSTS:
        assert all(value in post.text for value in post.facts)
        assert all(value in post.text for values in post.distractors.values() for value in values)
        assert all(getattr(post.facts, slot) not in values for slot, values in post.distractors.items())
    assert sum(bool(post.distractors["who"]) for post in POSTS) > len(POSTS) / 2  # somebody to be confused with


def test_posts_and_titles_are_tidy_english() -> None:
    rng = Random(0)
    lengths = [len(post.text.split()) for post in POSTS]
    assert 45 < sum(lengths) / len(lengths) < 60 and min(lengths) >= 20 and max(lengths) <= 105
    for post in POSTS:
        for text in (post.text, faithful(post, rng), demonstration(post, rng)):
            assert not re.search(r"[{}]|  |\s[.,?!]|[.,?!]{2}|[^\x20-\x7e]", text), text
            assert re.search(r"[.?]$", text) and text == text.strip()
            assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?]) ", text)), text
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\bi\b", text), text
            spoken = text.split()  # with punctuation, so that a sentence may begin as the last one ended
            assert all(a != b for a, b in pairwise(spoken)), text


def test_pronouns_fit_the_culprit() -> None:
    for post in POSTS:
        said = set(re.findall(r"\b(?:she|he)\b", post.text))
        assert len(said) <= 1
        if post.facts.who in words.FEMALE + words.MALE:
            assert said <= {"she" if post.facts.who in words.FEMALE else "he"}


def test_the_truth_survives_json_and_stays_out_of_the_text() -> None:
    prompt = POSTS[0].prompt()
    again = Prompt.from_json(prompt.to_json())
    title = faithful(POSTS[0], Random(0))
    assert again.id == prompt.id and gold_score(again, title) == gold_score(prompt, title)
    assert [m.content for m in prompt.messages] == [POSTS[0].text]


def test_ten_thousand_posts_take_seconds() -> None:
    start = time.process_time()
    make_posts(11, 10_000)
    assert time.process_time() - start < 3


def test_the_world_hands_out_its_parts() -> None:
    world = World(2)
    prompt, titles = world.pretraining(3)[2]
    assert len(set(titles)) == 4 and all(gold_score(prompt, title) == pytest.approx(BEST) for title in titles[:3])
    assert describe(prompt, titles[3]).false == 0  # careless, but true
    assert world.demonstrations(5)[:3] == world.demonstrations(3)
    assert world.prompts("heldout", 3) == [post.prompt() for post in world.posts("heldout", 3)]


# --- the language --------------------------------------------------------------------------------------------------


def test_a_phrase_means_one_thing_and_no_template_says_one() -> None:
    kinds: dict[str, set[str]] = {}
    for family in words.FAMILIES:
        for slot in words.SLOTS:
            assert len(set(family.values(slot))) == len(family.values(slot)) >= 18
            for value in family.values(slot):
                kinds.setdefault(value, set()).add(slot)
                assert len(value.split()) <= 3
    for phrase in (*words.VAGUE.values(), *words.FILLERS):
        kinds.setdefault(phrase, set()).add("style")
    assert all(len(slots) == 1 for slots in kinds.values())
    for template in words.TITLES + words.PARTIAL_TITLES:
        bare = re.sub(r"\{\w+\}", "|", template).lower()
        assert not any(re.search(rf"\b{phrase}\b", bare) for phrase in kinds), template


def test_every_faithful_title_of_every_wording_is_perfect_and_short() -> None:
    rng = Random(1)
    for post in POSTS:
        for title in wordings(post, rng, len(words.TITLES)):
            assert gold_score(post.prompt(), title) == pytest.approx(BEST), title
            assert len(title.split()) <= 18
    with pytest.raises(ConfigError):
        wordings(POSTS[0], rng, 99)


def test_demonstrations_err_at_the_documented_rates() -> None:
    rng = Random(2)
    noticed = [describe(post.prompt(), demonstration(post, rng)) for post in make_posts(1, 4000)]
    mean = {name: sum(f.parts()[name] for f in noticed) / len(noticed) for name in noticed[0].parts()}
    assert mean["filler"] == pytest.approx(0.40, abs=0.03)
    usual = PARTIAL * words.PARTIAL_WEIGHTS[0] / sum(words.PARTIAL_WEIGHTS)
    assert mean["vague"] == pytest.approx(usual + (1 - usual) * VAGUE, abs=0.04)  # a partial title may lack the slot
    assert mean["false"] == pytest.approx(4 * 0.08, abs=0.06)
    assert sum(f.repeated > 0 for f in noticed) / len(noticed) == pytest.approx(0.08, abs=0.02)


def test_template_trigrams_are_exactly_what_titles_contain() -> None:
    known, rng = template_trigrams(), Random(3)
    for post in POSTS[:300]:
        for template in words.TITLES + words.PARTIAL_TITLES:
            vague, filler = rng.choice(words.SLOTS), rng.choice(words.FILLERS)
            title = render(template, post.facts._asdict(), vague=vague, filler=filler)
            assert describe(post.prompt(), title).unseen == 0, title
    assert 1_000 < len(known) < 50_000
    assert ("my", "sister", "broke") in known and ("sister", "my", "broke") not in known


# --- gold ----------------------------------------------------------------------------------------------------------


def test_faithful_beats_demonstrations_by_a_wide_margin() -> None:
    rng = Random(4)
    gold = [gold_score(post.prompt(), demonstration(post, rng)) for post in POSTS]
    assert 2.5 < sum(gold) / len(gold) < 3.7  # the designed-in headroom to 5.4
    assert max(gold) <= BEST + 1e-9


@pytest.fixture
def post() -> Post:
    return next(p for p in POSTS if p.facts.act in words.DAMAGE.acts and p.facts.who == "aunt")


def test_each_fault_costs_what_it_says(post: Post) -> None:
    prompt, facts = post.prompt(), post.facts._asdict()
    template = words.TITLES[0]

    def gold(**changes: str) -> float:
        return gold_score(prompt, render(template, facts | changes))

    weights = {"who": 1.2, "act": 1.0, "object": 1.1, "reaction": 1.0, "question": 1.1}
    for slot, weight in weights.items():
        wrong = next(v for v in words.DAMAGE.values(slot) if v != facts[slot])
        assert gold(**{slot: wrong}) == pytest.approx(BEST - weight - 1.5)
        assert gold_score(prompt, render(template, facts, vague=slot)) == pytest.approx(BEST - weight)
    for filler in words.FILLERS:
        title = render(template, facts, filler=filler)
        excess = max(0, len(title.split()) - 18)
        assert gold_score(prompt, title) == pytest.approx(BEST - 0.6 - 0.12 * excess)
    title = render(template, facts)
    assert gold_score(prompt, title, finished=False) == pytest.approx(BEST - 1.5)


def test_repetition_length_and_gibberish_cost_what_they_say(post: Post) -> None:
    prompt = post.prompt()
    title = render(words.TITLES[0], post.facts._asdict())
    twice = describe(prompt, f"{title} {title}")
    size = len(title.split())
    assert twice.repeated == size - 2 and twice.unseen == 2 and twice.excess == 2 * size - 18
    assert gold_score(prompt, f"{title} {title}") == pytest.approx(
        BEST - 0.35 * twice.repeated - 0.4 * 2 - 0.12 * twice.excess
    )
    shuffled = " ".join(sorted(title.rstrip("?").split()))
    assert gold_score(prompt, shuffled) < 0
    listing = ", ".join(post.facts)  # naming the facts is not a sentence
    assert gold_score(prompt, listing) < BEST - 1
    assert gold_score(prompt, " ".join(f"my {who}" for who in words.PEOPLE)) < -30
    assert gold_score(prompt, post.text) < -10  # copying the post is no summary


HOSTILE = ("", " ", "\n\t", "?", "?!" * 500, "\x00\x00", "é 漢字 \U0001f600 {who} %s", "my " * 5000, "a" * 50_000)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_safe_and_never_good(post: Post, text: str) -> None:
    assert gold_score(post.prompt(), text) <= 0
    assert gold_score(post.prompt(), render(words.TITLES[0], post.facts._asdict()) + " " + text) <= BEST + 1e-9
    for persona in PERSONAS:
        a, b = Completion(post.prompt(), text), Completion(post.prompt(), "my sister")
        assert 0 <= vote_probability(persona, a, b) <= 1
        assert vote_probability(persona, a, b) == pytest.approx(1 - vote_probability(persona, b, a))


def test_joining_words_or_scattering_punctuation_does_not_pay(post: Post) -> None:
    prompt, title = post.prompt(), render(words.TITLES[0], post.facts._asdict())
    assert gold_score(prompt, title.replace(" ", "")) <= 0
    assert gold_score(prompt, title.replace(" ", " , ")) < 0
    assert gold_score(prompt, title.upper()) == pytest.approx(BEST)


def test_gold_scorer_is_a_scorer_and_fast(post: Post) -> None:
    flat = [c for group in candidates(POSTS, 4) for c in group]
    GoldScorer().score(flat[:1])  # builds the tables
    start = time.process_time()
    scores = GoldScorer().score(flat)
    assert len(flat) / (time.process_time() - start) > 5_000
    assert [s.value for s in scores] == [gold_score(c.prompt, c.text) for c in flat]
    assert scores[0].parts["words"] == len(flat[0].text.split())


def test_a_prompt_from_elsewhere_is_refused() -> None:
    for prompt in (Prompt.user("hello"), Prompt.user("hello", world=None), Prompt.user("hello", world={"facts": {}})):
        with pytest.raises(DataError, match="no truth"):
            gold_score(prompt, "hello")


# --- people --------------------------------------------------------------------------------------------------------


def test_two_people_agree_on_70_to_75_percent() -> None:
    pairs = distinct_pairs(make_posts(0, 3000))
    assert len(pairs) >= 2000
    assert 0.70 < expected_agreement(pairs) < 0.75


def test_actual_votes_agree_as_often_as_expected() -> None:
    groups = [group for group in candidates(POSTS, 2) if group[0].text != group[1].text]
    votes = list(SimulatedPeople(8, judges_per_item=2).judge(groups))
    agree = sum(a.ranks == b.ranks for a, b in zip(votes[::2], votes[1::2], strict=True)) / len(groups)
    assert agree == pytest.approx(expected_agreement([(a, b) for a, b in groups]), abs=0.04)


def test_one_person_agrees_with_gold_on_about_80_percent() -> None:
    shares = []
    for persona in PERSONAS:
        for a, b in distinct_pairs(POSTS):
            gap = gold_score(a.prompt, a.text) - gold_score(b.prompt, b.text)
            if gap:
                p = vote_probability(persona, a, b)
                shares.append(p if gap > 0 else 1 - p)
    assert sum(shares) / len(shares) == pytest.approx(0.80, abs=0.025)


def test_everyone_prefers_a_faithful_title_to_a_false_one(post: Post) -> None:
    prompt, facts = post.prompt(), post.facts._asdict()
    good = render(words.TITLES[0], facts)
    for slot in words.SLOTS:
        wrong = next(v for v in words.DAMAGE.values(slot) if v != facts[slot])
        bad = render(words.TITLES[0], facts | {slot: wrong})
        for persona in PERSONAS:
            assert utility(persona, prompt, good) > utility(persona, prompt, bad)
            assert utility(persona, prompt, good) > utility(persona, prompt, good, finished=False)


def test_the_ceiling_is_what_knowing_the_utilities_gets_right() -> None:
    """Against votes: the share of pairs on which the judge voted as its own utilities say, within 4 standard errors."""
    for people in (SimulatedPeople(1), SimulatedPeople(2, mode="pairs", pairs_per_prompt=4)):
        judgements = list(people.judge(candidates(POSTS, 4)))
        right = [
            (target == 1) == (p > 0.5)
            for judgement in judgements
            for p, (_, _, target) in zip(p_true(judgement), judgement.pairs(), strict=True)
            if target != 0.5 and p != 0.5
        ]
        assert len(right) > 5000
        assert sum(right) / len(right) == pytest.approx(ceiling(judgements), abs=0.025)


def test_a_ranking_has_the_bradley_terry_probability_on_every_pair() -> None:
    group = candidates(POSTS[5:6], 4)[0]
    assert len({c.text for c in group}) == 4
    wins, counted = Counter[tuple[int, int]](), 3000
    for seed in range(counted):
        judgement = next(iter(SimulatedPeople(seed, personas=PERSONAS[:1]).judge([group])))
        assert sorted(judgement.ranks) == [1, 2, 3, 4]
        wins.update((i, j) for i, j, target in judgement.pairs() if target == 1)
    for i, j in combinations(range(4), 2):
        assert wins[i, j] / counted == pytest.approx(vote_probability(PERSONAS[0], group[i], group[j]), abs=0.035)


@pytest.mark.parametrize("mode", ["ranking", "pairs"])
def test_judgements_do_not_depend_on_the_order_of_items(mode: str) -> None:
    groups = candidates(POSTS[:60], 4)
    people = SimulatedPeople(4, mode=mode, judges_per_item=2)  # type: ignore[arg-type]
    one = {j.id: j for j in people.judge(groups)}
    two = {j.id: j for j in people.judge(reversed(groups))}
    assert one == two and len(one) >= 120
    assert {j.id: j for j in SimulatedPeople(5, mode=mode, judges_per_item=2).judge(groups)} != one  # type: ignore[arg-type]


def test_a_judgement_says_who_and_how_and_survives_json() -> None:
    prompt = POSTS[0].prompt()
    group = [Completion(prompt, "my sister broke", finished=False), Completion(prompt, faithful(POSTS[0], Random(0)))]
    for judgement in SimulatedPeople(0, judges_per_item=5, split="heldout").judge([group]):
        again = Judgement.from_json(judgement.to_json())
        assert again == judgement and p_true(again) == p_true(judgement)
        assert judgement.source == "simulated" and judgement.split == "heldout"
        persona = persona_named(judgement.judge)
        assert p_true(judgement) == [pytest.approx(vote_probability(persona, *group))]


def test_identical_texts_tie_and_pairs_leave_them_out() -> None:
    prompt = POSTS[0].prompt()
    same, other = Completion(prompt, "Someone broke my hat."), Completion(prompt, "My aunt broke my hat.")
    ranked = next(iter(SimulatedPeople(0).judge([[same, same, other]])))
    assert ranked.ranks[0] == ranked.ranks[1] != ranked.ranks[2]
    assert p_true(ranked)[0] == 0.5
    paired = list(SimulatedPeople(0, mode="pairs", pairs_per_prompt=9).judge([[same, same, other], [same, same]]))
    assert len(paired) == 2
    with pytest.raises(DataError):
        ceiling(SimulatedPeople(0).judge([[same, same]]))


def test_people_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ConfigError):
        SimulatedPeople(judges_per_item=6)
    with pytest.raises(ConfigError):
        SimulatedPeople(mode="vote")  # type: ignore[arg-type]
    with pytest.raises(DataError):
        list(SimulatedPeople().judge([[Completion(POSTS[0].prompt(), "one")]]))
    with pytest.raises(DataError, match="careful"):
        persona_named("simulated:carefull")
