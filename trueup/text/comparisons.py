"""Data sets in which somebody compared completions: pairs, rankings and thumbs.

Where a data set writes the sign or the index of the better side, the other columns that say the same are checked: a
file with flipped signs trains a model on the opposite of what people said, and nothing else would show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

from ..records import UNNAMED, Judgement, Prompt
from . import columns
from .columns import Columns, Skip

WEAKEST, STRONGEST = 1, columns.STRONGEST  # how much better the chosen one is
CONTRADICTION = "a text that has several places, which is left out of its ranking"
_BETTER = re.compile(r"@?Response ([12])\b[^.]*\bbetter than\b[^.]*@?Response ([12])\b", re.IGNORECASE)


def ranking(row: Columns) -> Judgement:
    """Completions with places. Every completion needs one: a ranking that omits an item says nothing about it."""
    given, ranks = row.get("completions"), row.get("ranks")
    if not isinstance(given, list) or not isinstance(ranks, list):
        raise Skip("'completions' and 'ranks' must be lists")
    if len(given) != len(ranks):
        raise Skip(f"{len(ranks)} 'ranks' for {len(given)} 'completions': both must have the same length")
    if len(given) < 2:
        raise Skip("a ranking needs at least 2 completions")
    if None in ranks:
        raise Skip(f"the ranking omits completion {ranks.index(None) + 1}")
    columns.check_places(ranks)
    texts = [columns.text({"completions": each}, "completions") for each in given]
    kept = _once_each(texts, ranks)
    return columns.judgement(
        row,
        columns.prompt(row, "prompt"),
        [texts[i] for i in kept],
        [ranks[i] for i in kept],
        contradiction=CONTRADICTION if len(kept) < len({text.strip() for text in texts}) else None,
    )


def _once_each(texts: Sequence[str], ranks: Sequence[int]) -> list[int]:
    """Which completions to keep: of copies with one place the first, of copies with several places none, since one text
    cannot be better than itself."""
    places: dict[str, set[int]] = {}
    for text, rank in zip(texts, ranks, strict=True):
        places.setdefault(text.strip(), set()).add(rank)
    if len(places) == 1:
        raise Skip("equal sides")
    first = {text.strip(): i for i, text in reversed(list(enumerate(texts)))}
    kept = sorted(i for text, i in first.items() if len(places[text]) == 1)
    if len(kept) < 2:
        raise Skip("one text has several places, and without it there is nothing to compare")
    return kept


def pair(row: Columns) -> Judgement:
    prompt = columns.prompt(row, "prompt")
    return _decided(row, prompt, columns.completion(row, "chosen", prompt), columns.completion(row, "rejected", prompt))


def whole_conversations(row: Columns) -> Judgement:
    """Both sides are whole conversations; the prompt is what they share: everything but their last message."""
    (*before, chosen), (*others, rejected) = (columns.conversation(row, side) for side in ("chosen", "rejected"))
    if before != others:
        raise Skip("differing prompts")
    return _decided(row, columns.as_prompt(tuple(before)), columns.reply(chosen), columns.reply(rejected))


def shared_beginning(row: Columns) -> Judgement:
    """Two whole texts: the prompt is what they share, up to the last blank, so that no word is cut in two."""
    if isinstance(row.get("chosen"), list):
        return whole_conversations(row)
    chosen, rejected = columns.text(row, "chosen"), columns.text(row, "rejected")
    if chosen.strip() == rejected.strip():
        raise Skip("equal sides")
    shared = commonprefix([chosen, rejected])
    end = max((i for i, letter in enumerate(shared) if letter.isspace()), default=0)
    prompt = shared[:end].rstrip()
    if not prompt:
        raise Skip("no prompt: the two texts share no beginning")
    rests = {side: whole[len(prompt) :] for side, whole in (("chosen", chosen), ("rejected", rejected))}
    return _decided(row, Prompt.user(prompt), columns.text(rests, "chosen"), columns.text(rests, "rejected"))


def _decided(row: Columns, prompt: Prompt, chosen: str, rejected: str) -> Judgement:
    said: dict[str, Any] = {}
    if row.get("margin") not in (None, ""):
        said["margin"] = columns.number(row, "margin")
    if row.get("strength") not in (None, ""):
        said["strength"] = columns.number(row, "strength", WEAKEST, STRONGEST)
    return _pair(row, prompt, (chosen, rejected), (1, 2), **said)


def _pair(row: Columns, prompt: Prompt, sides: tuple[str, str], ranks: tuple[int, int], **said: Any) -> Judgement:
    if sides[0].strip() == sides[1].strip():
        raise Skip("equal sides")
    return columns.judgement(row, prompt, sides, ranks, **said)


def thumb(row: Columns) -> Judgement:
    """One completion that somebody liked or did not."""
    prompt = columns.prompt(row, "prompt")
    text, liked = columns.completion(row, "completion", prompt), columns.truth(row, "label")
    return columns.judgement(row, prompt, (text,), (1,), ratings={"thumb": (float(liked),)})


# summarize-from-feedback


def two_summaries(row: Columns) -> Judgement:
    """`choice` is the index of the better summary; `worker` is who chose, from 1 to 9 how sure in `extra`."""
    summaries = columns.objects(row, "summaries")
    if len(summaries) != 2:
        raise Skip(f"{len(summaries)} summaries, not 2")
    choice = columns.whole_number(row, "choice", 0, 1)
    extra = row.get("extra")
    return _pair(
        row,
        _post(row.get("info")),
        (columns.text(summaries[0], "text"), columns.text(summaries[1], "text")),
        (1, 2) if choice == 0 else (2, 1),
        judge=columns.word(row, "worker") or UNNAMED,
        batch=row.get("batch"),
        confidence=extra.get("confidence") if isinstance(extra, Mapping) else None,
        models=[columns.word(summary, "policy") for summary in summaries],
        notes=[columns.word(summary, "note") for summary in summaries] if any(s.get("note") for s in summaries) else [],
        published_split=row.get("split"),
    )


def _post(info: Any) -> Prompt:
    """The question as its authors put it to their models."""
    if not isinstance(info, Mapping):
        raise Skip("'info' is not an object")
    about = {name: info[name] for name in ("id", "site", "subreddit") if info.get(name)}
    if info.get("post"):
        post, title = columns.text(info, "post"), columns.word(info, "title")
        asked = f"SUBREDDIT: r/{columns.word(info, 'subreddit')}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
    else:
        asked = f"{columns.text(info, 'article')}\n\nTL;DR:"
    return Prompt.user(asked, **columns.storable(about))


# HelpSteer: a signed strength, positive where the SECOND response is better


def signed_pair(row: Columns) -> Judgement:
    """HelpSteer2-Preference. The strengths that single people gave are kept beside the one they were made into."""
    strength = columns.whole_number(row, "preference_strength", -STRONGEST, STRONGEST)
    said = _BETTER.search(str(row.get("preference_statement") or ""))
    if said and said[1] != said[2] and (strength > 0) != (said[1] == "2"):
        raise Skip("'preference_statement' says the opposite of the sign of 'preference_strength'")
    sides = columns.text(row, "response_1"), columns.text(row, "response_2")
    votes = _said(row, "all_preferences_unprocessed", "strength")
    return _signed(row, turns_of(row, "prompt"), sides, strength, "helpsteer2", votes)


def signed_pair_in_context(row: Columns) -> Judgement:
    """HelpSteer3: the same, with the conversation as messages."""
    strength = columns.whole_number(row, "overall_preference", -STRONGEST, STRONGEST)
    sides = columns.text(row, "response1"), columns.text(row, "response2")
    votes = _said(row, "individual_preference", "score")
    prompt = columns.prompt(row, "context")
    return _signed(row, prompt, sides, strength, "helpsteer3", votes)


def _said(row: Columns, field: str, what: str) -> list[Any]:
    """What single people said; nothing where the column holds something else."""
    everybody = row.get(field)
    return [vote.get(what) for vote in everybody if isinstance(vote, Mapping)] if isinstance(everybody, list) else []


def _signed(
    row: Columns, prompt: Prompt, sides: tuple[str, str], strength: int, judge: str, votes: list[Any]
) -> Judgement:
    ranks = (2, 1) if strength > 0 else (1, 2) if strength < 0 else (1, 1)
    about = {name: row.get(name) for name in ("domain", "language")}
    split = row.get("split")
    return _pair(row, prompt, sides, ranks, judge=judge, strength=strength, votes=votes, published_split=split, **about)


def turns_of(row: Columns, field: str) -> Prompt:
    """HelpSteer2 marks the turns after the first as `<extra_id_1>Assistant` and `<extra_id_1>User`."""
    first, *rest = re.split(r"\n?<extra_id_1>(User|Assistant)\n", columns.text(row, field))
    names = {"User": "user", "Assistant": "assistant"}
    said = [{"role": "user", "content": first}]
    said += [{"role": names[who], "content": text} for who, text in zip(rest[::2], rest[1::2], strict=True)]
    return columns.prompt({field: said}, field)
