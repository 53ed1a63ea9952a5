"""Hostile text as safe HTML: what a model or a person wrote, readable and inert.

Three walls, each enough alone: markdown-it renders no HTML of its source, nh3 lets a short list of tags through, and
the policy of the page (`security.content_policy`) loads and runs nothing. Images would tell their server who is
reading, so there are none; a link shows where it leads and is not one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from ..reports.visible import clipped, code_point, parts

RENDER_LIMIT = 20_000  # characters; longer text is shown as it was typed
DEEPEST = 100  # blocks in blocks
SHOWN_LIMIT = 1_000_000  # characters; a browser gives up somewhere above
TAGS = frozenset(
    "p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s table thead tbody tr th td span".split()
)
ATTRIBUTES = {"span": {"class", "title"}, "ol": {"start"}}


@lru_cache(maxsize=1024)
def render(text: str, headings: int = 0) -> Markup:
    """Markdown as HTML that is safe anywhere in a page.

    Headings become bold paragraphs: those of a text are none of the page, and a screen reader's list would be full of
    them. `headings`, for what we ask people to read, is the level at which they begin instead.
    """
    if len(text) > RENDER_LIMIT:
        return raw(text)
    tokens = _MARKDOWN.parse(text)
    if any(token.level >= DEEPEST - 1 for token in tokens):
        return raw(text)  # what is nested deeper would be left out: a place to hide something from the reader
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, headings - 1 + int(token.tag[1:]))}" if headings else ""
    return Markup(
        nh3.clean(
            _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}),
            tags=set(TAGS),
            attributes=ATTRIBUTES,
            link_rel=None,
        )
    )


def raw(text: str) -> Markup:
    """The text as it was typed, in a `<pre>`."""
    return Markup('<pre class="raw">{}</pre>').format(shown(clipped(text, SHOWN_LIMIT)))


def shown(text: object) -> Markup:
    """One run of text, escaped, with characters that hide or reorder spelled out."""
    return Markup("").join(_mark(run) if hidden else escape(run) for run, hidden in parts(str(text)))


def _mark(char: str) -> Markup:
    return Markup('<span class="hidden-mark" title="a character that cannot be seen">{}</span>').format(
        code_point(char)
    )


def _close_link(tokens: Sequence[Token], index: int, *_: Any) -> str:
    """After the words of a link, where it leads: seen, and not followed by a slip of the mouse."""
    opened = next(token for token in reversed(tokens[:index]) if token.type == "link_open")
    title = f' "{opened.attrGet("title")}"' if opened.attrGet("title") else ""
    return str(Markup('</span> <span class="target">({})</span>').format(shown(f"{opened.attrGet('href')}{title}")))


def _open_heading(tokens: Sequence[Token], index: int, *_: Any) -> str:
    return f"<{tokens[index].tag}>" if tokens[index].tag else "<p><strong>"


def _close_heading(tokens: Sequence[Token], index: int, *_: Any) -> str:
    return f"</{tokens[index].tag}>\n" if tokens[index].tag else "</strong></p>\n"


def _code(tokens: Sequence[Token], index: int, *_: Any) -> str:
    """A block of code, with what stands beside its fence: it could be any text."""
    token = tokens[index]
    info = (
        Markup('<p><span class="target">{}</span></p>').format(shown(token.info.strip())) if token.info.strip() else ""
    )
    return f"{info}<pre><code>{shown(token.content)}</code></pre>\n"


def _build() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False, "maxNesting": DEEPEST})
    made.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline", "reference"])
    assert isinstance(made.renderer, RendererHTML)
    rules: dict[str, Any] = made.renderer.rules
    rules["text"] = lambda tokens, index, *_: str(shown(tokens[index].content))
    rules["code_inline"] = lambda tokens, index, *_: f"<code>{shown(tokens[index].content)}</code>"
    rules["fence"] = rules["code_block"] = _code
    rules["heading_open"], rules["heading_close"] = _open_heading, _close_heading
    rules["link_open"] = lambda *_: '<span class="link">'
    rules["link_close"] = _close_link
    return made


_MARKDOWN = _build()
