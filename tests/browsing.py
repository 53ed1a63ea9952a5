"""What the tests of pages share: the browser, text that means harm, and whether words in a chart touch each other."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

PAYLOADS = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "</style></title></svg><svg onload=window.pwned=1>",
    "{{ 7*7 }}{% raw %}",
    '" onmouseover="window.pwned=1" x="',
    "<a href=javascript:window.pwned=1>x</a><meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<link rel=stylesheet href=http://evil.example/x.css><style>@import 'http://evil.example'</style>",
    "safe\u202egnp.exe\u2066 zero\u200bwidth \x1b[31mred\x07 nul\x00 "
    "tag\U000e0041 half\ud800 line\u2028end\x85 soft\u00ad",
    "[red]not markup[/red] [link=http://evil.example]here[/link]",
    "w" * 3000,
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs a browser: `pip install playwright` and `apt-get install chromium` (or Google Chrome on the PATH)",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
]
# Of each chart that is shown: texts that touch each other, and texts that stick out of it.
CROWDED = """() => [...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const frame = chart.getBoundingClientRect();
  const texts = frame.width ? [...chart.querySelectorAll('text')] : [];
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  const outside = ([_, r]) => r.left < frame.left - 2 || r.right > frame.right + 2 || r.bottom > frame.bottom + 2;
  const beside = (p, q) => p.left >= q.right - 1 || q.left >= p.right - 1;
  const above = (p, q) => p.top >= q.bottom - 3 || q.top >= p.bottom - 3;
  const touching = ([a, p], i) => boxes.slice(i + 1).filter(([_, q]) => !beside(p, q) && !above(p, q))
    .map(([b]) => a + ' touches ' + b);
  return [...boxes.filter(outside).map(([text]) => text + ' sticks out'), ...boxes.flatMap(touching)];
})"""


def axe_faults(page: Any, rules: Sequence[str] = ()) -> list[str]:
    """What axe-core finds on a page that it calls serious or critical; with `rules`, of those only.

    The script comes with the Python package. It is evaluated from outside, which a page's policy cannot forbid, and is
    told to fetch nothing.
    """
    from axe_playwright_python.sync_playwright import Axe

    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = list(rules)
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:200]}"
        for fault in Axe().run(page, options=options).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
