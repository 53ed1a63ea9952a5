"""Charts as PNG files, for places that take no SVG. Drawn by matplotlib from what the page draws."""

from __future__ import annotations

from io import BytesIO
from textwrap import fill

from ..errors import ConfigError
from .charts import OKABE_ITO
from .run_charts import Chart

INCHES, DOTS = (6.4, 4.0), 160  # a slide's width; dots an inch
NOTE = 100  # characters of a line under the title
STYLES = ("-", "--", ":", "-.")


def png(chart: Chart) -> bytes:
    """One chart in the light colours; the same lines, bands and moments as on the page."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as error:
        raise ConfigError("PNG files need matplotlib", "pip install 'trueup[plots]', or write SVG") from error
    figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
    axes = figure.subplots()
    for index, line in enumerate(chart.lines):
        color, name = OKABE_ITO[index % len(OKABE_ITO)], plain(line.label)
        if band := line.band():
            at, low, high = zip(*band, strict=True)
            if line.bars:
                axes.vlines(at, low, high, color=color, alpha=0.4, linewidth=1)
            else:
                axes.fill_between(at, low, high, color=color, alpha=0.16, linewidth=0)
        x, y = zip(*[(at, value) for at, value in zip(line.x, line.y, strict=True) if value is not None], strict=True)
        marker, style = (".", "") if line.dots else ("", STYLES[index % len(STYLES)])
        axes.plot(x, y, color=color, label=name or None, marker=marker, linestyle=style)
    for moment in chart.moments:
        axes.axvline(moment, color="#66625c", linewidth=1, linestyle=":")
    note = fill(plain(chart.note), NOTE)
    axes.set_title(plain(chart.title), loc="left", fontsize=11, fontweight="bold", pad=8 + 11 * len(note.splitlines()))
    if note:
        axes.annotate(note, (0, 1), (0, 5), "axes fraction", "offset points", va="bottom", fontsize=8, color="#66625c")
    axes.set_xlabel(plain(chart.x_label))
    axes.set_ylabel(plain(chart.y_label))
    axes.spines[["top", "right"]].set_visible(False)
    if chart.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if any(line.label for line in chart.lines):
        axes.legend(frameon=False)
    written = BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def plain(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")
