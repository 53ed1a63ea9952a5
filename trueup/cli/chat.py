"""`trueup chat`: talk to a model, or to two at once, and say what you think of the replies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..errors import TrueupError
from .command import Command, Result, json_wanted, workspace
from .text import printable

if TYPE_CHECKING:
    from ..chatting import Chat, Speakers

HELP = """\
/up  /down          the last reply is good, or bad
/edit [TEXT]        the last reply as it ought to be; without a text in your editor
/1  /2  /same       with two models: which reply is better
/model REF          talk to another model, such as another adapter
/model 2 REF        with two models: in place of the second; replies stay in an order drawn anew
/temperature T      how freely it is drawn; 0 is greedy
/new                begin anew
/help               this
/quit               or Ctrl-D"""


@click.command(
    "chat",
    cls=Command,
    examples="""
    trueup chat tuned
    trueup chat tuned sft
    trueup chat http://127.0.0.1:8000/v1#qwen3 --system "Answer in one sentence."
    """,
)
@click.argument("model", metavar="MODEL")
@click.argument("other", metavar="[OTHER]", required=False)
@click.option("--system", default="", metavar="TEXT", help="A system message that stands before all others.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True, help="0 is greedy.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Of a reply.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every reply.")
@click.option("--threads", type=click.IntRange(min=0), default=0, show_default=True, help="CPU threads; 0: all cores.")
@click.option("--name", default="chat", show_default=True, help="Feedback goes into collections of this name.")
@click.option("--keep", is_flag=True, help="Feedback may be stored, without asking.")
def chat(
    model: str,
    other: str | None,
    system: str,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    threads: int,
    name: str,
    keep: bool,
) -> Result:
    """Talk to MODEL in the terminal, or to two models at once, without knowing which reply is whose.

    Thumbs, edits and choices become judgements, with the conversation they are about, once you agree to it: nothing is
    stored before. `trueup feedback freeze chat-pair` makes a set of them. /help lists what can be said.
    """
    from ..chatting import Chat, Speakers
    from ..config import ModelSettings, RemoteSettings, Sampling
    from ..store.artifacts import check_name

    check_name(name)
    if threads:
        from ..models.device import use_threads

        use_threads(threads)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    with workspace() as ws:
        _say(f"loading {' and '.join(filter(None, (model, other)))} ...")
        refs = [ref for ref in (model, other) if ref]
        models = Speakers(ws, ModelSettings(), RemoteSettings())
        talking = Chat(ws, [models.get(ref) for ref in refs], sampling, name=name, seed=seed, system=system)
        talk = Talk(models, talking, keep, json_wanted())
        _say("/help lists what can be said; Ctrl-D ends it")
        talk.go()
        said = [{"role": m.role, "content": m.content} for m in talk.chat.messages]
        said += [{"role": "assistant", "content": reply.text} for _, reply in talk.chat.shown[:1]]
        found = {"turns": talk.chat.turn, "judgements": talk.kept, "messages": said}
    return Result(found, f"{found['turns']} turns, {len(talk.kept)} judgements kept" if talk.kept else "")


class Talk:
    """Lines in, lines out. What a model says may move a terminal's cursor; it is shown as codes."""

    def __init__(self, models: Speakers, chat: Chat, agreed: bool, quiet: bool) -> None:
        self.models, self.chat, self.agreed, self.quiet = models, chat, agreed, quiet
        self.kept: list[str] = []

    def go(self) -> None:
        while (line := _asked("you: ")) is not None:
            try:
                if line.startswith("/"):
                    if line.split()[0] in ("/quit", "/exit"):
                        return
                    self.command(*line.partition(" ")[::2])
                elif line.strip():
                    self.reply(line)
            except TrueupError as error:  # one mistake does not end a conversation
                _say(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def reply(self, line: str) -> None:
        replies = self.chat.say(line)
        if self.chat.forgotten:
            _say(f"the oldest {self.chat.forgotten} messages did not fit and are no longer seen")
        for place, text in enumerate(replies, 1):
            who = self.chat.speakers[0].name if len(replies) == 1 else str(place)
            click.echo(printable(f"{who}: {text or '(nothing)'}"), err=self.quiet)

    def command(self, word: str, rest: str) -> None:
        known: dict[str, Callable[[str], object]] = {
            "/help": lambda _: _say(HELP),
            "/up": lambda _: self.thumb(True),
            "/down": lambda _: self.thumb(False),
            "/edit": self.edit,
            "/1": lambda _: self.prefer(0),
            "/2": lambda _: self.prefer(1),
            "/same": lambda _: self.prefer(None),
            "/model": self.switch,
            "/temperature": self.warm,
            "/new": lambda _: self.anew(),
        }
        if word not in known:
            _say(f"there is no {word}\n{HELP}")
            return
        known[word](rest.strip())

    def thumb(self, up: bool) -> None:
        if self._about(1):
            self._keep(lambda: self.chat.thumb(up))

    def edit(self, text: str) -> None:
        if self._about(1):
            if not text and not sys.stdin.isatty():
                _say("say the text: /edit TEXT")
                return
            written = text or click.edit(self.chat.shown[0][1].text) or ""
            if not written.strip():
                _say("nothing was changed")
            elif self._keep(lambda: self.chat.edit(written.strip())):
                _say("the conversation goes on with your text")

    def prefer(self, place: int | None) -> None:
        if self._about(2):
            names = [who.name for who, _ in self.chat.shown]
            if self._keep(lambda: self.chat.prefer(place)):
                _say(", ".join(f"{i} was {name}" for i, name in enumerate(names, 1)))

    def switch(self, said: str) -> None:
        """The first model, or the one whose number comes before the name."""
        number, _, rest = said.partition(" ")
        is_numbered = number in ("1", "2") and bool(rest.strip())
        place, ref = (int(number) - 1, rest.strip()) if is_numbered else (0, said)
        if not ref:
            _say("name a model: /model REF, or /model 2 REF")
        elif place >= len(self.chat.speakers):
            _say("there is one model: start with two, trueup chat MODEL OTHER")
        else:
            self.chat.speakers[place] = self.models.get(ref)
            which = "" if len(self.chat.speakers) == 1 else f" in place of the {('first', 'second')[place]}"
            _say(f"now {ref}{which}; the conversation goes on")

    def warm(self, said: str) -> None:
        with suppress(ValueError):
            if 0 <= (value := float(said)) < float("inf"):
                self.chat.sampling = self.chat.sampling.model_copy(update={"temperature": value})
                _say(f"temperature {value:g}")
                return
        _say("a temperature is a number of at least 0")

    def anew(self) -> None:
        self.chat.anew()
        _say("begun anew")

    def _about(self, replies: int) -> bool:
        if len(self.chat.shown) == replies:
            return True
        if not self.chat.shown:
            _say("there is no reply to judge yet")
        else:
            _say("with one model: /up, /down or /edit" if replies == 2 else "with two models: /1, /2 or /same")
        return False

    def _keep(self, judge: Callable[[], str]) -> bool:
        """Only with consent, asked once."""
        if not self.agreed:
            said = _asked(
                "May this, and the conversation it is about, be stored in the workspace as a judgement? [y/N] "
            )
            if (said or "").strip().lower() not in ("y", "yes"):
                _say("nothing is stored")
                return False
            self.agreed = True
        self.kept.append(judge())
        _say("kept")
        return True


def _asked(prompt: str) -> str | None:
    """A line of what is typed; None at its end."""
    if sys.stdin.isatty():
        with suppress(ImportError):  # lines can be taken back and changed, where the system knows how
            import readline  # noqa: F401
    try:
        click.echo(prompt, nl=False, err=True)
        return input()
    except EOFError:
        return None


def _say(text: str) -> None:
    click.echo(printable(text), err=True)
