"""The colours of charts, as people with each kind of colour blindness see them.

Lines also differ by dash and are named at their ends; what is drawn without a line (bars, bands, dots) has its colour
alone, and there are seldom more than three of those. So the first three are held to more than all six.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from trueup.reports.charts import DASHES, OKABE_ITO

Colour = np.ndarray  # three numbers

ROOT = Path(__file__).parents[1] / "trueup"
# Machado, Oliveira & Fernandes (2009), severity 1.0: what somebody sees, in linear RGB.
SEEN_WITH = {
    "full colour vision": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# CIEDE2000. About 1 is what an eye can just tell of two large patches that touch, and up to about 10 two colours differ
# only on a closer look. What is thin or lies apart needs more than a patch, so: at a glance, and on a closer look.
AT_A_GLANCE, ON_A_CLOSER_LOOK = 10.0, 6.0
SRGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def palettes() -> dict[str, dict[str, list[str]]]:
    """File -> scheme -> the six colours, read from the style sheets."""
    page = (ROOT / "reports" / "page.css").read_text()
    light, dark = (dict(re.findall(r"--series-(\d): (#\w{6})", part)) for part in page.split("@media (prefers", 1))
    app = re.findall(r"--series-(\d): light-dark\((#\w{6}), (#\w{6})\)", (ROOT / "web/static/style.css").read_text())
    return {
        "page.css": {"light": in_order(light), "dark": in_order(dark)},
        "style.css": {
            "light": in_order({place: one for place, one, _ in app}),
            "dark": in_order({place: one for place, _, one in app}),
        },
    }


def in_order(found: dict[str, str]) -> list[str]:
    assert sorted(found) == list("123456"), found
    return [found[place] for place in sorted(found)]


def linear(colour: str) -> Colour:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: Colour) -> Colour:
    """CIELAB of linear RGB, with the white of sRGB."""
    t = SRGB @ np.clip(rgb, 0, 1) / SRGB.sum(axis=1)
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: Colour, other: Colour) -> float:
    """CIEDE2000, as Sharma, Wu & Dalal (2005) write it."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    grey = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    c1, c2 = np.hypot(grey * a1, b1), np.hypot(grey * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, grey * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    light, middle = (l1 + l2) / 2, (c1 + c2) / 2
    hue = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    cos = lambda degrees: np.cos(np.radians(degrees))  # noqa: E731
    t = 1 - 0.17 * cos(hue - 30) + 0.24 * cos(2 * hue) + 0.32 * cos(3 * hue + 6) - 0.2 * cos(4 * hue - 63)
    by_light = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    by_chroma = (c2 - c1) / (1 + 0.045 * middle)
    by_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * middle * t)
    around_blue = np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    rotation = -2 * np.sqrt(middle**7 / (middle**7 + 25**7)) * around_blue
    return float(np.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [  # from the table that Sharma, Wu & Dalal give to try an implementation on
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((50, 2.5, 0), (56, -27, -3), 31.9030),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_that_of_its_authors(one, other, expected):
    assert distance(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


def test_greys_stay_grey_to_everybody_and_red_is_near_green_to_some():
    for matrix in SEEN_WITH.values():
        assert matrix.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    red, green = linear("#c04040"), linear("#807020")
    far, near = (distance(lab(SEEN_WITH[who] @ red), lab(SEEN_WITH[who] @ green)) for who in (*SEEN_WITH,)[0:3:2])
    assert near < far / 3


def test_the_app_and_the_reports_have_the_same_colours():
    first, second = palettes().values()
    assert first == second


@pytest.mark.parametrize("who", SEEN_WITH)
def test_the_colours_of_plots_for_a_paper_can_be_told_apart(who):
    seen = [lab(SEEN_WITH[who] @ linear(each)) for each in OKABE_ITO]
    assert min(distance(one, other) for one, other in itertools.combinations(seen, 2)) >= AT_A_GLANCE


@pytest.mark.parametrize("who", SEEN_WITH)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("i", "j"), [*itertools.combinations(range(1, 7), 2)])
def test_any_two_colours_can_be_told_apart(who, scheme, i, j):
    needed = AT_A_GLANCE if j <= 3 else ON_A_CLOSER_LOOK
    for found in palettes().values():
        one, other = (lab(SEEN_WITH[who] @ linear(found[scheme][place - 1])) for place in (i, j))
        assert distance(one, other) >= needed, (scheme, who, i, j)


def test_lines_differ_by_their_dash_too():
    assert len(set(DASHES)) == len(DASHES) == 6
