"""Commands about trusting and choosing: `trueup feedback plan | choose | quality | freeze | learning`, and
`trueup data coverage`. The groups add them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

import click

from ..config import RewardConfig
from .command import Command, Result, progress, workspace
from .settings import stage_settings
from .text import artifact_line, counted, printable, table

SHOWN_WARNINGS = 20


class _Words(click.Choice[str]):
    """The words that a module of `feedback` knows, read when somebody needs them: to load NumPy takes a while."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(())
        self.module, self.name_of_words = module, name

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(getattr(import_module(f"trueup.feedback.{self.module}"), self.name_of_words))

    @choices.setter
    def choices(self, words: tuple[str, ...]) -> None:
        assert not words, "they come from their module"


@click.command(
    "plan",
    cls=Command,
    examples="""
    trueup feedback plan --agreement 0.73 --items 5000
    trueup feedback plan --agreement 0.73 --accuracy 0.9 --width 0.03 --people 8
    """,
)
@click.option(
    "--agreement", type=float, required=True, help="How often two people are expected to agree on a pair, 0.5 to 1."
)
@click.option("--items", "--pairs", "items", type=click.IntRange(min=1), help="Items to judge. [default: 1000]")
@click.option("--overlap", type=click.IntRange(min=1), help="People on each item. [default: 1]")
@click.option("--accuracy", type=float, help="Choose the overlap so that the majority is right this often.")
@click.option("--width", type=float, help="Choose the items so that accuracy is measured to plus or minus this.")
@click.option("--people", type=click.IntRange(min=1), default=5, show_default=True, help="People who judge.")
@click.option("--calibration-share", type=float, default=0.15, show_default=True, help="Items that 3 people get.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="What one judgement takes.")
@click.option(
    "--heldout", type=float, default=0.1, show_default=True, help="Share kept to measure the reward model by."
)
def plan(items: int | None, overlap: int | None, **settings: Any) -> Result:
    """What a collection would cost, what its labels would be worth, and how many golds tell who reads."""
    from .. import asking

    found = asking.plan_collection(items=items or 0, overlap=overlap or 0, **settings)
    return Result(found, _planned(found))


@click.command(
    "quality",
    cls=Command,
    examples="""
    trueup feedback quality helpfulness
    trueup feedback quality helpfulness --stored --json
    """,
)
@click.argument("collection")
@click.option("--stored", is_flag=True, help="Show the figures of the last time and compute nothing.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the intervals' redraws.")
def quality(collection: str, stored: bool, seed: int) -> Result:
    """Agreement, and what stands out about single judges; kept for the quality page. Nothing is ever removed by it."""
    import time

    from .. import asking
    from ..errors import NotFoundError
    from ..feedback import quality as figures

    with workspace() as ws:
        found = figures.summary(ws, collection, time.time()) if stored else asking.quality(ws, collection, seed=seed)
    if found is None:
        raise NotFoundError(f"no figures of '{collection}' are stored", f"trueup feedback quality {collection}")
    return Result(found, _quality_text(found))


@click.command(
    "choose",
    cls=Command,
    examples="""
    trueup feedback choose helpfulness --completions drafts --n 200
    trueup feedback choose helpfulness --completions drafts --n 200 --strategy disagreement --reward a --reward b
    trueup feedback choose helpfulness --reorder --n 50 --strategy uncertainty --reward a
    """,
)
@click.argument("collection")
@click.option("--completions", multiple=True, metavar="ID", help="Completions, or judged texts, to choose from.")
@click.option("--reorder", is_flag=True, help="Instead: which of the items that wait, unjudged, come first.")
@click.option("--n", type=click.IntRange(min=1), required=True, help="How many items.")
@click.option(
    "--strategy",
    type=_Words("choose", "STRATEGIES"),
    default="random",
    show_default=True,
    help="uncertainty: scores that nearly tie; disagreement: of reward models, or inside an ensemble; "
    "diversity: prompts far apart.",
)
@click.option("--reward", "rewards", multiple=True, metavar="ID", help="Reward model that scores; may be repeated.")
@click.option("--random-share", type=float, default=0.2, show_default=True, help="Share drawn at random, 0.2 at least.")
@click.option("--heldout", type=float, default=0.1, show_default=True, help="Share of new prompts kept for evaluation.")
@click.option("--first", is_flag=True, help="Ask about these before everything that waits already.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides what is drawn.")
def choose(
    collection: str, completions: tuple[str, ...], reorder: bool, heldout: float, first: bool, **settings: Any
) -> Result:
    """Put the candidates most worth asking about into a collection, each with the probability it was chosen by.

    With --reorder nothing is put in: of what waits there, unjudged, so many come first.
    """
    if reorder == bool(completions):
        raise click.UsageError("choose from --completions, or --reorder what waits already")
    source = click.get_current_context().get_parameter_source("heldout")
    if reorder and (first or source is click.core.ParameterSource.COMMANDLINE):
        raise click.UsageError("--first and --heldout have no meaning with --reorder: nothing is put in")
    from .. import asking

    with workspace() as ws:
        if reorder:
            found = asking.reorder(ws, collection, **settings)
            what = f"{counted(found['moved'], 'item')} of {found['candidates']:,} that wait come first"
        else:
            found = asking.choose(ws, collection, completions=completions, heldout=heldout, first=first, **settings)
            what = f"{counted(found['added'], 'item')} added of {found['candidates']:,} candidates"
    text = (
        f"{what}: {found['random']:,} at random, {found['chosen'] - found['random']:,} by {found['strategy']}; "
        f"{found['heldout']:,} are held out; batch {found['batch']}"
    )
    return Result(found, text)


@click.command(
    "freeze",
    cls=Command,
    examples="""
    trueup feedback freeze helpfulness --name votes
    trueup feedback freeze helpfulness --rule soft --name votes-soft
    trueup feedback freeze rewrites --as demonstrations --name better
    trueup feedback freeze helpfulness --as votes --name everything
    """,
)
@click.argument("collection")
@click.option(
    "--as",
    "kind",
    type=_Words("freeze", "KINDS"),
    default="preferences",
    show_default=True,
    help="What each row is: a judgement, a completion with its thumb, a prompt with what somebody wrote; or votes: "
    "all that was said, checks, revisions, skips and decisions too, to look into and not to train on.",
)
@click.option(
    "--rule",
    type=_Words("pooling", "RULES"),
    default="raw",
    show_default=True,
    help="raw: one row a vote; the others make one row of the votes on an item.",
)
@click.option(
    "--heldout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of prompts to hold out, beside those that are already. [default: as collected]",
)
@click.option("--heldout-judge", "heldout_judges", multiple=True, metavar="JUDGE", help="Somebody only to evaluate by.")
@click.option("--judge", "judges", multiple=True, metavar="JUDGE", help="Only this person's votes; may be repeated.")
@click.option(
    "--assisted",
    type=click.Choice(["only", "without"]),
    help="Only votes of people who were shown what helpers say, or only the others.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides which prompts those are."
)
@click.option("--name", default="", help="A name for the artifact, to use in place of its id.")
def freeze(collection: str, name: str, assisted: Literal["only", "without"] | None, **settings: Any) -> Result:
    """Make a set of what people said so far: to train on, or, as votes, to have all of it. It never changes.

    The same votes give the same artifact. `trueup data export` writes it to a file.
    """
    from .. import asking

    with workspace() as ws:
        found = asking.freeze(ws, collection, name=name, assisted=assisted or "", **settings)
    lines = [
        f"{artifact_line(found.artifact, name)}: {counted(found.rows, 'row')} of {counted(found.votes, 'vote')} "
        f"by {counted(found.people, 'judge')}",
        "  " + ", ".join(f"{count:,} {split}" for split, count in sorted(found.splits.items())),
        *(f"  left out: {count:,} {why}" for why, count in sorted(found.left_out.items())),
    ]
    return Result(found.to_json(), printable("\n".join(lines)))


@click.command(
    "learning",
    cls=Command,
    examples="""
    trueup feedback learning --base sft --data votes
    trueup feedback learning --base sft --data votes --seeds 5 --steps 100 --json
    """,
)
@click.option("--base", required=True, metavar="ID", help="The model that the reward model starts from.")
@click.option("--data", required=True, metavar="ID", help="Preferences with a held-out part.")
@click.option("--features", metavar="ID", help="With --kind features: whose likelihoods it reads; else the base's own.")
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings at each size.")
@click.option("--seconds-each", type=float, help="What one judgement takes. [default: as noted in the judgements]")
@stage_settings("reward")
def learning(base: str, data: str, config: RewardConfig, **rest: Any) -> Result:
    """Train the reward model on growing parts of the judgements, to say whether more labelling is worth it."""
    from .. import asking

    with workspace() as ws:
        found = asking.learning(ws, base=base, data=data, config=config, **rest)
    rows = [[n, value, low, high] for n, value, low, high in found.band]
    text = table(["judgements", "accuracy", "low", "high"], rows)
    last = f"the last line is a prediction; {counted(found.heldout, 'held-out pair')}"
    return Result(found.to_json(), f"{text}\n{last}\n{found.message}")


@click.command(
    "coverage",
    cls=Command,
    examples="""
    trueup data coverage prompts
    trueup data coverage prompts --topics 8 --json
    """,
)
@click.argument("prompts", metavar="ID")
@click.option("--topics", type=click.IntRange(min=0), default=0, help="How many topics to find. [default: by size]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides where topics start.")
def coverage(prompts: str, topics: int, seed: int) -> Result:
    """Duplicates, lengths and topics of a prompt set, and where nobody has judged yet."""
    from .. import asking

    progress("reading texts")
    with workspace() as ws:
        found = asking.coverage(ws, prompts, topics=topics, seed=seed)
    lines = [
        f"{found.prompts:,} prompts: {found.exact_copies:,} exact copies, {found.near_copies:,} nearly copies",
        "words of the last message: " + ", ".join(f"{q} {words}" for q, words in found.words.items()),
        "messages: " + ", ".join(f"{n} in {count:,}" for n, count in found.turns.items()),
        f"{found.judgements:,} judgements; {found.unjudged:,} prompts have none",
        *("nearly copies: " + " | ".join(_short(text, 50) for text in group[:3]) for group in found.groups),
        "",
        table(
            ["topic", "prompts", "judgements", "a prompt", "none", ""],
            [
                [
                    " ".join(t.words) or "(everything)",
                    t.prompts,
                    t.judgements,
                    t.per_prompt,
                    t.unjudged,
                    "thin" * t.thin,
                ]
                for t in found.topics
            ],
        ),
    ]
    return Result(found.to_json(), printable("\n".join(lines)))


ASKING = (plan, choose, quality, freeze, learning)  # for `trueup feedback`


# --- as text


def _planned(found: Mapping[str, Any]) -> str:
    rule, measured = found["gold_rule"], found["agreement_half_width"]
    one, label = f"{found['judge_accuracy']:.1%}", f"{found['label_accuracy']:.1%}"
    coin, good, doubtful = (f"{rule[f'{who}_passes']:.0%}" for who in ("coin", "expected", "doubtful"))
    lines = [
        f"{found['items']:,} items, {found['overlap']} people each: {found['judgements']:,} judgements, "
        f"{found['hours']:,.0f} hours in all",
        f"{found['people']} people: {found['judgements_a_person']:,} judgements, "
        f"{found['hours_a_person']:,.1f} hours each",
        f"agreement {found['agreement']:.0%} (kappa {found['kappa']:.2f}): one judgement is right {one} of the time, "
        f"the label of an item {label} at best",
        f"a reward model tested on single judgements cannot show more than {one}: more is a leak",
        f"its accuracy is measured to plus or minus {100 * found['half_width']:.1f} points "
        f"on {found['heldout_items']:,} held-out items",
        "agreement itself cannot be measured: nothing is judged twice"
        if measured is None
        else f"agreement itself is measured to plus or minus {100 * measured:.1f} points",
        f"{rule['golds']} golds, {rule['needed']} to pass: a coin passes {coin} of the time, "
        f"somebody as good as expected {good}, somebody right 70% of the time {doubtful}",
        "these figures take errors as independent; unclear items mislead everybody alike, so take them as bounds",
    ]
    return "\n".join(lines)


def _quality_text(found: Mapping[str, Any]) -> str:
    """Figures that were stored by an earlier version lack what is newer: such tables are left out."""
    from ..reports.assistance import assistance_lines

    value = found["value"]
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in value["counts"].items() if count)
    lines = [f"{value['n']:,} judgements ({counts}), measured on {printable(value['measured_on'])}"]
    lines.append(f"computed {_ago(found['age'])}; {found['since']:,} judgements came since")
    lines += ["", table(["agreement", "value", "95% interval", "items"], [*_agreement_rows(value)])]
    if value["cohen"]:
        lines += ["", *_cohen_lines(value["cohen"])]
    if value["slices"]:
        slices = [[each["slice"], each["value"], *_interval(each["percent"])] for each in value["slices"]]
        lines += ["", table(["slice", "", "agree", "95% interval", "items"], slices)]
    if value.get("undecided"):
        tenths = [[f"{each['first']:,} to {each['last']:,}", *_interval(each)] for each in value["undecided"]]
        lines += ["", table(["judgements, in time", "nobody clearly better", "95% interval", "items"], tenths)]
    if value.get("leaderboard"):
        lines += ["", *_leaderboard_lines(value["leaderboard"])]
    if value.get("assistance"):
        lines += ["", *map(printable, assistance_lines(value["assistance"]))]
    lines += ["", *_people_lines(value["judges"])]
    warnings = value["warnings"]
    lines += ["", *(f"warning: {warning}" for warning in warnings[:SHOWN_WARNINGS])] if warnings else []
    if len(warnings) > SHOWN_WARNINGS:
        lines.append(f"and {len(warnings) - SHOWN_WARNINGS:,} more (--json lists them all)")
    return "\n".join(lines)


def _agreement_rows(value: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, each in value["agreement"].items():
        yield [name.replace("_", " "), *_interval(each)]
    if strength := value["strength"]:
        yield ["how much better, alpha", *_interval(strength)]
        if "quadratic" in strength:
            yield ["how much better, quadratic kappa", *_interval(strength["quadratic"])]
    if value.get("rankings"):
        yield ["rankings, Kendall's tau-b", *_interval(value["rankings"])]
    for flag, each in value.get("flags", {}).items():
        if each["raised"]:
            yield [f"flag '{flag}', Gwet's AC1", *_interval(each)]
    if edits := value.get("edits"):
        yield ["words changed by edits", *_interval(edits)]


def _cohen_lines(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """With quadratic weights too where strength was asked for."""
    head, rows = ["Cohen's kappa", "value", "95% interval", "items"], []
    degrees = any("quadratic" in each for each in pairs)
    for each in pairs[:10]:
        degree = each.get("quadratic", {}).get("value")
        rows.append([" and ".join(each["judges"]), *_interval(each), *([degree] if degrees else [])])
    return [table(head + ["how much, quadratic"] * degrees, rows)]


def _leaderboard_lines(found: Mapping[str, Any]) -> list[str]:
    equal = {each["model"]: each for each in found["equal_length"]}
    rows = []
    for each in found["models"]:
        alike = equal[each["model"]]
        rows.append([each["component"] + 1, each["rank"], each["model"], *_rating(each), *_rating(alike), each["n"]])
    head = ["group", "rank", "model", "rating", "95% interval", "at equal length", "95% interval", "votes"]
    lines = [table(head, rows)]
    lines.append(
        f"{found['votes']:,} votes of {counted(found['judges'], 'judge')} on {counted(found['prompts'], 'prompt')}; "
        "400 points are odds of ten to one, and the mean is 1,000"
    )
    if found["components"] > 1:
        lines.append(f"{found['components']} groups of models never met one another: compare within a group only")
    if found["capped"]:
        lines.append(f"{found['capped']:,} votes beyond {found['most_a_day']} judgements of one person a day left out")
    return lines


def _rating(each: Mapping[str, Any]) -> list[Any]:
    interval = None if each["low"] is None else f"{each['low']:,.0f} to {each['high']:,.0f}"
    return [f"{each['value']:,.0f}", interval]


def _people_lines(judges: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = {
        "gold": "golds",
        "consensus": "as others",
        "reliability": "reliability",
        "position": "first shown",
        "speed": "words/s",
        "consistency": "same again",
        "skips": "skipped",
    }
    people = [[p["judge"], p["n"], *((p.get(name) or {}).get("value") for name in shown)] for p in judges]
    return [table(["judge", "judgements", *shown.values()], people)]


def _interval(found: Mapping[str, Any]) -> list[Any]:
    """A value, its interval and its n; why there is none, where there is none."""
    if found["value"] is None:
        return [f"undefined: {found['why']}", None, found["n_items"]]
    interval = None if found["low"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
    return [f"{found['value']:.3f}", interval, found["n_items"]]


def _ago(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{counted(int(seconds // size), unit)} ago"
    return "just now"


def _short(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
