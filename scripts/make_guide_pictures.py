"""Draws the pictures of docs/guide out of the workspace of a real run, and writes the numbers that the pages quote.

    trueup demo DEMO --seed 0 --overopt
    python scripts/make_guide_pictures.py DEMO

What the demo does not do is first done in its workspace: six simulated people judge the same pairs, a reward model is
trained on what each rule of freezing makes of their votes, others on equally many votes spent in two ways, a weak one
is climbed, and a learning curve is measured. That takes about a quarter of an hour. Whatever is there already is not
made again, so a second call only draws. Who is asked about what is drawn anew in each workspace: another one gives
other digits within the intervals.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain, combinations, product
from pathlib import Path
from random import Random
from typing import Any

import trueup
from trueup import asking, loading
from trueup.auditing import latest_audit
from trueup.errors import NotFoundError
from trueup.feedback import quality
from trueup.feedback.desk import Desk, View
from trueup.records import Completion, by_prompt
from trueup.reports.charts import Series, histogram, interval_chart, line_chart
from trueup.reports.feedback_charts import learning_chart, people_chart
from trueup.reports.lineage_chart import lineage_chart
from trueup.reports.overopt_chart import overopt_chart
from trueup.runs import Run, runs
from trueup.runs.doctor import diagnose
from trueup.stats.intervals import wilson
from trueup.store import Artifact, Workspace, people, queue
from trueup.text.formats import split_by_prompt
from trueup.world import GoldScorer
from trueup.world.gold import gold_score
from trueup.world.people import PERSONAS, SimulatedPeople, vote_probability

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide"
PANEL, COIN = "panel", "coin"
FROM_DEMO = {"kind": "features", "features": "pretrain", "preset": "tiny"}  # the demo's own reward model
SPENT = ("stacked", "spread")  # three votes a post: all on one pair, or one on each of three pairs
CLIMB = {  # a weak reward model, climbed without a price on the KL and without the guard: what not to do
    "preset": "tiny", "steps": 40, "kl_coefficient": 0.0, "guard": {"rollback": False}, "run": {"evaluate_every": 4},
    "sampling": {"max_new_tokens": 32},
}  # fmt: skip
RULES = ("raw", "soft", "majority", "dawid-skene", "mace", "crowd-bradley-terry")
COMPARED = (("majority", "raw"), ("soft", "raw"), ("five", "raw"), SPENT)  # by a reward model on each
SEEDS = (0, 1, 2)
WIDTH, MARGIN = 600, 16
# A page shows a picture on paper of its own, so that it can be read whatever lies behind it,
# in the colours of the reports.
_CSS = (ROOT / "trueup" / "reports" / "page.css").read_text(encoding="utf-8")
_LIGHT, _DARK = (
    ";".join(re.findall(r"--[\w-]+: *#\w+", palette)) for palette in re.findall(r":root \{([^}]*)\}", _CSS)[:2]
)
STYLE = f":root{{{_LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"


def main(folder: str) -> None:
    with Workspace.open(Path(folder)) as ws:
        prepare(ws)
        demo = json.loads((ws.path / "demo.json").read_text(encoding="utf-8"))
        figures = measured(ws, demo)
        pictures = dict(drawn(ws, demo, figures))
    (GUIDE / "pictures").mkdir(parents=True, exist_ok=True)
    for name, svg in pictures.items():
        (GUIDE / "pictures" / f"{name}.svg").write_text(framed(svg) + "\n", encoding="utf-8")
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (GUIDE / "figures.json").write_text(text, encoding="utf-8")
    print(f"{len(pictures)} pictures and figures.json in {GUIDE}")


# What the demo does not do


def prepare(ws: Workspace) -> None:
    """Everything that the pictures need beside the demo, each under a name; what has its name already is kept."""
    if not any(each.name == PANEL for each in queue.collections(ws.database)):
        judge_together(ws)
        asking.quality(ws, PANEL)
    five = [each.judge for each in people.people(ws.database) if each.name not in ("owner", COIN)]
    for rule in RULES:
        once(ws, f"panel-{rule}", lambda name, rule=rule: asking.freeze(ws, PANEL, rule=rule, name=name))
    once(ws, "panel-five", lambda name: asking.freeze(ws, PANEL, judges=five, name=name))
    for way in SPENT:
        once(ws, f"panel-{way}", lambda name, way=way: spend(ws, way, name))
    for data, seed in product(chain(*COMPARED), SEEDS):
        once(ws, f"reward-{data}-{seed}", lambda name, data=data, seed=seed: trueup.reward(
            ws, base="sft", data=f"panel-{data}", name=name, run={"seed": seed}, **FROM_DEMO
        ))  # fmt: skip
    once(ws, "rl-weak", lambda name: trueup.rl(
        ws, policy="sft", reward="weak", prompts="world-posts", name=name, **CLIMB
    ))  # fmt: skip
    if latest_audit(ws, "reward") is None:
        trueup.audit(ws, model="reward", data="judgements")
    page = ws.path / "learning.json"
    if not page.exists():
        found = asking.learning(ws, base="sft", data="judgements", seconds_each=30.0, **FROM_DEMO)
        page.write_text(json.dumps(found.to_json()), encoding="utf-8")


def once(ws: Workspace, name: str, make: Any) -> None:
    try:
        ws.get(name)
    except NotFoundError:
        make(name)


def spend(ws: Workspace, way: str, name: str) -> None:
    """Three votes a post by the five simulated people: on one pair by three of them, or on three pairs by one each."""
    source, judged = ws.get("candidates"), []
    for group in by_prompt(loading.read_completions(source)):
        split = split_by_prompt(group[0].prompt.id, 0.25, 0)  # the demo's own split
        pairs = [pair for pair in combinations(group, 2) if pair[0].text != pair[1].text]
        if len({frozenset((a.text, b.text)) for a, b in pairs}) < 3:
            continue  # so few different texts would not be worth three questions
        if way == "stacked":
            crowd, items = SimulatedPeople(1, mode="ranking", judges_per_item=3, split=split), pairs[:1]
        else:
            crowd, items = SimulatedPeople(1, mode="pairs", pairs_per_prompt=3, split=split), [group]
        judged += crowd.judge(items)
    rows = [each.to_json() for each in ws.add_judgements(judged, source)]
    loading.put_records(ws, "preferences", rows, name=name, parents={"completions": source}, source="simulated")


def judge_together(ws: Workspace) -> None:
    """Three of six people judge one pair of each post, in the labelling app's own queue: the five simulated people, and
    one who answers by a coin."""
    made = trueup.collect(
        ws, PANEL, completions=["candidates"], heldout=0.25, overlap=3, calibration_share=0.0, repeat_share=0.0
    )
    people.add_person(ws.database, "owner", "owner", 0.0)
    panel = {each.name: each for each in PERSONAS} | {COIN: None}
    folk = {name: people.add_person(ws.database, name, "annotator", 0.0) for name in panel}
    read = {(c.prompt.text, c.text): c for c in loading.read_completions(ws.get("candidates"))}
    clock, chance = iter(range(0, 10**9, 20)), Random(0)  # 20 seconds for each thing that is done
    desk = Desk(ws, made.collection.id, lambda: 1.7e9 + next(clock), secret=b"of the guide")
    for person in folk.values():
        queue.acknowledge(ws.database, person.id, made.collection.guideline, 1.7e9)
    waiting = sorted(folk)
    while waiting:
        for name in list(waiting):
            view = desk.next(folk[name].id)
            if view is None:
                waiting.remove(name)
                continue
            first = 0.5 if panel[name] is None else vote_probability(panel[name], *_texts(view, read))
            choice = -2 if chance.random() < first else 2
            desk.answer(folk[name].id, view.assignment, view.assignment, {"choice": choice, "active_ms": 20_000})


def _texts(view: View, read: Mapping[tuple[str, str], Completion]) -> tuple[Completion, Completion]:
    prompt = view.prompt[-1]["content"]
    a, b = (read[prompt, text] for text in view.completions)
    return a, b


# What came of it


def measured(ws: Workspace, demo: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that stand on the pages, each with its n and where it was measured."""
    about = quality.summary(ws, queue.collection(ws.database, PANEL).id, 0.0)
    assert about is not None
    names = {each.judge: each.name for each in people.people(ws.database)}
    learnt = json.loads((ws.path / "learning.json").read_text(encoding="utf-8"))
    trained = {j.prompt.id for j in loading.read_judgements(ws.get("panel-raw")) if j.split == "train"}
    tested = {j.prompt.id for j in loading.read_judgements(ws.get("judgements")) if j.split == "heldout"}
    assert not trained & tested, "a reward model would be tested on posts that it learnt from"
    return {
        "command": "trueup demo DEMO --seed 0 --overopt, then python scripts/make_guide_pictures.py DEMO",
        "world": "the built-in world, seed 0; its people are simulated",
        "versions": dict(next(iter(runs(ws))).row.versions),
        "demo": of_demo(ws, demo),
        "labels": {rule: like_gold(ws, f"panel-{rule}") for rule in RULES},
        "reward_models": [beside(ws, *pair) for pair in COMPARED],
        "judges": [{**each, "judge": names[each["judge"]]} for each in about["value"]["judges"]],
        "agreement": about["value"]["agreement"],
        "warnings": [
            {**each, "judge": names.get(each.get("judge", ""), "")} if isinstance(each, dict) else each
            for each in about["value"]["warnings"]
        ],
        "overopt": trueup.overopt(ws, run_of(ws, ws.get("rl-weak")).id, judges=["gold", "reward"]),
        "learning": {key: learnt[key] for key in ("points", "accuracy", "heldout_pairs", "gain", "gain_ci", "message")},
    }


def of_demo(ws: Workspace, demo: Mapping[str, Any]) -> dict[str, Any]:
    """What the demo itself found, as the pages of its stages quote it."""
    made = {name: run_of(ws, ws.get(name)) for name in ("pretrain", "sft", "rl", "rl-overopt")}
    gold = [score.value for score in GoldScorer().score(loading.read_completions(ws.get("candidates")))]
    judged = list(loading.read_judgements(ws.get("judgements")))
    columns = {name: demo["curves"]["rl"][name] for name in ("score", "gold", "kl")}
    config, audited = made["rl"].config, latest_audit(ws, "reward")
    assert audited is not None
    return {
        "threads": {name: run.config["run"]["threads"] for name, run in made.items()},  # 0 is all there are
        "win_rates": [{key: each[key] for key in ("name", "value", "ci", "n")} for each in demo["win_rates"]],
        "reward_models": [
            {key: each[key] for key in ("name", "accuracy", "ci", "n", "ceiling")} for each in demo["reward_models"]
        ],
        "audit": audited["headline"],
        "judgements": len({each.id for each in judged}),  # of two pairs with the same texts one judgement is left
        "pairs": sum(len(each.pairs()) for each in judged),
        "candidates": {"gold": sum(gold) / len(gold), "n": len(gold), "posts": ws.get("world-candidates").meta["rows"]},
        "pretrain": ends(made["pretrain"], "completion_loss"),
        "sft": ends(made["sft"], "loss") | {"rows": ws.get("world-demonstrations").meta["rows"]},
        "rl": {name: [values[0], values[-1]] for name, values in columns.items()}
        | {"steps": config["steps"], "n": config["prompts_per_step"] * config["samples_per_prompt"]},
        "doctor": {each.code: each.says for each in diagnose(made["rl-overopt"]).findings},
    }


def ends(run: Run, metric: str) -> dict[str, Any]:
    """A loss at the first and last step, and wherever it was measured on held-out prompts."""
    rows = run.metrics()
    held = {str(row["step"]): row[f"heldout_{metric}"] for row in rows if f"heldout_{metric}" in row}
    batch = run.config["batch_size"]
    return {"steps": len(rows), "batch": batch, "training": [rows[0][metric], rows[-1][metric]], "heldout": held}


def like_gold(ws: Workspace, name: str) -> dict[str, Any]:
    """How often the better one of a row is the better one by the gold score; a row that names none counts half."""
    right, n = 0.0, 0
    for judged in loading.read_judgements(ws.get(name)):
        finished = judged.meta.get("finished") or [True] * len(judged.completions)
        gold = [gold_score(judged.prompt, text, end) for text, end in zip(judged.completions, finished, strict=True)]
        for i, j, target in judged.pairs():
            if gold[i] != gold[j]:
                n += 1
                right += 0.5 if target == 0.5 else float((target > 0.5) == (gold[i] > gold[j]))
    return {"value": right / n, "ci": wilson(right, n), "n": n}


def beside(ws: Workspace, first: str, second: str) -> dict[str, Any]:
    """Two ways of making a training set, by what a reward model trained on each foresees of the demo's held-out
    judgements: other votes, on posts that none of them learnt from. Three seeds each; their spread is told."""
    told = []
    for seed in SEEDS:
        found = trueup.compare_rewards(ws, a=f"reward-{first}-{seed}", b=f"reward-{second}-{seed}", data="judgements")
        told.append({"seed": seed, first: found["a"]["value"], second: found["b"]["value"], "n": found["n"],
                     "difference": found["difference"]["value"], "ci": found["difference"]["ci"]})  # fmt: skip
    sizes = {way: ws.get(f"panel-{way}").meta["rows"] for way in (first, second)}
    means = {way: sum(each[way] for each in told) / len(told) for way in (first, second)}
    return {"rows": sizes, "mean": means, "seeds": told}


# Pictures


def drawn(ws: Workspace, demo: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "whole-way", lineage_chart(trueup.report(ws, ["rl"])["lineage"], width=WIDTH)
    yield "pretrain", losses(ws, "pretrain", "completion_loss", "Pretraining: loss on titles")
    yield "sft", losses(ws, "sft", "loss", "SFT: loss on demonstrations")
    candidates = loading.read_completions(ws.get("candidates"))
    gold = [score.value for score in GoldScorer().score(candidates)]
    title = "Gold score of what SFT writes: four completions a post"
    yield "candidates", histogram(gold, "gold score, points (a faithful title has 5.4)", title, width=WIDTH, bins=48)
    yield "judges", people_chart(figures["judges"], "consensus", "Agrees with the others' majority", width=WIDTH)
    yield "reward", interval_chart(
        [(each["name"], each["accuracy"], *each["ci"], each["n"]) for each in demo["reward_models"]],
        title="Held-out judgements that a reward model foresees", x_label="with 95% interval",
        reference_label="a coin", marks=[each["ceiling"] for each in demo["reward_models"]], mark_label="ceiling",
        width=WIDTH, domain=(0.5, 0.85),
    )  # fmt: skip
    steps = demo["curves"]["rl"]
    lines = [Series("score, standard deviations", steps["step"], steps["score"])]
    lines += [Series("gold, points", steps["step"], steps["gold"])]
    lines += [Series("KL, nats", steps["step"], steps["kl"])]
    yield "rl", line_chart(lines, "rollout", "mean of n = 128 completions", "PPO: score, gold and KL", width=WIDTH)
    yield "methods", methods()
    rates = [(each["name"], each["value"], *each["ci"], each["n"]) for each in demo["win_rates"]]
    yield "winrates", interval_chart(
        rates, title="Held-out posts won, by gold score", x_label="posts won (ties half), with 95% interval",
        reference_label="even", width=WIDTH, domain=(0.4, 1),
    )  # fmt: skip
    learnt = json.loads((ws.path / "learning.json").read_text(encoding="utf-8"))
    yield "learning", learning_chart(learnt, width=WIDTH)
    rows = [(RULE_NAMES[rule], found["value"], *found["ci"], found["n"]) for rule, found in figures["labels"].items()]
    yield "rules", interval_chart(
        rows, None, title="Labels that agree with the gold score", x_label="share of labels, with 95% interval",
        width=WIDTH, domain=(0.7, 0.9),
    )  # fmt: skip
    yield "gamed", overopt_chart(figures["overopt"], width=WIDTH)


RULE_NAMES = {
    "raw": "one vote (raw)", "soft": "soft, of 3", "majority": "majority of 3", "dawid-skene": "Dawid-Skene",
    "mace": "MACE", "crowd-bradley-terry": "crowd Bradley-Terry",
}  # fmt: skip


def losses(ws: Workspace, name: str, metric: str, title: str) -> str:
    rows = run_of(ws, ws.get(name)).metrics()
    held = [row for row in rows if f"heldout_{metric}" in row]
    lines = [
        Series("training", [row["step"] for row in rows], [row[metric] for row in rows]),
        Series("held out", [row["step"] for row in held], [row[f"heldout_{metric}"] for row in held]),
    ]
    return line_chart(lines, "step", "nats a token", title, width=WIDTH)


def run_of(ws: Workspace, artifact: Artifact) -> Run:
    return next(run for run in runs(ws) if artifact.id in run.row.outputs.values())


def methods() -> str:
    """Win rates of docs/learning.md, from the files of its three seeds put together."""
    seeds = [json.loads((ROOT / f"docs/results/learning-seed-{seed}.json").read_text("utf-8")) for seed in range(3)]
    won: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for figure in (each for seed in seeds for each in seed["figures"] if each["name"].endswith("over SFT sampled")):
        total = won[figure["name"].removesuffix(" over SFT sampled")]
        total[0] += figure["value"] * figure["n"]
        total[1] += figure["n"]
    rows = [(METHODS[name], of / n, *wilson(of, int(n)), int(n)) for name, (of, n) in won.items() if name in METHODS]
    return interval_chart(
        rows, title="Better than SFT sampled, by gold score", x_label="held-out posts won, with 95% interval",
        reference_label="even", width=WIDTH, domain=(0.5, 0.95),
    )  # fmt: skip


METHODS = {
    "PPO": "PPO", "rloo": "RLOO", "dpo": "DPO", "SFT best of 8": "SFT, best of 8", "SFT greedy": "SFT, greedy",
}  # fmt: skip


def framed(svg: str) -> str:
    """A chart as a file: with paper and a margin of its own, in the colours of light or dark as its reader has it."""
    head, end, body = svg.partition("</desc>")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)" width="[\d.]+" height="[\d.]+"', head)
    assert box and end
    wide, high = (float(size) + 2 * MARGIN for size in box.groups())
    frame = f"{-MARGIN} {-MARGIN} {wide:g} {high:g}"
    head = head.replace(box[0], f'viewBox="{frame}" width="{wide:g}" height="{high:g}"')
    place = f'x="{-MARGIN}" y="{-MARGIN}" width="{wide:g}" height="{high:g}"'
    return f'{head}{end}<style>{STYLE}</style><rect {place} rx="8" fill="var(--paper)"/>{body}'


if __name__ == "__main__":
    main(sys.argv[1])
