"""The page and the terminal summary: true to the numbers, readable, and inert whatever a model wrote."""

from __future__ import annotations

import copy
import io
import json
import math
import re
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
from browsing import CHROMIUM, CROWDED, FLAGS, PAYLOADS, needs_browser
from rich.console import Console

from trueup.reports import axes, demo_page, print_summary
from trueup.reports.visible import clipped, visible


def rising(steps: int, start: float, end: float) -> list[float]:
    return [start + (end - start) * (1 - math.exp(-6 * i / steps)) + 0.03 * math.sin(2.7 * i) for i in range(steps)]


def a_result() -> dict[str, Any]:
    """What `trueup demo` might have measured: numbers of the size they have, every optional key filled."""
    steps = list(range(41))
    pretrain = list(range(0, 501, 10))
    loss = [6.9 * math.exp(-step / 60) + 0.66 for step in pretrain]
    root_kl = [1.48 * math.sqrt(step / 40) for step in steps]
    gold = rising(41, 1.7, 4.6)
    return {
        "seed": 7,
        "n_heldout": 300,
        "seconds": 168.4,
        "cpu_seconds": 181.2,
        "people": "Five programs with fixed tastes stand in for people; no human judged anything here.",
        "stages": [
            {
                "name": "pretrain",
                "seconds": 68.2,
                "data": "12,000 posts, 530,000 tokens",
                "result": "held-out loss 0.68",
            },
            {"name": "rl", "seconds": 46.0, "data": "40 steps of 16 posts with 8 completions", "result": "KL 2.2 nats"},
        ],
        "win_rates": [
            {"name": "RL vs SFT sampled", "value": 0.912, "ci": [0.876, 0.940], "n": 300},
            {"name": "RL vs SFT greedy", "value": 0.838, "ci": [0.793, 0.876], "n": 301},
            {"name": "RL vs best-of-8", "value": 0.617, "ci": [0.561, 0.671], "n": 302},
        ],
        "reward_models": [
            {
                "name": "readout (used for RL)",
                "kind": "pooled trunk and likelihood features",
                "accuracy": 0.767,
                "ci": [0.737, 0.795],
                "gold_accuracy": 0.842,
                "n": 796,
                "ceiling": 0.823,
            },
            {"name": "plain", "kind": "last token", "accuracy": 0.668, "ci": [0.635, 0.7], "n": 796, "ceiling": 0.823},
        ],
        "over_optimisation": {
            "n": 128,
            "sqrt_kl": root_kl,
            "proxy": rising(41, -0.1, 2.0),
            "gold": gold,
            "gold_low": [value - 0.25 for value in gold],
            "gold_high": [value + 0.25 for value in gold],
            "best_of_n": {
                "n": [1, 2, 4, 8],
                "sqrt_kl": [0.0, 0.44, 0.8, 1.1],
                "proxy": [-0.1, 0.5, 0.95, 1.3],
                "gold": [1.7, 2.6, 3.3, 3.8],
            },
            "weak": {"sqrt_kl": [0.0, 3.0, 11.4], "proxy": [-0.17, 1.2, 3.5], "gold": [0.97, 1.31, -8.3]},
        },
        "gold_scores": [
            {"name": "SFT, sampled", "values": [1.7 + math.sin(i) for i in range(300)]},
            {"name": "After RL, sampled", "values": [4.4 + 0.8 * math.sin(i) for i in range(300)]},
        ],
        "samples": [
            {
                "post": f"My neighbour Dana borrowed ladder {i} and brought it back bent. How do I ask her to pay?",
                "entries": [
                    {"who": "SFT", "text": "So basically my neighbour laughed, what now?", "gold": 0.9},
                    {"who": "after RL", "text": "Neighbour Dana bent my ladder, what now?", "gold": 5.2},
                ],
            }
            for i in range(5)
        ],
        "curves": {
            "pretrain": {
                "n": 16,
                "step": pretrain,
                "loss": loss,
                "heldout_loss": [v + 0.04 if i % 5 == 0 else None for i, v in enumerate(loss)],
            },
            "reward": {"n": 32, "step": steps, "loss": rising(41, 0.7, 0.5), "accuracy": rising(41, 0.52, 0.77)},
            "rl": {
                "n": 128,
                "step": steps,
                "score": rising(41, -0.1, 2.0),
                "gold": gold,
                "kl": rising(41, 0.0, 2.2),
                "value_explained": rising(41, -0.4, 0.4),
                "length": rising(41, 17, 19),
            },
        },
        "lineage": ["policy rl  9f21c0aa", "└─ judgements  88e01b3a  (5,308 by 5 simulated people)"],
        "settings": {"rl": {"steps": 40, "optimizer": {"lr": 6e-4}}, "sampling": {"temperature": 1.0}},
        "notes": ["Demonstrators get 12% of facts wrong."],
        "versions": {"trueup": "0.1.0"},
        "commands": ["trueup lineage final", "trueup sample final", "trueup demo --seed 8 --overopt"],
    }


def hostile_result() -> dict[str, Any]:
    """The same shape with every string replaced by an attack, each in turn."""
    count = iter(range(10**6))

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(item) for key, item in value.items()}
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        return PAYLOADS[next(count) % len(PAYLOADS)] if isinstance(value, str) else value

    result: dict[str, Any] = poisoned(a_result())
    result["samples"][0]["entries"] = [{"who": text[:40], "text": text, "gold": 1.0} for text in PAYLOADS]
    result["settings"][PAYLOADS[0]] = PAYLOADS[1]
    return result


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_opens_with_what_happened_and_that_the_people_are_simulated() -> None:
    text = " ".join(Tags(demo_page(a_result())).text.replace("\u00a0", " ").split())
    start = text.index("RL beat SFT sampled on 91.2% of 300 held-out posts by gold score (95% interval 87.6 to 94.0%)")
    assert "SFT greedy on 83.8% (79.3 to 87.6%, n = 301) and best-of-8 on 61.7% (56.1 to 67.1%, n = 302)." in text
    assert start < text.index("The people are simulated and the headroom is designed in.") < text.index("How often")
    assert "Five programs with fixed tastes" in text


def test_the_sections_stand_in_the_order_of_the_argument() -> None:
    page = demo_page(a_result())
    ids = [attrs["id"] for tag, attrs in Tags(page).tags if tag == "section"]
    assert ids == [
        "win-rates",
        "reward-model",
        "over-optimisation",
        "gold-scores",
        "samples",
        "curves",
        "stages",
        "lineage",
        "settings",
        "next",
    ]
    links = [attrs["href"] for tag, attrs in Tags(page).tags if tag == "a"]
    assert links == [f"#{name}" for name in ids]


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("win_rates", "win-rates"),
        ("reward_models", "reward-model"),
        ("over_optimisation", "over-optimisation"),
        ("gold_scores", "gold-scores"),
        ("samples", "samples"),
        ("curves", "curves"),
        ("stages", "stages"),
        ("lineage", "lineage"),
        ("commands", "next"),
    ],
)
def test_what_was_not_measured_is_left_out(key: str, section: str) -> None:
    result = a_result()
    assert f'id="{section}"' in demo_page(result)
    del result[key]
    page = demo_page(result)
    assert f'id="{section}"' not in page and f'href="#{section}"' not in page


def test_an_empty_result_makes_an_honest_page() -> None:
    page = demo_page({})
    assert "no win rate was measured" in page and "The people are simulated" in page
    assert "<section" not in page and "None" not in page


def test_optional_numbers_may_be_missing() -> None:
    result = a_result()
    result["win_rates"][0]["ci"] = None
    result["reward_models"][1] = {"name": "plain", "accuracy": 0.6, "n": 9}
    result["samples"][0]["entries"] = result["samples"][0]["entries"][:1]
    del result["samples"][0]["entries"][0]["gold"], result["over_optimisation"]["best_of_n"]
    page = demo_page(result)
    assert "no interval" in page and ">None<" not in page
    print_summary(result, "page.html", Console(file=io.StringIO(), width=80))


def test_the_page_is_one_file_that_may_load_and_run_nothing() -> None:
    page = demo_page(a_result())
    tags = Tags(page).tags
    policy = next(attrs["content"] for tag, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert [tag for tag, _ in tags].index("style") > next(
        i for i, (_, attrs) in enumerate(tags) if "http-equiv" in attrs
    )
    assert not {tag for tag, _ in tags} & {"script", "img", "iframe", "object", "embed", "form", "base", "use", "image"}
    loaded = [attrs.get(name) for _, attrs in tags for name in ("src", "href", "srcset", "action") if name in attrs]
    assert all(address is not None and address.startswith(("#", "data:,")) for address in loaded)
    assert "@import" not in page and "url(" not in page
    assert set(re.findall(r"https?://[^\s\"<]*", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_ids_are_unique() -> None:
    ids = [attrs["id"] for _, attrs in Tags(demo_page(a_result())).tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 20


def test_hostile_text_anywhere_stays_text() -> None:
    friendly, hostile = Tags(demo_page(a_result())), Tags(demo_page(hostile_result()))
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in friendly.tags} | {"span"}
    attributes = {name for _, attrs in hostile.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on")]
    assert attributes <= {name for _, attrs in friendly.tags for name in attrs} | {"title"}
    assert PAYLOADS[0] in hostile.text and "{{ 7*7 }}" in hostile.text


def test_hidden_characters_are_spelled_out_on_the_page() -> None:
    page = demo_page(hostile_result())
    page.encode("utf-8")
    hidden = {char for char in page if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden == {"\n"}
    assert '<span class="hidden-char" title="RIGHT-TO-LEFT OVERRIDE">U+202E</span>' in page
    for code in ("U+2066", "U+200B", "U+001B", "U+0000", "U+E0041", "U+D800", "U+2028", "U+0085", "U+00AD"):
        assert f">{code}<" in page


def test_ordinary_text_of_any_language_is_left_alone() -> None:
    for text in ("naïve café", "日本語のテキスト", "שלום עולם", "emoji 🙂", "a\nb\tc"):
        assert visible(text) == text
    assert visible("a\u202eb") == "a<U+202E>b"


def test_a_runaway_text_is_clipped_and_says_so() -> None:
    assert clipped("abcdef", 6) == "abcdef"
    assert clipped("a" * 1006, 6) == "aaaaaa… (1,000 more characters)"
    result = a_result()
    result["samples"][0]["entries"][0]["text"] = "very " * 200_000
    assert len(demo_page(result)) < 400_000


def test_words_that_changed_are_marked_and_others_not() -> None:
    result = a_result()
    result["samples"] = [
        {
            "post": "p",
            "entries": [
                {"who": "SFT", "text": "So my ladder, broke", "gold": 1.0},
                {"who": "after RL", "text": "My ladder <b>broke</b> twice", "gold": 2.0},
                {"who": "best of 8", "text": "So my ladder broke", "gold": 2.0},
            ],
        }
    ]
    page = demo_page(result)
    assert "<del>So</del> my ladder, <del>broke</del></bdi>" in page  # the others are compared with the first
    assert "My ladder <ins>&lt;b&gt;broke&lt;/b&gt; twice</ins></bdi>" in page
    assert "So my ladder broke</bdi>" in page  # a comma makes no other word
    assert "gold 2.00" in page


def test_the_exhibits_say_in_words_what_the_curves_show() -> None:
    text = " ".join(Tags(demo_page(a_result())).text.split())
    assert (
        "From √KL 0.00 to 11.40 the proxy went from -0.17 to 3.50 and gold from 0.97 to -8.30 points; "
        "gold was highest, 1.31, at √KL 3.00." in text.replace(axes.MINUS, "-")
    )
    assert "n = 128 completions a point; bands are 95% intervals" in text
    assert "completions a point not recorded; no interval was measured" in text


def test_a_run_that_diverged_is_still_told() -> None:
    result = a_result()
    weak = result["over_optimisation"]["weak"]
    weak["gold"][-1], weak["proxy"][0] = math.nan, None
    text = " ".join(Tags(demo_page(result)).text.split())
    assert "From √KL 3.00 to 3.00 the proxy went from 1.20 to 1.20" in text  # only the point where all was measured
    weak["gold"] = [math.nan] * 3
    assert "No point has gold, proxy and KL." in demo_page(result)


def test_the_reward_model_stands_beside_its_ceiling() -> None:
    cells = Tags(demo_page(a_result())).text
    for wanted in ("76.7%", "73.7 to 79.5%", "82.3%", "93.2%", "796", "84.2%"):
        assert wanted in cells


def test_settings_are_flat_and_total_time_is_the_wall_time() -> None:
    page = demo_page(a_result())
    assert "<code>rl.optimizer.lr</code></td><td>0.0006</td>" in page
    assert "2 min 48 s" in page and "3 min 01 s of CPU time" in page


def test_the_same_result_makes_the_same_page_also_from_a_file() -> None:
    result = a_result()
    untouched = copy.deepcopy(result)
    page = demo_page(result)
    assert result == untouched
    assert demo_page(json.loads(json.dumps(result))) == page


def test_colours_are_told_apart_in_light_and_dark() -> None:
    page = demo_page(a_result())
    light, dark = page.split("@media (prefers-color-scheme: dark)", 1)
    dark = dark.split("\n  }\n", 1)[0]
    for scheme in (light, dark):
        colors = dict(re.findall(r"--(series-\d|paper|ink|muted): (#[0-9a-f]{6})", scheme))
        assert len(set(colors.values())) == len(colors) == 9
        assert contrast(colors["ink"], colors["paper"]) >= 7
        assert contrast(colors["muted"], colors["paper"]) >= 4.5
        assert all(contrast(colors[f"series-{i}"], colors["paper"]) >= 3 for i in range(1, 7))


def contrast(first: str, second: str) -> float:
    """WCAG 2: (lighter + 0.05) / (darker + 0.05)."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


# --- the terminal ----------------------------------------------------------------------------------------------------


def printed(result: dict[str, Any], page: str = "report.html", encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_summary(result, page, Console(file=stream, width=80, highlight=False))
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_the_terminal_says_what_the_page_says_in_80_columns() -> None:
    page = "/home/a-person-with-a-long-name/projects/first-experiments/trueup-demo/artifacts/demo-report.html"
    out = printed(a_result(), page)
    flat = " ".join(out.split())
    assert "RL beat SFT sampled on 91.2% of 300 held-out posts" in flat
    assert "The people are simulated and the headroom is designed in." in flat
    for row in ("pretrain 1 min 08 s 12,000 posts", "in all 2 min 48 s", "RL vs best-of-8 61.7% 56.1 to 67.1% 302"):
        assert row in flat
    assert "SFT (gold 0.90) after RL (gold 5.20)" in flat and flat.count("Neighbour Dana bent") == 5
    assert f"  {page}\n" in out  # whole, to be copied
    assert out.rstrip().endswith("trueup demo --seed 8 --overopt")
    assert all(len(line) <= 80 for line in out.splitlines() if page not in line)
    assert "\x1b" not in out  # not a terminal: no colour


def test_hostile_text_cannot_steer_the_terminal() -> None:
    out = printed(hostile_result())
    assert not [char for char in out if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char != "\n"]
    flat = re.sub(r"\s", "", out)
    assert "<U+202E>" in flat and "<U+001B>[31mred<U+0007>" in flat
    assert "[red]notmarkup[/red]" in flat
    assert len(out) < 40_000


def test_a_terminal_without_unicode_gets_plain_text() -> None:
    result = a_result()
    result["samples"][0]["post"] = "café 🙂"
    assert "caf\\xe9 \\U0001f642" in printed(result, encoding="ascii")


def test_an_empty_result_prints() -> None:
    out = printed({})
    assert "no win rate was measured" in out and "report.html" in out


def test_reports_start_without_torch() -> None:
    code = "import sys, trueup.reports; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- in a browser ----------------------------------------------------------------------------------------------------


@needs_browser
def test_in_a_browser_nothing_overflows_overlaps_loads_or_runs(tmp_path: Any) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, result in (("friendly", a_result()), ("hostile", hostile_result())):
            path = tmp_path / f"{name}.html"
            path.write_text(demo_page(result), encoding="utf-8")
            tab = browser.new_page()
            asked: list[str] = []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(path.as_uri())
            for width in (360, 390, 768, 1280):
                tab.set_viewport_size({"width": width, "height": 900})
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
                assert name == "hostile" or tab.evaluate(CROWDED) == [], width
            for summary in tab.query_selector_all("summary"):
                summary.click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= 1280
            assert tab.evaluate("window.pwned") is None
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        browser.close()
