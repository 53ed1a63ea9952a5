"""Would the tests notice? `make mutants` breaks the arithmetic in small, plausible ways and runs the tests each time.

Every mutant is one exact replacement in a fresh copy of the package: a flipped sign, a lost mask, an off-by-one, a
wrong bound. Tests that still pass after it have a hole. Results are kept in docs/results/mutants.json: a run that was
interrupted goes on where it stopped, and any change of code or tests starts afresh.

    python tests/mutants.py [--list] [--only N] [--jobs N]

Exit 0: at most two mutants survived. Exit 1: more did, or one could not be judged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "mutants.json"
COPIED = ("trueup", "tests", "pyproject.toml")
ALLOWED_SURVIVORS = 2
TIME_LIMIT = 300.0  # seconds for the tests of one mutant

# The fast tests that answer for a file.
TESTS = {
    "trueup/algo/masked.py": ("tests/algo/test_masked.py",),
    "trueup/algo/logprobs.py": ("tests/algo/test_logprobs.py",),
    "trueup/algo/kl.py": ("tests/algo/test_kl.py",),
    "trueup/algo/advantages.py": ("tests/algo/test_advantages.py",),
    "trueup/algo/losses.py": ("tests/algo/test_losses.py",),
    "trueup/algo/preference.py": ("tests/algo/test_losses.py", "tests/algo/test_preference.py"),
    "trueup/engines/sampler.py": ("tests/test_sampler.py",),
    "trueup/engines/plain.py": ("tests/test_sampler.py",),
    "trueup/engines/continuous.py": ("tests/test_sampler.py", "tests/test_sampler_pages.py"),
    "trueup/engines/pages.py": ("tests/test_sampler.py", "tests/test_sampler_pages.py"),
    "trueup/train/run_loop.py": ("tests/test_gradients.py", "tests/test_stages.py", "tests/test_bad_moments.py"),
    "trueup/train/experience.py": ("tests/test_gradients.py", "tests/test_stages.py", "tests/test_bad_moments.py"),
    "trueup/train/sft.py": ("tests/test_gradients.py", "tests/test_stages.py", "tests/test_bad_moments.py"),
    "trueup/train/reward.py": (
        "tests/test_gradients.py",
        "tests/test_stages.py",
        "tests/test_bad_moments.py",
        "tests/test_reward_model.py",
    ),
    "trueup/train/judged.py": ("tests/test_reward_model.py", "tests/test_reward_objectives.py"),
    "trueup/train/improve.py": (
        "tests/test_gradients.py",
        "tests/test_stages.py",
        "tests/test_bad_moments.py",
        "tests/test_value_models.py",
    ),
    "trueup/train/scores.py": ("tests/test_gradients.py", "tests/test_stages.py", "tests/test_scores.py"),
    "trueup/train/guard.py": ("tests/test_guard.py", "tests/test_stages.py"),
    "trueup/train/rl.py": ("tests/test_moving_reference.py", "tests/test_guard.py"),
    "trueup/algo/offline.py": ("tests/algo/test_offline_losses.py",),
    "trueup/train/dpo.py": ("tests/test_offline.py",),
    "trueup/train/kto.py": ("tests/test_offline.py",),
    "trueup/train/ilql.py": ("tests/test_offline.py",),
    "trueup/train/online_dpo.py": ("tests/test_offline.py",),
    "trueup/models/adapters.py": ("tests/test_adapters.py", "tests/test_value_models.py", "tests/test_quantised.py"),
    "trueup/models/value.py": ("tests/test_value_models.py",),
    "trueup/models/quantised.py": ("tests/test_quantised.py",),
}


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str
    new: str
    why: str

    @property
    def tests(self) -> tuple[str, ...]:
        return TESTS[self.file]

    def applied_to(self, source: str) -> str:
        """The broken source. The snippet must stand there exactly once, or the list is out of date."""
        found = source.count(self.old)
        if found != 1:
            raise SystemExit(f"error: {self.file}: the snippet occurs {found} times, not once: {self.old!r}")
        return source.replace(self.old, self.new)


(
    MASKED,
    LOGPROBS,
    KL,
    ADVANTAGES,
    LOSSES,
    PREFERENCE,
    SAMPLER,
    PLAIN,
    CONTINUOUS,
    PAGES,
    LOOP,
    EXPERIENCE,
    SFT,
    REWARD,
    JUDGED,
    IMPROVE,
    SCORES,
    GUARD,
    RL,
    OFFLINE,
    DPO,
    KTO,
    ILQL,
    ROUNDS,
    ADAPTERS,
    VALUE,
    QUANTISED,
) = TESTS

MUTANTS: tuple[Mutant, ...] = (
    Mutant(MASKED, "/ mask.sum()", "/ mask.numel()", "the mean divides by padding too"),
    Mutant(
        MASKED,
        "(wide - masked_mean(wide, mask)) / (spread + eps), mask)",
        "(wide - masked_mean(wide, mask)) / (spread + eps) + masked_mean(wide, mask), mask)",
        "whitening adds the mean back",
    ),
    Mutant(
        MASKED,
        "torch.where(mask_bt, positions, -1).amax(dim=1)",
        "mask_bt.sum(dim=1) - 1 + 0 * positions[0]",
        "the last token is counted, not found: wrong with left padding",
    ),
    Mutant(LOGPROBS, "else wide / temperature", "else wide * temperature", "temperature the wrong way round"),
    Mutant(
        LOGPROBS, ".mul_(-grad_x.unsqueeze(-1))", ".mul_(grad_x.unsqueeze(-1))", "softmax gradient has the wrong sign"
    ),
    Mutant(LOGPROBS, "return grad_xv.div_(temperature)", "return grad_xv", "the gradient forgets the temperature"),
    Mutant(KL, "(torch.expm1(-r) + r)", "(torch.expm1(r) - r)", "k3 of the other divergence"),
    Mutant(
        KL,
        "at_least_float32(logp) - at_least_float32(ref_logp)",
        "at_least_float32(ref_logp) - at_least_float32(logp)",
        "the penalty rewards leaving the reference",
    ),
    Mutant(ADVANTAGES, "zero_outside(-kl_coefficient *", "zero_outside(kl_coefficient *", "KL is a reward"),
    Mutant(
        ADVANTAGES,
        "last_true(mask_bt)] +=",
        "mask_bt.shape[1] - 1] +=",
        "the score lands in the last column, maybe padding",
    ),
    Mutant(
        ADVANTAGES,
        "next_value = torch.where(real, values_bt[:, t], next_value)",
        "next_value = values_bt[:, t]",
        "bootstraps from the value of padding",
    ),
    Mutant(ADVANTAGES, "delta + gamma * lam * next_advantage", "delta + gamma * next_advantage", "lambda is ignored"),
    Mutant(
        LOSSES,
        "torch.maximum(free, clipped)",
        "torch.minimum(free, clipped)",
        "the optimistic bound instead of the pessimistic",
    ),
    Mutant(LOSSES, "1 + clip_high", "1 + clip_low", "one clip bound for both sides"),
    Mutant(LOSSES, "1 - clip_low,", "1 + clip_low,", "the lower clip bound has the wrong sign"),
    Mutant(
        LOSSES,
        "near = old_values + (values - old_values)",
        "near = old_values + (values - returns)",
        "the value is clipped around the wrong centre",
    ),
    Mutant(
        PREFERENCE,
        "at_least_float32(score_i) - at_least_float32(score_j)\n    soft",
        "at_least_float32(score_j) - at_least_float32(score_i)\n    soft",
        "the loser is preferred",
    ),
    Mutant(PREFERENCE, "softplus(margin - difference)", "softplus(-margin - difference)", "a margin to lose by"),
    Mutant(PREFERENCE, "target + share * (1 - 2 * target)", "target + share", "smoothing moves one side only"),
    Mutant(PREFERENCE, "(places >= place, places == place)", "(places > 0, places == place)", "chosen from all again"),
    Mutant(
        SAMPLER, "/ sampling.temperature, sampling)", "* sampling.temperature, sampling)", "sampled colder for hotter"
    ),
    Mutant(
        PLAIN,
        "(seen.cumsum(1) - 1).clamp(min=0)",
        "seen.cumsum(1).clamp(min=0)",
        "prompt positions start at 1, completion positions do not",
    ),
    Mutant(
        PLAIN,
        "position = seen.sum(1, keepdim=True)",
        "position = seen.new_full((len(alive), 1), seen.shape[1])",
        "padding counts as a position",
    ),
    Mutant(
        PLAIN,
        "[[0] * (width - len(p)) + [1] * len(p) for p in prompts]",
        "[[1] * width for p in prompts]",
        "padding is attended to",
    ),
    Mutant(PLAIN, "draws[keep]", "draws[: len(going)]", "rows that stay take the random numbers of rows that left"),
    Mutant(
        CONTINUOUS,
        "min(len(place.row.tokens) + t, place.row.limit - 1)",
        "min(len(place.row.tokens), place.row.limit - 1)",
        "between two looks of the host every token is the same one",
    ),
    Mutant(CONTINUOUS, "self.pages.renumber(going)", "pass", "rows that stay read the keys of rows that left"),
    Mutant(CONTINUOUS, "moved.get(block, block)", "block", "blocks move and their rows do not know"),
    Mutant(
        CONTINUOUS,
        "hidden.append(prompts.hidden[which])",
        "hidden.append(prompts.hidden[: len(which)])",
        "wrong prompt",
    ),
    Mutant(PAGES, "> position_r[owner_n][:, None]", ">= position_r[owner_n][:, None]", "a token is blind to itself"),
    Mutant(PAGES, "len(prompt) - 1 for prompt", "width - 1 for prompt", "a prompt ends with its padding"),
    Mutant(PAGES, ".exp_()\n", ".exp_().clamp_(max=0.5)\n", "no token counts for more than half of the likeliest"),
    Mutant(
        SAMPLER,
        "mass - ordered.softmax(-1) >= sampling.top_p",
        "mass >= sampling.top_p",
        "top-p drops the token that crosses the line",
    ),
    Mutant(LOOP, "(loss / count).backward()", "(loss / len(items)).backward()", "divided by rows, not by tokens"),
    Mutant(
        LOOP,
        "if not all(math.isfinite(each) for each in (loss, *norms.values()))",
        "if not any(math.isfinite(each) for each in (loss, *norms.values()))",
        "steps on a NaN gradient when the loss is finite",
    ),
    Mutant(
        EXPERIENCE,
        "whiten(advantages, experience.mask_cl)",
        "whiten(advantages, torch.ones_like(experience.mask_cl))",
        "advantages are whitened over padding",
    ),
    Mutant(
        EXPERIENCE,
        "reference.logprobs(rows, temperature)",
        "reference.logprobs(rows)",
        "the reference is read at another temperature",
    ),
    Mutant(SFT, "loop.evaluated(-loss)", "loop.evaluated(loss)", "ships the worst checkpoint"),
    Mutant(REWARD, "(each_xm.mean(0) *", "(each_xm.sum(0) *", "prompts with more pairs weigh more"),
    Mutant(
        JUDGED,
        "Pair(at[i], at[j], target",
        "Pair(at[j], at[i], target",
        "learns from the judgement upside down",
    ),
    Mutant(JUDGED, "drawn.sum(1) == 0", "drawn.sum(1) < 0", "prompts no member drew go unread"),
    Mutant(
        IMPROVE,
        "loss + self.config.value.coefficient *",
        "loss - self.config.value.coefficient *",
        "the critic runs from its target",
    ),
    Mutant(
        SCORES,
        "torch.where(finished, scores,",
        "torch.where(~finished, scores,",
        "finished text gets the score of unfinished text",
    ),
    Mutant(
        IMPROVE,
        "policy_loss(logp, seen.logp_cl[at, :width],",
        "policy_loss(logp, logp.detach(),",
        "the ratio is always 1, the clip never acts",
    ),
    Mutant(
        IMPROVE,
        "at = torch.tensor(chosen,",
        "at = torch.tensor([i - i % self.config.samples_per_prompt for i in chosen],",
        "all completions of a prompt learn from the first one's advantages",
    ),
    Mutant(
        IMPROVE,
        '["approx_kl"] > config.guard.max_approx_kl',
        '["approx_kl"] < config.guard.max_approx_kl',
        "stops while nothing moved",
    ),
    Mutant(
        GUARD,
        "score - price * kl",
        "score + price * kl",
        "the best checkpoint is the one furthest from the reference",
    ),
    Mutant(
        IMPROVE,
        "loss - config.entropy_bonus *",
        "loss + config.entropy_bonus *",
        "the bonus makes the policy decided",
    ),
    Mutant(
        IMPROVE,
        "/ self.mixed_tokens * self.tokens",
        "* self.tokens",
        "demonstrations weigh by their number",
    ),
    Mutant(
        GUARD,
        "[b - a for a, b in",
        "[a - b for a, b in",
        "goes back from what got better",
    ),
    Mutant(
        GUARD,
        "self.judge or self.score",
        "self.score",
        "the judge is not asked",
    ),
    Mutant(
        GUARD,
        "not score > score_before or chance",
        "chance",
        "a judge and a score that fall together are called gaming",
    ),
    Mutant(GUARD, "_both(good.judge, now.judge)", "_both(good.score, now.score)", "gaming is told by the score"),
    Mutant(
        GUARD,
        "now.distinct < least <= good.distinct",
        "least <= good.distinct < now.distinct",
        "text that all became one is shipped",
    ),
    Mutant(
        SCORES,
        "scorer = self.scorer.steady if",
        "scorer = self.scorer.score if",
        "evaluations are read at prices that move",
    ),
    Mutant(
        SCORES,
        'mean, std = self.memory[f"{self.name}_start"]',
        'mean, std = self.memory[f"{self.name}_mean"], self.memory[f"{self.name}_std"]',
        "evaluations are read on a scale that moves",
    ),
    Mutant(RL, "mine.lerp_(theirs, rate)", "theirs.lerp_(mine, rate)", "the policy follows the reference"),
    Mutant(
        OFFLINE,
        "reward = beta * at_least_float32(difference)\n    return target * softplus(margin - reward)",
        "reward = beta * at_least_float32(difference)\n    return target * softplus(margin + reward)",
        "DPO prefers the loser",
    ),
    Mutant(OFFLINE, "1 / (2 * beta), at_least", "1 / beta, at_least", "IPO aims at twice its gap"),
    Mutant(OFFLINE, ".detach().mean().clamp(min=0)", ".detach().mean()", "KTO's reference point falls below zero"),
    Mutant(
        OFFLINE,
        "(1 - lam) * value_cl[:, t + 1]",
        "(1 - lam) * value_cl[:, t]",
        "Q is taught the value before its token",
    ),
    Mutant(DPO, "ratio_cl = logp_cl - torch", "ratio_cl = logp_cl + 0 * torch", "DPO forgets its reference"),
    Mutant(
        DPO,
        "pair_losses(config, _ratios(config, seen), item.pairs).mean()",
        "pair_losses(config, _ratios(config, seen), item.pairs).sum()",
        "prompts with more pairs weigh more",
    ),
    Mutant(
        KTO,
        "following = [*items[1:], *items[:1]]",
        "following = list(items)",
        "KTO's point comes from a prompt's own completion",
    ),
    Mutant(
        ILQL,
        "value_cl = value.new_zeros(rows.mask_cl.shape).masked_scatter(rows.mask_cl, value.detach())",
        "value_cl = value.new_zeros(rows.mask_cl.shape).masked_scatter(rows.mask_cl, value)",
        "the value is trained by the targets it sets",
    ),
    Mutant(ROUNDS, "(i, j) if values[i] > values[j] else (j, i)", "(i, j)", "pairs of a round stand in any order"),
    Mutant(
        ADAPTERS,
        "layer._active_adapter, layer._disable_adapters = active, disabled",
        "layer._disable_adapters = disabled",
        "after scoring the reward model's adapter stays on",
    ),
    Mutant(
        ADAPTERS,
        "parameter.requires_grad_(id(parameter) in learns)",
        "parameter.requires_grad_(True)",
        "what is put beside the policy unfreezes the base",
    ),
    Mutant(
        VALUE,
        "self.outer.bias.sub_(mean).div_(std)",
        "self.outer.bias.div_(std).sub_(mean)",
        "first values are on another scale than scores",
    ),
    Mutant(VALUE, "switch_off(model.network)", "pass", "what the value learns changes the scores it is to foresee"),
    Mutant(
        IMPROVE,
        "with torch.set_grad_enabled(self.policy_learns):",
        "with torch.set_grad_enabled(True):",
        "the policy learns from a value that knows nothing",
    ),
    Mutant(
        QUANTISED,
        "(0, -weight.numel() % BLOCK)",
        "(0, weight.numel() % BLOCK)",
        "matrices that are no whole number of blocks are cut short",
    ),
)


def main() -> int:
    arguments = _arguments()
    for mutant in MUTANTS:
        mutant.applied_to((ROOT / mutant.file).read_text())
    chosen = [n for n in range(1, len(MUTANTS) + 1) if arguments.only in (None, n)]
    if arguments.list:
        print("\n".join(f"{n:3} {MUTANTS[n - 1].file}: {MUTANTS[n - 1].why}" for n in chosen))
        return 0
    tree = tree_digest()
    done = {} if arguments.only else earlier_results(tree)
    missing = [n for n in chosen if key(MUTANTS[n - 1]) not in done]
    if missing:
        check_unbroken([MUTANTS[n - 1] for n in missing])
    for n, result in judged(missing, arguments.jobs):
        done[key(MUTANTS[n - 1])] = result
        print(row(n, MUTANTS[n - 1], result), flush=True)
        if not arguments.only:
            write(tree, done)
    return summary([(n, MUTANTS[n - 1], done[key(MUTANTS[n - 1])]) for n in chosen])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument(
        "--only", type=int, metavar="N", choices=range(1, len(MUTANTS) + 1), help="run mutant N, keep no result"
    )
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="mutants at once (default %(default)s)"
    )
    return parser.parse_args()


def judged(numbers: Sequence[int], jobs: int) -> Iterable[tuple[int, dict[str, Any]]]:
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(judge, MUTANTS[n - 1]): n for n in numbers}
        for future in as_completed(futures):
            yield futures[future], future.result()


def judge(mutant: Mutant) -> dict[str, Any]:
    """caught: a test failed or hung. survived: all passed. invalid: the tests could not even be collected."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = copied_tree(Path(folder))
        file = copy / mutant.file
        file.write_text(mutant.applied_to(file.read_text()))
        code, output = run_tests(copy, mutant.tests)
    verdict = {0: "survived", 1: "caught", None: "caught"}.get(code, "invalid")
    failed = [line.split(" ")[1] for line in output.splitlines() if line.startswith("FAILED ")]
    by = "time limit" if code is None else failed[0] if failed else output[-2000:] if verdict == "invalid" else ""
    return {"verdict": verdict, "by": by, "seconds": round(time.monotonic() - started, 1)}


def check_unbroken(mutants: Iterable[Mutant]) -> None:
    """Tests that fail anyway would catch everything; a copy that is not the one imported would catch nothing."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = copied_tree(Path(folder))
        where = [sys.executable, "-c", "import trueup.algo; print(trueup.algo.__file__)"]
        imported = subprocess.run(where, cwd=copy, env=environment(copy), capture_output=True, text=True, check=True)
        if not Path(imported.stdout.strip()).is_relative_to(copy):
            raise SystemExit(f"error: the tests would import {imported.stdout.strip()}, not the copy")
        code, output = run_tests(copy, tests)
    if code != 0:
        raise SystemExit(f"error: the tests fail without any mutant\n{output[-4000:]}")


def copied_tree(folder: Path) -> Path:
    folder = folder.resolve()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """pytest's exit code (None when time ran out) and what it printed. Hypothesis starts from a fixed seed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, "--hypothesis-seed=0", *tests],
            cwd=copy,
            env=environment(copy),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def environment(copy: Path) -> dict[str, str]:
    """The copy comes first, and no bytecode: a same-sized edit within one second would run the old code."""
    once = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | once | {"PYTHONPATH": str(copy)}


def tree_digest() -> str:
    """Of all that decides a verdict, except this list: adding a mutant does not rerun the others."""
    files = sorted(
        f for name in COPIED for f in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
    )
    sha = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts and file != Path(__file__).resolve():
            sha.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return sha.hexdigest()


def key(mutant: Mutant) -> str:
    text = json.dumps([asdict(mutant), mutant.tests])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def earlier_results(tree: str) -> dict[str, dict[str, Any]]:
    if not RESULTS.exists():
        return {}
    earlier = json.loads(RESULTS.read_text())
    return {r["key"]: r["result"] for r in earlier["mutants"]} if earlier["tree"] == tree else {}


def write(tree: str, done: dict[str, dict[str, Any]]) -> None:
    known = [(n, m, done[key(m)]) for n, m in enumerate(MUTANTS, 1) if key(m) in done]
    rows = [{"number": n, **asdict(m), "key": key(m), "result": result} for n, m, result in known]
    caught = sum(result["verdict"] == "caught" for _, _, result in known)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    part = RESULTS.with_suffix(".part")
    part.write_text(
        json.dumps({"tree": tree, "caught": caught, "total": len(MUTANTS), "mutants": rows}, indent=1) + "\n"
    )
    part.replace(RESULTS)


def row(n: int, mutant: Mutant, result: dict[str, Any]) -> str:
    return f"{n:3}  {result['verdict']:8}  {result['seconds']:6.1f} s  {mutant.file}: {mutant.why}"


def summary(results: Sequence[tuple[int, Mutant, dict[str, Any]]]) -> int:
    caught = sum(result["verdict"] == "caught" for _, _, result in results)
    print(f"\n{caught} of {len(results)} mutants caught")
    for n, mutant, result in results:
        if result["verdict"] != "caught":
            print(row(n, mutant, result), result["by"], sep="\n")
    invalid = any(result["verdict"] == "invalid" for _, _, result in results)
    allowed = ALLOWED_SURVIVORS if len(results) == len(MUTANTS) else 0
    return 1 if invalid or len(results) - caught > allowed else 0


if __name__ == "__main__":
    sys.exit(main())
