"""The slow promises: `make check` runs them, one after another, and says of each whether it is kept.

Each finished check is one JSON file in docs/results/: its figures with n and interval, the target beside each, seed,
command, seconds, versions. A check whose file was made by the code as it is now is not run again, so an interrupted
`make check` goes on where it stopped; `--again` runs it all the same. A target that is missed is in the file, in the
table at the end, and in the exit code.

    python scripts/check.py [--list] [--only NAME] [--again] [--quick] [--results DIR]

Checks that promise a time run alone; the others, which use one core each, two at a time.

`--quick` runs every check at a size for a minute, to see that the checks themselves work: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import stdev
from typing import Any
from xml.etree import ElementTree

from trueup.runs.versions import installed_versions
from trueup.stats import wilson
from trueup.stats.overoptimisation import over_seeds

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
CORES = 2  # what the promises are made for
SEEDS = (0, 1, 2)
TRUEUP, PYTEST = (sys.executable, "-m", "trueup"), (sys.executable, "-m", "pytest")


@dataclass(frozen=True)
class Figure:
    """One number, what it should be, and what it rests on."""

    name: str
    value: float
    target: str
    met: bool
    ci: tuple[float, float] | None = None
    n: int | None = None
    spread: float | None = None  # standard deviation over seeds

    def line(self) -> str:
        interval = f" [{self.ci[0]:.3f}, {self.ci[1]:.3f}]" if self.ci else ""
        spread = f", std over seeds {self.spread:.3f}" if self.spread is not None else ""
        count = f", n={self.n}" if self.n is not None else ""
        return f"{self.value:.4g}{interval}{count}{spread}"


@dataclass(frozen=True)
class Outcome:
    """What a check found. `problem`: why it could not be judged; it is then run again next time."""

    figures: list[Figure] = field(default_factory=list)
    command: str = ""
    seed: int | None = None
    problem: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return not self.problem and bool(self.figures) and all(figure.met for figure in self.figures)


@dataclass(frozen=True)
class Settings:
    results: Path
    quick: bool = False


@dataclass(frozen=True)
class Check:
    name: str
    promise: str
    minutes: float
    run: Callable[[Settings], Outcome]
    rests_on: tuple[str, ...]  # a change in one of these makes the result stale
    derived: bool = False  # made from other results in no time, so made anew each time
    alone: bool = False  # promises a time, so nothing else may run beside it


# --- the checks


def demo(settings: Settings, seed: int) -> Outcome:
    found, command, problem = run_demo(settings, seed)
    return Outcome(command=command, seed=seed, problem=problem) if problem else judge_demo(found, command)


def judge_demo(found: Mapping[str, Any], command: str) -> Outcome:
    """What `trueup demo --json` printed, beside what is promised of it."""
    rates, model = found["win_rate"], found["reward_model"]
    share = model["accuracy"] / model["ceiling"]
    figures = [
        rate_of("RL over SFT sampled", rates["rl_vs_sft"], "at least 0.82", lambda v: v >= 0.82),
        rate_of("RL over SFT greedy", rates["rl_vs_sft_greedy"], "at least 0.75", lambda v: v >= 0.75),
        rate_of("RL over best of 8", rates["rl_vs_best_of_n"], "above 0.5", lambda v: v > 0.5),
        Figure(
            "reward model accuracy as a share of its ceiling", share, "at least 0.9", share >= 0.9,
            ci=(model["ci"][0] / model["ceiling"], model["ci"][1] / model["ceiling"]), n=model["n"],
        ),
        Figure("held-out posts", rates["rl_vs_sft"]["n"], "at least 300", rates["rl_vs_sft"]["n"] >= 300),
        Figure("seconds", found["seconds"], "at most 240", found["seconds"] <= 240),
        Figure("peak memory, MiB", found["peak_memory_mib"], "below 2048", found["peak_memory_mib"] < 2048),
    ]  # fmt: skip
    kept = ("win_rate", "reward_model", "reward_models", "kl", "cpu_seconds", "stages")
    return Outcome(figures, command, found["seed"], more={key: found[key] for key in kept})


def rate_of(name: str, rate: Mapping[str, Any], target: str, kept: Callable[[float], bool]) -> Figure:
    return Figure(name, rate["value"], target, kept(rate["value"]), tuple(rate["ci"]), rate["n"])


def pooled(settings: Settings) -> Outcome:
    """The win rates of all seeds taken together. Nothing runs: it reads what the checks before it wrote."""
    demos, missing = results_of("demo-seed-", settings)
    if missing:
        return Outcome(problem=missing)
    rates = [found["more"]["win_rate"] for found in demos.values()]
    targets: dict[str, tuple[str, str, Callable[[float], bool]]] = {
        "rl_vs_sft": ("RL over SFT sampled, pooled", "at least 0.87 (aim 0.90)", lambda v: v >= 0.87),
        "rl_vs_sft_greedy": ("RL over SFT greedy, pooled", "at least 0.75", lambda v: v >= 0.75),
        "rl_vs_best_of_n": ("RL over best of 8, pooled", "above 0.5", lambda v: v > 0.5),
    }
    figures = []
    for key, (name, target, kept) in targets.items():
        each = [rate[key] for rate in rates]
        points, n = sum(r["wins"] + r["ties"] / 2 for r in each), sum(r["n"] for r in each)
        spread = stdev(r["value"] for r in each)
        figures.append(Figure(name, points / n, target, kept(points / n), wilson(points, n), n, spread))
    return Outcome(figures, f"the results of {', '.join(demos)}")


def results_of(start: str, settings: Settings) -> tuple[dict[str, dict[str, Any]], str]:
    """What checks whose names begin so have found with this code, or which of them have not."""
    found = {check.name: earlier(check, settings) for check in CHECKS if check.name.startswith(start)}
    missing = [name for name, result in found.items() if result is None]
    known = {name: result for name, result in found.items() if result is not None}
    return known, f"this code has no result of {', '.join(missing)}" if missing else ""


def overopt(settings: Settings) -> Outcome:
    found, command, problem = run_demo(settings, 0, "--overopt")
    if problem:
        return Outcome(command=command, seed=0, problem=problem)
    return judge_overopt(found["over_optimisation"]["weak"], command)


def judge_overopt(weak: Mapping[str, Any], command: str) -> Outcome:
    """The first rollout is the SFT model's own: the proxy is measured in its standard deviations, gold against it."""
    proxy, gold, n = weak["proxy"], weak["gold"], weak["n"]
    gain, change = proxy[-1] - proxy[0], gold[-1] - gold[0]
    figures = [
        Figure("proxy, last rollout minus SFT, in SFT's standard deviations", gain, "at least 2", gain >= 2, n=n),
        Figure("gold, last rollout minus SFT", change, "below 0", change < 0, n=n),
    ]
    return Outcome(figures, command, 0, more={"weak": weak})


def learning(settings: Settings, seed: int) -> Outcome:
    """What each method gains, what the guard ships and, on the first seed, whether long runs stay on course."""
    quick = ["--quick"] if settings.quick else []
    names = ("learning", "guard", *(["steady"] if seed == SEEDS[0] else []))
    found, commands = {}, []
    with tempfile.TemporaryDirectory() as folder:
        world = ["--workspace", str(Path(folder) / "world")]
        for name in names:
            found[name], _, problem = benchmark(name, "--seed", str(seed), *quick, *world)
            commands.append(shown("python -m benchmarks", [name, "--seed", str(seed), *quick, "--json"]))
            if problem:
                return Outcome(command=commands[-1], seed=seed, problem=problem)
    return judge_learning(found, "; ".join(commands), seed)


def judge_learning(found: Mapping[str, Any], command: str, seed: int) -> Outcome:
    """What `benchmarks learning`, `guard` and `steady` printed, beside what is promised."""
    rates = {row["method"]: row["over_sampled"] for row in found["learning"]["rows"]}
    guard, end = found["guard"], found["guard"]["unguarded_end"] - found["guard"]["sft"]
    kept = -1.0 if guard["kept"] is None else guard["kept"]
    figures = [
        rate_of("PPO over SFT sampled", rates.pop("ppo"), "at least 0.80", lambda v: v >= 0.8),
        *(rate_of(f"{name} over SFT sampled", rate, "reported", lambda v: True) for name, rate in rates.items()),
        Figure("share of the way up that the guard keeps", kept, "at least 0.85", kept >= 0.85, n=guard["n"]),
        Figure("gold at the end without the guard, less SFT's", end, "below 0", end < 0, n=guard["n"]),
        *(judge_steady(found["steady"]) if "steady" in found else []),
    ]
    return Outcome(figures, command, seed, more=found)


def judge_steady(found: Mapping[str, Any]) -> list[Figure]:
    passes, target = found["passes"], found["target"]
    moved, limit = passes["approx_kl"]["largest"], passes["approx_kl"]["limit"]
    gold, off = passes["gold"], target["off"]
    return [
        Figure("rollbacks in a long run", passes["rollbacks"], "0", passes["rollbacks"] == 0, n=passes["steps"]),
        Figure("largest approximate KL in it", moved, f"below {limit}", moved < limit),
        Figure("its last gold over its best", gold["share"], "at least 0.95", gold["share"] >= 0.95, n=gold["n"]),
        Figure("KL of the last rollouts against its target", off, "within 0.2", abs(off) <= 0.2, n=target["rollouts"]),
    ]


def learning_pooled(settings: Settings) -> Outcome:
    """The win rates of all seeds taken together."""
    seeds, missing = results_of("learning-seed-", settings)
    if missing:
        return Outcome(problem=missing)
    targets = {"ppo": 0.88, "ppo-bf16": 0.88, "rloo": 0.80, "dpo": 0.80}
    each = [
        {row["method"]: row["over_sampled"] for row in found["more"]["learning"]["rows"]} for found in seeds.values()
    ]
    figures = []
    for name, least in targets.items():
        n = sum(rates[name]["n"] for rates in each)
        points = sum(rates[name]["value"] * rates[name]["n"] for rates in each)
        rate, spread = points / n, stdev(rates[name]["value"] for rates in each)
        said, goal = f"{name} over SFT sampled, pooled", f"at least {least:g}"
        figures.append(Figure(said, rate, goal, rate >= least, wilson(points, n), n, spread))
    return Outcome(figures, f"the results of {', '.join(seeds)}")


def turnover(settings: Settings, seed: int) -> Outcome:
    """One seed of a question, not of a promise about its answer: what comes out is in the pooled result."""
    found, command, problem = benchmark("turnover", "--seed", str(seed), *(["--quick"] if settings.quick else []))
    if problem:
        return Outcome(command=command, seed=seed, problem=problem)
    posts = found["sizes"]["heldout"]
    return Outcome([Figure("held-out posts", posts, "at least 150", posts >= 150)], command, seed, more=found)


def turnover_pooled(settings: Settings) -> Outcome:
    """Ensembles against one model: the mean over seeds of each difference."""
    seeds, missing = results_of("turnover-seed-", settings)
    if missing:
        return Outcome(problem=missing)
    each = [differences(found["more"]) for found in seeds.values()]
    figures = [Figure("seeds", len(each), "at least 3", len(each) >= 3)]
    for name in each[0]:
        found = [one[name] for one in each]
        pooled = over_seeds(found)
        spread = stdev(one["value"] for one in found)
        figures.append(Figure(name, pooled.value, "reported", True, pooled.ci, pooled.n, spread))
    return Outcome(figures, f"the results of {', '.join(seeds)}", more={"seeds": each})


def differences(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of one seed: each way of using the ensemble, less one model."""
    said = {
        "later": "peak later than one model's, nats of KL",
        "higher": "gold at its peak over one model's",
        "end": "gold at the end over one model's",
    }
    values = {}
    for judged, condition in found["conditions"].items():
        for way, arms in (("best of n", condition["best_of_n"]["arms"]), ("RL", condition.get("rl", {}))):
            for arm in [arm for arm in arms if arm != "one"]:
                for key, words in said.items():
                    values[f"{judged}, {way}, {arm}: {words}"] = arms[arm]["against_one"][key]
    return values


def resume(settings: Settings) -> Outcome:
    """Kills at random moments and sizes: the tests that take minutes."""
    chosen = ["tests/test_resume.py", "-m", "not slow"] if settings.quick else ["-m", "slow"]
    words = [*chosen, "--timeout", "7200", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = execute([*PYTEST, *words, "--junitxml", str(report)])
        if done.returncode not in (0, 1) or not report.is_file():
            return Outcome(command=shown("pytest", words), problem=last_words(done))
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [f"{case.get('classname')}.{case.get('name')}" for case in cases if bad(case)]
    ran = [case for case in cases if case.find("skipped") is None]
    figures = [
        Figure("slow tests that fail", len(failed), "0", not failed, n=len(ran)),
        Figure("slow tests that ran", len(ran), "at least 1", bool(ran)),
    ]
    return Outcome(figures, shown("pytest", words), more={"failed": failed})


def bad(case: ElementTree.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def mutants(settings: Settings) -> Outcome:
    words = ["--only", "1"] if settings.quick else []
    done = execute([sys.executable, str(ROOT / "tests" / "mutants.py"), *words])
    counts = re.search(r"^(\d+) of (\d+) mutants caught", done.stdout, re.MULTILINE)
    if not counts:
        return Outcome(command=shown("python tests/mutants.py", words), problem=last_words(done))
    caught, total = map(int, counts.groups())
    figures = [
        Figure("mutants that no test notices", total - caught, "at most 2", total - caught <= 2, n=total),
        Figure("mutants", total, "at least 30", total >= 30),
    ]
    return Outcome(figures, shown("python tests/mutants.py", words))


def labelling(settings: Settings, *options: str) -> Outcome:
    """The labelling app at size."""
    size = ["--judgements", "3000", "--seconds", "2", "--rounds", "1", "--think", "0.2"] if settings.quick else []
    found, command, problem = benchmark("label", *options, *size)
    if problem:
        return Outcome(command=command, problem=problem)
    large = found["at"][str(found["judgements"])]
    both, page = large["submit_and_next_ms"], large["quality_page_seconds"]
    failures = sum(len(each["failures"]) for each in found["at"].values())
    figures = [
        Figure("p95 of submit and next, ms", both["p95"], "below 50", both["p95"] < 50, n=both["n"]),
        Figure("p95 against 10,000 judgements", found["p95_ratio"], "at most 1.5", found["p95_ratio"] <= 1.5),
        Figure("quality page, seconds", page, "below 2", page < 2),
        Figure("requests that failed", failures, "0", failures == 0),
    ]
    return Outcome(figures, command, more=found)


def reward_size(settings: Settings) -> Outcome:
    """Training a reward model on up to as many pairs as InstructGPT had."""
    found, command, problem = benchmark("reward-size", *(["--sizes", "100,1000"] if settings.quick else []))
    if problem:
        return Outcome(command=command, problem=problem)
    ratio, memory, most = found["time_ratio"], found["bytes_a_token"], found["sizes"][-1]["pairs"]
    figures = [
        Figure("seconds a token, largest size against smallest", ratio, "at most 1.25", ratio <= 1.25, n=most),
        Figure("bytes that a further token takes", memory, "at most 30", memory <= 30, n=most),
        Figure("prompts left out", 0 if found["complete"] else 1, "0", found["complete"]),
    ]
    return Outcome(figures, command, more=found)


def adapters_memory(settings: Settings) -> Outcome:
    """Reinforcement learning on one base, beside LoRA SFT on it."""
    size = ["--shape", "tiny"] if settings.quick else []
    found, command, problem = benchmark("adapters-memory", *size, "--only-adapters")
    if problem:
        return Outcome(command=command, problem=problem)
    most = found["highest"]
    figures = [
        Figure("peak memory of RL with adapters over LoRA SFT's", most, "at most 1.3", most <= 1.3),
        Figure("tokens of an update that differ", 0 if found["same_tokens"] else 1, "0", found["same_tokens"]),
    ]
    return Outcome(figures, command, more=found)


def coverage(settings: Settings) -> Outcome:
    """How often intervals hold a planted truth."""
    found, command, problem = benchmark("coverage", "--worlds", "20" if settings.quick else "1000")
    return Outcome([Figure(**row) for row in found.get("rows", ())], command, problem=problem)


def growth(settings: Settings) -> Outcome:
    """What thirty thousand prompts cost more than a hundred, a token; and what 500 iterations leave behind."""
    size = ["--sizes", "16,32,48", "--iterations", "10"] if settings.quick else []
    found, command, problem = benchmark("growth", *size)
    if problem:
        return Outcome(command=command, problem=problem)
    mib, start = found["mib"], found["start_seconds"]["median"]
    figures = [
        *(
            Figure(f"{stage}: time a token, the last over the first", rise, "at most 1.25", rise <= 1.25)
            for stage, rise in found["rise"].items()
        ),
        Figure("memory after the iterations over that after a fifth", mib["rise"], "at most 0.02", mib["rise"] <= 0.02,
               n=mib["iterations"]),
        Figure("seconds from a command to the end of its first step", start, "below 6", start < 6),
    ]  # fmt: skip
    return Outcome(figures, command, more=found)


# What the demo's figures come from: neither the labelling app nor how commands are worded can change one.
LOOP = tuple(f"trueup/{name}" for name in (
    "algo", "config", "engines", "evals", "models", "runs", "stats", "text", "train", "world",
    "demonstrate.py", "inputs.py", "loading.py", "preparing.py", "process.py", "records.py", "scorers.py", "wiring.py",
))  # fmt: skip
WITH_TESTS = ("trueup", "tests", "scripts/check.py")
TRAINING = (*LOOP, "benchmarks", "scripts/check.py")
WITH_BENCHMARKS = ("trueup", "benchmarks", "scripts/check.py")
CHECKS = (
    *(
        Check(
            f"demo-seed-{seed}",
            "trueup demo: win rates, reward model, time and memory",
            4,
            lambda settings, seed=seed: demo(settings, seed),
            LOOP,
            alone=True,
        )
        for seed in SEEDS
    ),
    Check("demo-pooled", "the win rates of the three seeds together", 0, pooled, LOOP, derived=True),
    Check("overopt", "a weak reward model without KL penalty is over-optimised", 6, overopt, LOOP),
    *(
        Check(
            f"learning-seed-{seed}",
            "what PPO, RLOO and DPO gain, what the guard ships, whether long runs stay on course",
            27 if seed == SEEDS[0] else 13,
            lambda settings, seed=seed: learning(settings, seed),
            (*LOOP, "benchmarks/learning.py", "benchmarks/guard.py", "benchmarks/steady.py"),
        )
        for seed in SEEDS
    ),
    Check("learning-pooled", "the win rates of the methods over three seeds", 0, learning_pooled, LOOP, derived=True),
    *(
        Check(
            f"turnover-seed-{seed}",
            "over-optimisation of one reward model and of ensembles of four is measured",
            11,
            lambda settings, seed=seed: turnover(settings, seed),
            (*LOOP, "trueup/ensembling.py", "benchmarks/turnover.py"),
        )
        for seed in SEEDS
    ),
    Check("turnover-pooled", "whether ensembles turn over later", 0, turnover_pooled, LOOP, derived=True),
    Check("resume", "killed and resumed equals undisturbed; other tests that take minutes", 30, resume, WITH_TESTS),
    Check("labelling", "the labelling app with a million judgements", 10, labelling, WITH_BENCHMARKS, alone=True),
    Check(
        "labelling-postgresql", "the same on PostgreSQL, in a cluster of its own", 10,
        lambda settings: labelling(settings, "--postgres"), WITH_BENCHMARKS, alone=True,
    ),
    Check("reward-size", "a reward model of 1,000 to 30,000 pairs", 5, reward_size, TRAINING, alone=True),
    Check("adapters-memory", "RL with adapters beside LoRA SFT on one base", 5, adapters_memory, TRAINING, alone=True),
    Check("growth", "time a token and memory, from 100 to 30,000 prompts", 4, growth, TRAINING, alone=True),
    Check("coverage", "intervals hold the truth as often as they say", 1, coverage, WITH_BENCHMARKS),
    Check("mutants-caught", "the tests notice when the code is broken", 15, mutants, WITH_TESTS),
)  # fmt: skip


# --- running one


def run_demo(settings: Settings, seed: int, *options: str) -> tuple[dict[str, Any], str, str]:
    """What the demo printed, the command for people, and what went wrong if something did."""
    words = ["--seed", str(seed), *options, *(["--quick"] if settings.quick else []), "--json"]
    with tempfile.TemporaryDirectory() as folder:
        done = execute([*TRUEUP, "demo", str(Path(folder) / "demo"), *words])
    command = shown("trueup demo DIR", words)
    if done.returncode != 0:
        return {}, command, last_words(done)
    return json.loads(done.stdout), command, ""


def benchmark(*words: str) -> tuple[dict[str, Any], str, str]:
    """What `python -m benchmarks` printed, the command for people, and what went wrong if something did."""
    done = execute([sys.executable, "-m", "benchmarks", *words, "--json"])
    command = shown("python -m benchmarks", [*words, "--json"])
    try:
        return json.loads(done.stdout), command, ""
    except json.JSONDecodeError:
        return {}, command, last_words(done)


def execute(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "TRUEUP_QUIET": "1", "TRUEUP_WORKSPACE": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def shown(start: str, words: Sequence[str]) -> str:
    return " ".join([start, *(f"'{word}'" if " " in word else word for word in words)])


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
    return f"exit {done.returncode}: " + " / ".join(said)


def use_two_cores() -> int:
    """Keep this process and all it starts on two cores, where the system lets us; returns how many there are."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return len(os.sched_getaffinity(0))


# --- results


def source_digest(places: Sequence[str]) -> str:
    """Of every Python file that a result rests on."""
    sha = hashlib.sha256()
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            sha.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return sha.hexdigest()[:16]


def earlier(check: Check, settings: Settings) -> dict[str, Any] | None:
    """The result of this check by this very code, if there is one."""
    file = settings.results / f"{check.name}.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    fresh = found["source"] == source_digest(check.rests_on) and found["quick"] == settings.quick
    return found if fresh and not found["problem"] else None


def run_and_keep(check: Check, settings: Settings, cores: int) -> dict[str, Any]:
    source, began = source_digest(check.rests_on), time.monotonic()
    outcome = check.run(settings)
    found = {
        "name": check.name,
        "promise": check.promise,
        "met": outcome.met,
        "figures": [asdict(figure) for figure in outcome.figures],
        "problem": outcome.problem,
        "seed": outcome.seed,
        "command": outcome.command,
        "seconds": round(time.monotonic() - began, 1),
        "cores": cores,
        "quick": settings.quick,
        "versions": installed_versions(),
        "source": source,
        "more": dict(outcome.more),
    }
    settings.results.mkdir(parents=True, exist_ok=True)
    file = settings.results / f"{check.name}.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    return found


def run_all(chosen: Sequence[Check], settings: Settings, *, again: bool) -> list[dict[str, Any]]:
    """Results in the order of the checks: what is known as it is, what promises a time by itself, the rest in pairs."""
    cores = use_two_cores()
    known = {} if again else {check.name: found for check in chosen if (found := earlier(check, settings))}

    def run(check: Check) -> None:
        print(f"{check.name}: about {check.minutes:g} minutes", file=sys.stderr, flush=True)
        known[check.name] = run_and_keep(check, settings, cores)

    todo = [check for check in chosen if check.name not in known and not check.derived]
    for check in [check for check in todo if check.alone]:
        run(check)
    with ThreadPoolExecutor(cores) as pairs:
        list(pairs.map(run, [check for check in todo if not check.alone]))
    for check in chosen:
        if check.derived:
            known[check.name] = run_and_keep(check, settings, cores)
    return [known[check.name] for check in chosen]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [("check", "figure", "value", "target", "")]
    for result in results:
        if result["problem"]:
            rows.append((result["name"], "could not be judged", result["problem"], "", "MISSED"))
        for raw in result["figures"]:
            figure = Figure(**raw | {"ci": raw["ci"] and tuple(raw["ci"])})
            rows.append((result["name"], figure.name, figure.line(), figure.target, "met" if figure.met else "MISSED"))
    widths = [max(len(row[place]) for row in rows if len(row[place]) < 90) for place in range(5)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the checks and what is known of them, run nothing")
    parser.add_argument("--only", metavar="NAME", choices=[check.name for check in CHECKS], help="run this one")
    parser.add_argument("--again", action="store_true", help="run also what the code as it is has a result of")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the checks themselves")
    parser.add_argument("--results", type=Path, help="where results are kept (default docs/results)")
    given = parser.parse_args(arguments)
    if given.quick and not given.results:
        parser.error("--quick needs --results: its figures must not stand among the real ones")
    settings = Settings(given.results or RESULTS, given.quick)
    chosen = [check for check in CHECKS if given.only in (None, check.name)]
    if given.list:
        print("\n".join(listed(check, earlier(check, settings)) for check in chosen))
        return 0
    results = run_all(chosen, settings, again=given.again)
    print(table(results))
    missed = [result["name"] for result in results if not result["met"]]
    print(f"\nmissed: {', '.join(missed)}" if missed else f"\nall {len(results)} checks are met")
    return 1 if missed else 0


def listed(check: Check, found: Mapping[str, Any] | None) -> str:
    known = "not run with this code" if found is None else "met" if found["met"] else "MISSED"
    return f"{check.name:<20} {known:<24} about {check.minutes:g} minutes: {check.promise}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
