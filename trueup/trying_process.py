"""The process that models answer in, beside a server: it holds the last two that were asked, and ends when nobody asks.

It is the first to give way: to others who compute, and to whoever needs memory.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from .chatting import Speaker
from .config import Sampling
from .errors import TrueupError, brief
from .kept_models import load_kept
from .records import Prompt
from .store import Workspace

NICER = 5  # than training and labelling


def serve(handle: int, workspace: str, threads: int, idle: float, models: int, device: str) -> None:
    """On this file descriptor: an answer to each question, until nobody asks any more."""
    os.set_inheritable(handle, False)
    _give_way()
    line, asked = socket.socket(fileno=handle), SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=(line, asked), daemon=True).start()
    from .models.device import use_threads

    use_threads(threads)
    with Workspace.open(workspace) as ws:
        held = Held(ws, models, device)
        with suppress(Empty):
            while True:
                question = json.loads(asked.get(timeout=idle))
                answer = held.answer(question)
                line.sendall(json.dumps(answer).encode() + b"\n")


class Held:
    """The models in memory, the one that was asked last at the end."""

    def __init__(self, ws: Workspace, most: int, device: str) -> None:
        self.ws, self.most, self.device = ws, most, device
        self.speakers: OrderedDict[str, Speaker] = OrderedDict()

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """`said` of each model; or an `error`, after which the process `ends` where its memory is spent."""
        from .models.device import out_of_memory

        wanted: list[str] = question["models"]
        try:
            prompt, sampling = Prompt.from_json(question["prompt"]), Sampling(**question["sampling"])
            said = []
            for ref, seed in zip(wanted, question["seeds"], strict=True):
                reply, _ = self._speaker(ref, wanted).reply(prompt, sampling, seed)  # one turn: all of it fits or none
                said.append({"text": reply.text, "finished": reply.finished})
            return {"said": said}
        except TrueupError as error:
            return {"error": error.message, "hint": error.hint}
        except Exception as error:  # whatever a library says of a model: it is an answer for who asked, and no crash
            if isinstance(error, MemoryError) or out_of_memory(error):
                hint = "ask smaller models, or one model twice"
                return {"error": "memory ran out", "hint": hint, "ends": True}
            return {"error": f"the models cannot answer: {type(error).__name__}: {brief(str(error), 300, 2)}"}

    def _speaker(self, ref: str, wanted: list[str]) -> Speaker:
        if ref not in self.speakers:
            while len(self.speakers) >= self.most:  # before loading: there are never more in memory
                del self.speakers[
                    next((each for each in self.speakers if each not in wanted), next(iter(self.speakers)))
                ]
            self.speakers[ref] = self._load(ref)
        self.speakers.move_to_end(ref)
        return self.speakers[ref]

    def _load(self, ref: str) -> Speaker:
        from .engines.sampler import Sampler

        model = load_kept(self.ws, ref, self.device)
        return Speaker("one of the models", ref, Sampler(model), model.encoder, model.context)


def _listen(line: socket.socket, asked: SimpleQueue[bytes]) -> None:
    """Beside the models, which may be at work: where the server is gone nobody waits for what they say."""
    try:
        with line.makefile("rb") as questions:
            for question in questions:
                asked.put(question)
    finally:
        os._exit(0)


def _give_way() -> None:
    with suppress(OSError):
        os.nice(NICER)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
