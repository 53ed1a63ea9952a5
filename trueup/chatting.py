"""A conversation with one model, or with two at once, and what the person thinks of the replies.

Feedback goes the way of all judgements (`voting`), as said by whoever sits at the machine.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from . import voting
from .config import ModelSettings, RemoteSettings, Sampling, TaskKind
from .errors import DataError, ModelError
from .inputs import REMOTE, WRITERS, Ref, find_input, note_inputs
from .kept_models import shipped
from .records import FAILED, Completion, Message, Prompt
from .store import Workspace, people

if TYPE_CHECKING:
    from .engines.shared_base import Bases
    from .ports import Engine
    from .text.chat import Encoder


@dataclass(frozen=True)
class Speaker:
    """A model that answers: `encoder` and `context` where its weights are here."""

    name: str
    artifact: str
    engine: Engine
    encoder: Encoder | None = None
    context: int = 0

    def reply(self, prompt: Prompt, sampling: Sampling, seed: int) -> tuple[Completion, int]:
        """Its reply to the conversation, and how many of the oldest messages did not fit."""
        fitted: Prompt | None = prompt
        if self.encoder is not None:
            fitted = self.encoder.fit(prompt, self.context - sampling.max_new_tokens)
        if fitted is None:
            raise ModelError(
                f"that does not fit into the {self.context} tokens that {self.name} can see",
                "say it in fewer words, or ask for fewer new tokens",
            )
        (said,) = self.engine.sample([fitted], sampling, seed=seed)
        if why := said.meta.get(FAILED):
            raise ModelError(f"{self.name} gives no reply: {why}", "see whether its server runs, then say it again")
        return said, len(prompt.messages) - len(fitted.messages)


class Speakers:
    """Models made ready to answer. Adapters on one base share it: from one to another is a switch, no loading."""

    def __init__(self, ws: Workspace, settings: ModelSettings, remote: RemoteSettings) -> None:
        self.ws, self.settings, self.remote = ws, settings, remote

    def get(self, ref: Ref) -> Speaker:
        """A model of the workspace, a folder, a hub id, or one behind a server."""
        found = find_input(self.ws, "model", shipped(self.ws, ref), WRITERS)
        artifact = note_inputs(self.ws, {"model": found})["model"]
        name = ref if isinstance(ref, str) else ref.id
        if found.kind == REMOTE:
            from .engines.remote import RemoteEngine

            return Speaker(name, artifact.id, RemoteEngine(found.folders[0], self.remote))
        writer = self._bases.writer(list(found.folders), artifact.id)
        return Speaker(name, artifact.id, writer, writer.model.encoder, writer.model.context)

    @cached_property
    def _bases(self) -> Bases:
        from .engines.shared_base import Bases

        return Bases(self.settings)


@dataclass
class Chat:
    """`shown` are the last replies in the order in which they are shown, which is drawn anew each time where two models
    speak: nobody is to know which is which before they have chosen."""

    ws: Workspace
    speakers: list[Speaker]
    sampling: Sampling
    name: str = "chat"
    seed: int = 0
    system: str = ""
    messages: list[Message] = field(default_factory=list)
    shown: list[tuple[Speaker, Completion]] = field(default_factory=list)
    turn: int = 0
    forgotten: int = 0  # of the oldest messages, in the last turn
    shown_at: float = 0.0
    now: Callable[[], float] = time.time

    def say(self, text: str) -> list[str]:
        """The replies to it. One that nobody chose before is taken to be the first that was shown."""
        self._take(0)
        asked = [*self.messages, Message("user", text)]
        prompt = Prompt(tuple([Message("system", self.system)] * bool(self.system) + asked))
        found = []
        for place, each in enumerate(self.speakers):
            said, dropped = each.reply(prompt, self.sampling, self.seed + 1000 * self.turn + place)
            self.forgotten = max(dropped, self.forgotten if place else 0)
            found.append((each, replace(said, prompt=prompt)))
        Random(f"{self.seed}/{self.turn}").shuffle(found)
        self.turn += 1
        self.messages, self.shown, self.shown_at = asked, found, self.now()
        return [said.text for _, said in found]

    def anew(self) -> None:
        self.messages, self.shown = [], []

    def thumb(self, up: bool) -> str:
        """Of the last reply; returns the id of the judgement."""
        return self._judged("thumbs", lambda order: {"thumbs": ["up" if up else "down"]})

    def edit(self, text: str) -> str:
        """The last reply as it ought to have been; the conversation goes on with that."""
        identity = self._judged("edit", lambda order: {"edited": 0, "text": text})
        who, said = self.shown[0]
        self.shown = [(who, replace(said, text=text))]
        return identity

    def prefer(self, place: int | None) -> str:
        """The reply shown at `place`, or neither; the conversation goes on with it. Returns the judgement's id."""
        assert len(self.shown) == 2
        if self.shown[0][1].text == self.shown[1][1].text:
            raise DataError("both said the same: neither is better", "go on with the conversation")
        identity = self._judged("pair", voting.prefers(place))
        self._take(place or 0)
        return identity

    def _take(self, place: int) -> None:
        """The reply that the conversation goes on with."""
        if self.shown:
            self.messages = [*self.messages, Message("assistant", self.shown[place][1].text)]
            self.shown = []

    def _judged(self, task: TaskKind, payload: voting.Payload) -> str:
        me = people.local_owner(self.ws.database, getpass.getuser(), self.now())
        return voting.vote(
            self.ws, self._occasion, task, [_reply(*each) for each in self.shown], payload,
            person=me.id, key=f"{self.name} {self.turn} {time.time_ns()}", shown=self.shown_at, now=self.now,
        )  # fmt: skip

    @property
    def _occasion(self) -> voting.Occasion:
        return voting.Occasion("chat", self.name, {"chat": self.name, "turn": self.turn})


def _reply(who: Speaker, said: Completion) -> voting.Reply:
    return voting.Reply(said, who.artifact, {f"model {who.artifact[:8]}": who.artifact})
