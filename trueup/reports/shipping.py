"""Whether to ship what a report is about: what speaks against it, what has to be settled first, what is good to know,
and how it compares.

For somebody who has a minute: one word of decision first, then its reasons, the weightiest first. Everything is read
off what stands further down on the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import wording
from .headlines import headline
from .meetings import Meeting, is_of, judge_words, meetings, sides
from .overopt_chart import earlier_was_better, how_to_ship
from .page import STAGES as PAGE_STAGES
from .standings import called
from .wording import is_number

Told = Mapping[str, Any]

LEARNS = ("pretrain", "sft", "rl", "dpo", "kto", "ilql")
NOT_TRAINED_ON = {"The judge's score": ("heldout_judge",), "The true score": ("heldout_gold", "gold")}
HEIGHT_LOST = 0.25  # of what was gained on the way up: so much below its highest point is worth a look
SETTLES = "more prompts, or people as judges: trueup eval winrate"
SAID_BEFORE = 0.3  # share of completions that repeat another of their step, and twice what it was: worth a look
WORDS = {  # what a page calls things, for whoever sees one for the first time
    "proxy, score": "what the reward model gives a text; the model was trained to raise it: alone it says little",
    "gold, true score": "what the built-in world's own rule gives a text: nothing is trained on it",
    "KL": "how far the model moved from where it started, in nats a completion: 0 is not at all",
    "judge": "a score or a person that the model was not trained to please",
    "ties half": "a tie counts as half a win for each side",
    "interval": "where the true value lies in 95 of 100 such measurements",
    "ceiling": "how often one would be right who knew every judge's mind: judges disagree, so it is below 100%",
}


def before_shipping(runs: Sequence[Told]) -> dict[str, Any]:
    """Of the last run that made a model. Empty where no run made one."""
    learnt = [told for told in runs if told["stage"] in (*LEARNS, "reward")]
    if not learnt or learnt[-1]["stage"] == "reward":  # which nobody ships: it has its own gate
        return {}
    last = learnt[-1]
    names = _names(runs, _made(last))
    last = _until(last)
    start, learnt_on = _start(last), [one["id"] for one in last["inputs"] if one["kind"] not in ("model", "reward")]
    met = sorted((each for told in runs for each in meetings(told, _made(last), start, learnt_on)), key=_trust)
    against, known = [*_against(last, runs, met, names)], [*_to_know(last, runs, met, names)]
    first = [] if _goes_on(last) else [*_first(last, met, names)]
    best = next(iter(_settling(met)), None)
    if not (against or first or best or _goes_on(last)):
        first = [_point("Nothing on this page shows that it is better than what it was tuned from.", SETTLES)]
    return {
        "run": last["id"],
        "verdict": _sentence(last, against, first, met, best),
        "reason": next((each["says"] for each in (*against, *first)), best.says(names) if best else headline(last)),
        "against": against,
        "first": first,
        "known": known,
        "compared": list({tuple(row.values()): row for each in met for row in [_row(each, names)]}.values()),
        "earlier": _earlier(last),
        "what": _what_it_is(last),
        "words": WORDS,
    }


def _what_it_is(last: Told) -> str:
    """What was done, to what, on what, and by whose score."""
    parts = {one["role"]: ", ".join(one["names"]) or one["id"][:8] for one in last["inputs"]}
    start = parts.get("policy") or parts.get("base")
    words = str(PAGE_STAGES.get(last["stage"], last["stage"])) + (f" from {start}" if start else "")
    words += f", on {parts.get('prompts') or parts.get('data')}" if {"prompts", "data"} & parts.keys() else ""
    for model in last["reward_models"]:
        words += f", by the score of '{parts.get(model['role'], model['role'])}'"
        if is_number(model["result"].get("accuracy")):
            most = model["result"].get("ceiling")
            ceiling = f", nobody more than {wording.percent(most)}" if is_number(most) else ""
            words += f", which foresees {wording.percent(model['result']['accuracy'])} of held-out judgements"
            words += f" (a coin 50%{ceiling})"
    return words + "."


def _sentence(
    last: Told, against: Sequence[Any], first: Sequence[Any], met: Sequence[Meeting], best: Meeting | None
) -> str:
    if _goes_on(last):
        return "Too early to say: it is still running."
    if against:
        return "Do not ship it as it is."
    if first or best is None:
        return f"Not yet: {wording.counted(len(first), 'thing')} to settle first."
    if _is_human(best):
        rival = "what it was tuned from" if best.with_start else "another model"
        return f"It may be shipped: people found it better than {rival}."
    who = "the built-in world" if best.judge.get("kind") == "gold" else "scores"
    nobody = "" if any(map(_is_human, met)) else ": no people judged it"
    return f"It may be shipped, as far as {who} can tell{nobody}."


def _is_human(met: Meeting) -> bool:
    """Of a mixture nobody knows whose verdicts decided."""
    return met.judge.get("kind") == "verdicts" and [*met.judge["sources"]] == ["human"]


def _against(
    last: Told, runs: Sequence[Told], met: Sequence[Meeting], names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    is_end = not _earlier(last)
    if is_end and last["status"] not in ("done", "running"):
        yield _point(f"Its training did not end. {headline(last)}", last["resume"])
    yield from (_point(each["says"]) for each in _missing(runs))
    if is_end and last["overopt"] and last["overopt"]["ship"]["fell"]:
        yield _point(earlier_was_better(last["overopt"]), how_to_ship(last["overopt"]))
    yield from (_point(says) for says in _others_fell(last, below_start=True))
    for finding in last["findings"]:
        if is_end and finding["severity"] == "fault":
            yield _point(finding["says"], *finding["tries"][:1])
    yield from (_point(each.says(names)) for each in met if each.verdict == "worse" or each.reversed)
    for model in last["reward_models"]:
        failed = [each["name"] for each in _conditions(model) if each["met"] is False]
        if failed:
            yield _point(f"The reward model it learnt from failed its audit: {', '.join(failed)}.")
    for change in _changes_of_refusal(runs, last):
        if change["label"] == "unsafe" and change["ci"][1] < 0:
            yield _point(f"It refuses fewer unsafe requests than before: {_difference(change)}.")


def _first(last: Told, met: Sequence[Meeting], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What leaves open whether it is better at all."""
    start = _start(last)
    yield from (_point(says) for says in _others_fell(last, below_start=False))
    if _earlier(last) and last["overopt"] and str(named := last["overopt"]["ship"]["step"]) != _earlier(last):
        yield _point(f"`trueup eval overopt` names step {named:,} of its run, not step {_earlier(last)}.")
    elsewhere = last["measured_elsewhere"]
    if elsewhere:
        yield _point(
            f"{wording.capital(wording.counted(elsewhere, 'evaluation'))} of it: on another page.",
            f"trueup report {min(_made(last), default='')}",
        )
    elif not met:
        yield _point("Nobody compared it with another model.", "trueup eval winrate")
    elif start and not any(each.with_start for each in met):
        yield _point(f"Nobody compared it with what it was tuned from: {called(start, names)}.", "trueup eval winrate")
    elif all(each.related for each in _decisive(met)):
        counts = any(each.counts for each in _decisive(met))
        which = "learnt from the same judgements" if counts else "had a part in making it"
        yield _point(f"Only a score that {which} compared it with others: take another judge.")
    if not _settling(met):
        yield from (_point(each.says(names), SETTLES) for each in _decisive(met) if each.counts and each.is_open)
    watched = any(_values(last, name) for known in NOT_TRAINED_ON.values() for name in known)
    if last["stage"] == "rl" and not (met or elsewhere or watched or last["overopt"]):
        yield _point("Only the score it was trained on watched it.", "trueup eval overopt RUN --judge ID")


def _to_know(
    last: Told, runs: Sequence[Told], met: Sequence[Meeting], names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """What it is besides better: somebody may mind."""
    if step := _earlier(last):
        yield _point(f"It is step {step} of its run, and not where that ended: the run's own curves go on after it.")
    decisive = [] if _settling(met) else _decisive(met)  # of which it was said before
    yield from (_point(each.says(names)) for each in met if each.counts and each.is_open and each not in decisive)
    for change in _changes_of_refusal(runs, last):
        if change["label"] == "safe" and change["ci"][0] > 0:
            yield _point(f"It refuses more safe requests than before: {_difference(change)}.")
    again, each = _ends(last, "duplicates"), last["config"].get("samples_per_prompt")
    if again and not _earlier(last) and again[1] > max(SAID_BEFORE, 2 * again[0]):
        yield _point(
            f"It varies less: of {each or 'several'} answers to one prompt, {wording.percent(again[1])} say to the "
            f"letter what another one says; {wording.percent(again[0])} did at first."
        )
    ours, stands_out = _made(last), dict[str, None]()
    for told in runs:
        if told["stage"] == "compare":
            mine, models = sides(told, ours), told["result"].get("models") or [{"model": ""}]
            beside = called(models[0]["model"], names)
            found = [one["says"] for one in told["result"].get("findings", ()) if one["model"] in mine]
            stands_out |= dict.fromkeys(f"Beside {beside} it {says}." for says in found)
    yield from map(_point, stands_out)
    if last["reward_models"] and not any(model["audit"] for model in last["reward_models"]):
        yield _point("The reward model it learnt from was not audited.", "trueup eval reward")


def _missing(runs: Sequence[Told]) -> list[dict[str, str]]:
    return [each for told in runs for each in told["missing"]]


def _changes_of_refusal(runs: Sequence[Told], last: Told) -> Iterator[dict[str, Any]]:
    for told in runs:
        is_ours = any(one["role"] == "model" and is_of(one, _made(last)) for one in told["inputs"])
        if told["stage"] == "safety" and is_ours:
            yield from ({"label": label, **each} for label, each in (told["result"].get("changed") or {}).items())


def _difference(change: Told) -> str:
    low, high = (f"{100 * end:+.1f}" for end in change["ci"])
    return f"{100 * change['difference']:+.1f} points ({low} to {high}), n = {change['n']:,}"


def _others_fell(last: Told, below_start: bool) -> Iterator[str]:
    """Scores that nothing was trained on: ended below where they began, or well below their highest point."""
    for words, names in NOT_TRAINED_ON.items():
        known = [_values(last, name) for name in names]
        values = next((each for each in known if len(each) > 1), [])  # of rollouts only where nothing was held out
        if len(values) < 3:
            continue
        first, top, end = values[0], max(values), values[-1]
        if below_start and end < first:
            rose = f" up to {top:.3g} and" if top > first else ""
            yield (
                f"{words}, which it was not trained on, went from {first:.3g}{rose} down to {end:.3g}: what it was "
                "paid for is not what it was worth."
            )
        elif not below_start and first <= end < top - HEIGHT_LOST * (top - first):
            yield f"{words} was at {top:.3g} on the way and ended at {end:.3g}: an earlier step may be better."


def _values(told: Told, metric: str) -> list[float]:
    return [each for each in (told["start"].get(metric), *told["metrics"].get(metric, [])) if is_number(each)]


def _ends(told: Told, metric: str) -> tuple[float, float] | None:
    values = [value for value in told["metrics"].get(metric, []) if is_number(value)]
    return (values[0], values[-1]) if len(values) > 1 else None


def _point(says: str, *tries: str) -> dict[str, Any]:
    return {"says": says, "tries": [each for each in tries if each]}


def _row(met: Meeting, names: Mapping[str, str]) -> dict[str, str]:
    return {
        "rival": called(met.rival, names),
        "judge": judge_words(met.judge, names),
        "rate": wording.percent(met.value),
        "ci": wording.percent_range(met.ci),
        "n": f"{met.n:,}",
        "equal": met.equal_words,
        "verdict": met.verdict if met.counts else "",
        "remark": met.related or ", ".join(_remarks(met)),
    }


def _remarks(met: Meeting) -> Iterator[str]:
    if met.by_length:
        yield "the other way round at equal length" if met.reversed else "undecided at equal length"
    if met.way:
        yield f"its {met.way}"
    if met.seen:
        yield "on prompts of its training"


def _trust(met: Meeting) -> int:
    """People first, then what nothing can be trained on, then those who are asked, then scores; relations last."""
    if met.related:
        return 5
    if met.judge.get("kind") == "verdicts":
        return 0 if _is_human(met) else 2
    return {"gold": 1, "model": 3}.get(str(met.judge.get("kind")), 4)


def _names(runs: Sequence[Told], ours: set[str]) -> dict[str, str]:
    """Of artifacts, by id; of texts with whose they are."""
    inputs = [one for told in runs for one in told["inputs"]]
    names = {one["id"]: one["names"][0] for one in inputs if one["names"]}
    texts = {
        one["id"]: f"{names[one['id']]} (texts of {names[one['written_by']]})"
        for one in inputs
        if one["id"] in names and one["written_by"] in names.keys() - ours
    }
    return names | texts


def _until(last: Told) -> Told:
    """Of an earlier step what its run logged up to it."""
    step = _earlier(last)
    if not step:
        return last
    keep = [place for place, at in enumerate(last["metrics"].get("step") or []) if at <= int(step)]
    cut = {name: [values[place] for place in keep] for name, values in last["metrics"].items()}
    return {**last, "metrics": cut}


def _goes_on(last: Told) -> bool:
    return last["status"] == "running" and not _earlier(last)


def _start(last: Told) -> str:
    """What a policy was tuned from: to beat another of its kind shows nothing before that is beaten."""
    return next((one["id"] for one in last["inputs"] if one["role"] == "policy"), "")


def _decisive(met: Sequence[Meeting]) -> Sequence[Meeting]:
    return [each for each in met if each.with_start] or met


def _settling(met: Sequence[Meeting]) -> list[Meeting]:
    """Those that show it is better, where the most trusted judges do: a score does not overrule undecided people."""
    decisive = _decisive(met)
    most = min(map(_trust, decisive), default=0)
    return [each for each in decisive if each.settles and _trust(each) == most]


def _made(last: Told) -> set[str]:
    """What the page is about: what was asked for, or what the run made in the end."""
    return set(last["asked"]) or {one["id"] for one in last["outputs"] if "@" not in one["role"]}


def _earlier(last: Told) -> str:
    """The step, where the page is about an earlier checkpoint that somebody shipped: what came after is no matter."""
    made = _made(last)
    steps = [one["role"].partition("@")[2] for one in last["outputs"] if one["id"] in made]
    return steps[0] if len(steps) == 1 else ""


def _conditions(model: Told) -> Sequence[Told]:
    found: Sequence[Told] = model["audit"]["gate"]["conditions"] if model["audit"] else ()
    return found
