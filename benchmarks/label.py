"""How fast the labelling app is when much is stored and many people work at once.

    python -m benchmarks label --judgements 1000000 --json
    python -m benchmarks label --judgements 1000000 --postgres --json

Two workspaces, one with 10,000 judgements and one with as many as asked for, each behind a server of its own; the same
judges work at both, in turns, so that what else the machine does meets both alike. A judge looks at an item for two
seconds and sends an answer; the reply holds the next item. The last rounds are without thinking, for the throughput.
"""

from __future__ import annotations

import http.client
import json
import math
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .clusters import NoPostgres, temporary_cluster

SMALL = 10_000
LIMIT_MS, RATIO_LIMIT, PAGE_LIMIT = 50.0, 1.5, 2.0


@dataclass
class Times:
    """Milliseconds of requests, by kind; written from many threads."""

    answer: list[float] = field(default_factory=list)
    next: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Served:
    size: int
    collection: str
    port: int
    cookie: str  # its name
    owner: str  # sessions
    judges: Sequence[str]


@click.command()
@click.option("--judgements", type=click.IntRange(30), default=1_000_000, show_default=True)
@click.option("--judges", type=click.IntRange(3), default=32, show_default=True)
@click.option("--think", type=click.FloatRange(0), default=2.0, show_default=True, help="Seconds a judge thinks.")
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Of each round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="At each size, in turns.")
@click.option("--postgres", is_flag=True, help="On PostgreSQL, in a cluster made for this run.")
@click.option("--database", default="", help="A PostgreSQL URL with an empty database a size: '{}' is the size.")
@click.option("--no-quality", is_flag=True, help="Leave out the quality page, whose figures take minutes to make.")
@click.option("--json", "as_json", is_flag=True)
def label(
    judgements: int, judges: int, think: float, seconds: float, rounds: int, postgres: bool, database: str,
    no_quality: bool, as_json: bool,
) -> None:  # fmt: skip
    """The labelling app at size: next item, submit, quality page."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sizes = sorted({min(SMALL, judgements), judgements})
        urls = _databases(stack, sizes, postgres, database)
        served = [stack.enter_context(_served(folder / str(n), n, judges, urls[n], no_quality)) for n in sizes]
        paced = {each.size: Times() for each in served}
        flat_out = {each.size: Times() for each in served}
        for times, pause in ((paced, think), (flat_out, 0.0)):
            for number in range(rounds):
                for each in served if number % 2 == 0 else reversed(served):
                    _say(f"{each.size:,} judgements, {judges} judges, {pause:g} s of thinking, round {number + 1}")
                    _work(each, times[each.size], seconds, pause)
        pages = {} if no_quality else {each.size: _quality_page(each) for each in served}
    found = _result(sizes, judges, think, paced, flat_out, seconds * rounds, pages)
    found["database"] = "postgresql" if postgres or database else "sqlite"
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))
    sys.exit(0 if found["ok"] else 1)


def _databases(stack: ExitStack, sizes: Sequence[int], postgres: bool, database: str) -> dict[int, str]:
    """The URL of an empty database for each size; "" for a SQLite file in its workspace."""
    if not postgres:
        return {size: database.format(size) for size in sizes}
    if database:
        raise click.UsageError("choose one of --postgres and --database")
    try:
        cluster = stack.enter_context(temporary_cluster())
    except NoPostgres as missing:
        raise click.ClickException(str(missing)) from None
    return {size: cluster.new_database() for size in sizes}


@contextmanager
def _served(folder: Path, size: int, judges: int, database: str, no_quality: bool) -> Iterator[Served]:
    """A filled workspace behind a server process of its own."""
    command = [sys.executable, "-m", "benchmarks.label_server", str(folder), str(size), str(judges)]
    command += [database, "" if no_quality else "quality"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise click.ClickException(f"the server for {size:,} judgements did not start")
        yield Served(**json.loads(line))
    finally:
        process.terminate()
        process.wait(30)


def _work(served: Served, times: Times, seconds: float, think: float) -> None:
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_judge, args=(served, session, times, end, think, think * i / len(served.judges)))
        for i, session in enumerate(served.judges)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _judge(served: Served, session: str, times: Times, end: float, think: float, start: float) -> None:
    """One judge: not all at the same moment, as people are not."""
    browser = Browser(served, session)
    time.sleep(start)
    view = browser.timed(times, times.next, "GET", f"/c/{served.collection}/next")
    while view and "assignment" in view and time.monotonic() + think < end:
        time.sleep(think)
        answer = {"key": secrets.token_hex(16), "answer": {"choice": secrets.choice((-2, -1, 1, 2)), "active_ms": 2000}}
        reply = browser.timed(times, times.answer, "POST", f"/a/{view['assignment']}/answer", answer)
        view = reply and reply["next"]
    browser.connection.close()


class Browser:
    """A kept connection with a session, as a browser has it."""

    def __init__(self, served: Served, session: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        self.headers = {
            "Host": f"127.0.0.1:{served.port}", "Origin": f"http://127.0.0.1:{served.port}",
            "Sec-Fetch-Site": "same-origin", "X-Trueup": "1", "Cookie": f"{served.cookie}={session}",
            "Accept": "application/json",
        }  # fmt: skip

    def timed(self, times: Times, kind: list[float], method: str, path: str, body: Any = None) -> Any:
        began = time.perf_counter()
        status, raw = self.request(method, path, body)
        kind.append((time.perf_counter() - began) * 1000)
        if status != 200:
            times.failures.append(f"{method} {path}: {status} {raw[:200]!r}")
            return None
        return json.loads(raw)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        payload = None if body is None else json.dumps(body)
        headers = self.headers if body is None else self.headers | {"Content-Type": "application/json"}
        self.connection.request(method, path, payload, headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read()


def _quality_page(served: Served) -> float:
    """Seconds until the page is there, the best of three."""
    browser, best = Browser(served, served.owner), math.inf
    browser.headers["Accept"] = "text/html"
    for _ in range(3):
        began = time.perf_counter()
        status, raw = browser.request("GET", f"/c/{served.collection}/quality")
        best = min(best, time.perf_counter() - began)
        if status != 200:
            raise click.ClickException(f"the quality page answered {status}: {raw[:200]!r}")
    return round(best, 3)


def _result(
    sizes: Sequence[int], judges: int, think: float, paced: dict[int, Times], flat_out: dict[int, Times],
    seconds: float, pages: dict[int, float],
) -> dict[str, Any]:  # fmt: skip
    at = {}
    for size in sizes:
        one, all_out = paced[size], flat_out[size]
        at[str(size)] = {
            "submit_and_next_ms": _spread(one.answer),
            "next_ms": _spread(one.next),
            "answers_a_second_without_thinking": round(len(all_out.answer) / seconds, 1),
            "without_thinking_ms": _spread(all_out.answer),
            "failures": [*one.failures, *all_out.failures][:10],
        } | ({"quality_page_seconds": pages[size]} if pages else {})
    small, large = (at[str(size)]["submit_and_next_ms"]["p95"] for size in (sizes[0], sizes[-1]))
    ratio = round(large / small, 3)
    checks = {
        f"p95 under {LIMIT_MS:g} ms": max(at[str(sizes[-1])][k]["p95"] for k in ("submit_and_next_ms", "next_ms"))
        < LIMIT_MS,
        f"p95 at most {RATIO_LIMIT} times that of {sizes[0]:,}": ratio <= RATIO_LIMIT,
        "no request failed": not any(each["failures"] for each in at.values()),
    }
    if pages:
        checks[f"quality page under {PAGE_LIMIT:g} s"] = max(pages.values()) < PAGE_LIMIT
    return {
        "judgements": sizes[-1], "judges": judges, "think_seconds": think, "at": at, "p95_ratio": ratio,
        "checks": checks, "ok": all(checks.values()),
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"n": 0, "p50": math.nan, "p95": math.nan, "p99": math.nan, "max": math.nan}
    at = {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 2) for p in (50, 95, 99)}
    return {"n": len(ordered), **at, "max": round(ordered[-1], 2)}


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['judges']} judges who think {found['think_seconds']:g} s; milliseconds p50 / p95 / p99 (n)"]
    for size, each in found["at"].items():
        one, first = each["submit_and_next_ms"], each["next_ms"]
        lines.append(
            f"  {int(size):>9,} judgements: submit and next {one['p50']} / {one['p95']} / {one['p99']} ({one['n']}), "
            f"next alone {first['p50']} / {first['p95']} ({first['n']}), "
            f"{each['answers_a_second_without_thinking']} answers a second without thinking"
            + (f", quality page {each['quality_page_seconds']} s" if "quality_page_seconds" in each else "")
        )
        lines += [f"    {failure}" for failure in each["failures"]]
    lines.append(f"  p95 at the larger size is {found['p95_ratio']} times that at the smaller")
    return "\n".join([*lines, *(f"  {'ok  ' if good else 'MISS'}  {what}" for what, good in found["checks"].items())])


def _say(line: str) -> None:
    click.echo(line, err=True)
