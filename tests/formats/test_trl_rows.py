"""What TRL's trainers read comes back as what was said: margins, thumbs and demonstrations, for any text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueup.errors import ConfigError
from trueup.records import Completion, Demonstration, Judgement, Prompt
from trueup.text.formats import load
from trueup.text.views import VIEWS, View, view
from trueup.text.writers import WRITERS

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.text(st.characters(codec="utf-8"), max_size=12).filter(str.strip)
ENDINGS = pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
CONVERSATIONAL = pytest.mark.parametrize("conversational", [False, True])


def there_and_back(folder: Path, made: View, kind: str, ending: str):
    path = folder / f"rows{ending}"
    with path.open("wb") as file:
        WRITERS[ending](file, made)
    loaded = load(path, kind)
    assert not loaded.skipped
    return loaded.records


@st.composite
def pairs_with_strength(draw) -> Judgement:
    texts = tuple(draw(st.lists(WORDS, min_size=2, max_size=2, unique_by=str.strip)))
    strength = draw(st.integers(-3, 3).filter(bool))  # above 0 the second one is better
    ranks = (2, 1) if strength > 0 else (1, 2)
    return Judgement(Prompt.user(draw(WORDS)), texts, ranks, "human:abc234", "human", meta={"strength": strength})


@ENDINGS
@CONVERSATIONAL
@QUICK
@given(said=st.lists(pairs_with_strength(), min_size=1, max_size=4))
def test_margins_come_back_with_their_pairs(said, conversational, ending, tmp_path_factory):
    made = view("preferences", [one.to_json() for one in said], "trl-preference", conversational=conversational)
    back = there_and_back(tmp_path_factory.mktemp("trip"), made, "preferences", ending)
    assert [record.meta["margin"] for record in back] == [abs(one.meta["strength"]) for one in said]
    assert [record.completions for record in back] == [
        one.completions if one.ranks == (1, 2) else one.completions[::-1] for one in said
    ]
    again = view("preferences", [r.to_json() for r in back], "trl-preference", conversational=conversational)
    assert again.rows == made.rows, "exported again it is the same"


@ENDINGS
@CONVERSATIONAL
@QUICK
@given(data=st.data())
def test_thumbs_come_back_as_labels(data, conversational, ending, tmp_path_factory):
    prompt = Prompt.user(data.draw(WORDS))
    texts = tuple(data.draw(st.lists(WORDS, min_size=1, max_size=4)))
    thumbs = tuple(data.draw(st.lists(st.sampled_from([1.0, 0.0, None]), min_size=len(texts), max_size=len(texts))))
    said = Judgement(prompt, texts, (1,) * len(texts), "human:abc234", "human", ratings={"thumb": thumbs})
    decided = [(text, value) for text, value in zip(texts, thumbs, strict=True) if value is not None]
    if not decided:
        return
    made = view("unpaired", [said.to_json()], "trl-unpaired", conversational=conversational)
    assert len(made.left_out) == len(texts) - len(decided)
    back = there_and_back(tmp_path_factory.mktemp("trip"), made, "unpaired", ending)
    assert [(one.prompt, one.completions[0], one.ratings["thumb"][0]) for one in back] == [
        (prompt, text, value) for text, value in decided
    ]


@ENDINGS
@CONVERSATIONAL
@QUICK
@given(prompt=WORDS.map(Prompt.user), completion=WORDS)
def test_demonstrations_come_back_equal(prompt, completion, conversational, ending, tmp_path_factory):
    shown = Demonstration(prompt, completion)
    made = view("demonstrations", [shown.to_json()], "trl-prompt-completion", conversational=conversational)
    assert there_and_back(tmp_path_factory.mktemp("trip"), made, "demonstrations", ending) == [shown]


def test_judgements_of_whole_completions_have_no_steps():
    assert "trl-stepwise" not in VIEWS
    said = Judgement(Prompt.user("p"), ("a", "b"), (1, 2), "j", "human").to_json()
    with pytest.raises(ConfigError, match="unknown format 'trl-stepwise'"):
        view("preferences", [said], "trl-stepwise")
    assert Completion(Prompt.user("p"), "a").to_json().keys() == {"text", "finished"}, "and neither has a completion"
