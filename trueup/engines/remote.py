"""A model behind a server that speaks OpenAI's chat protocol: vLLM, llama.cpp, Ollama, a provider.

Its words come without log-probabilities, so it can answer prompts and judge, and cannot be trained. What a server fails
to answer is asked again, waiting longer each time; what it never answers comes back as a completion that says so in its
`meta`, for the caller to count: nothing is left out silently.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2

from ..config import RemoteSettings, Sampling
from ..errors import ConfigError, ModelError, brief
from ..records import FAILED, Completion, Prompt

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # busy, or broken for a moment
LONGEST_WAIT = 60.0
PAUSE: Callable[[threading.Event, float], object] = threading.Event.wait  # until time is up, or nobody waits any more
LARGEST = 2**24  # bytes of one answer: a server that sends without end is broken, too


class RemoteEngine:
    """`source` is the server's address and the model's name there: `http://127.0.0.1:8000/v1#name`."""

    def __init__(
        self,
        source: str,
        settings: RemoteSettings = RemoteSettings(),  # noqa: B008 - frozen
        *,
        progress: Callable[[int], object] = lambda n: None,
    ) -> None:
        self.url, self.model = address(source)
        self.settings, self.progress = settings, progress
        self.trouble: Counter[str] = Counter()  # what went wrong on the way, answered in the end or not
        self._unanswered = 0  # one after another
        self._stopped = threading.Event()

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        """In the order of the prompts. One without an answer has no text, and `meta` says why."""
        of = [prompt for prompt in prompts for _ in range(n)]
        return list(self.each(of, sampling, range(seed, seed + len(of))))

    def each(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> Iterator[Completion]:
        """One answer a prompt, as they come, in the order of the prompts."""
        self._stopped.clear()
        with self._client() as client, ThreadPoolExecutor(self.settings.at_once) as pool:
            answers = pool.map(lambda prompt, seed: self._answer(client, prompt, sampling, seed), prompts, seeds)
            try:
                for completion in answers:
                    self._count(completion)
                    self.progress(1)
                    yield completion
            finally:  # after an error, or Ctrl-C, nobody wants the rest
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def logprobs(self, completions: Sequence[Completion], temperature: float = 1.0) -> list[list[float]]:
        raise ModelError(f"{self.url} does not say how likely given words are", "use a model of this workspace")

    def _client(self) -> Any:
        name = self.settings.key
        key = os.environ.get(name, "") if name else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        host = urlsplit(self.url).hostname
        local = host in ("localhost", "127.0.0.1", "::1")
        if key and not local and self.url.startswith("http://"):
            raise ConfigError(
                f"the key in {name} would cross the network unencrypted",
                "use https, or take the key away: remote.key=''",
            )
        limits = httpx2.Limits(max_connections=self.settings.at_once)
        return httpx2.Client(headers=headers, timeout=self.settings.timeout, limits=limits, trust_env=not local)

    def _answer(self, client: Any, prompt: Prompt, sampling: Sampling, seed: int) -> Completion:
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        why = ""
        for attempt in range(self.settings.tries):
            if self._stopped.is_set():
                break
            try:
                status, headers, sent = self._send(client, body)
            except httpx2.HTTPError as error:
                why, after = _named(error), 0.0
            else:
                if status == 200:
                    read = _read(sent)
                    if read is not None:
                        return Completion(prompt, read[0], finished=read[1], model=self.model)
                    why, after = "an answer that is no chat completion", 0.0
                elif status in AGAIN:
                    why, after = f"status {status}", _seconds(headers.get("retry-after", ""))
                else:
                    raise self._refused(status, sent)
            self.trouble[why] += 1
            if attempt + 1 < self.settings.tries:
                PAUSE(self._stopped, min(max(after, 0.5 * 2**attempt), LONGEST_WAIT))
        return Completion(prompt, "", finished=False, model=self.model, meta={FAILED: why})

    def _send(self, client: Any, body: Any) -> tuple[int, Any, bytes]:
        end = time.monotonic() + self.settings.timeout
        with client.stream("POST", f"{self.url}/chat/completions", json=body) as answer:
            sent = bytearray()
            for part in answer.iter_bytes():
                sent += part
                if len(sent) > LARGEST or time.monotonic() > end:  # the client's own limit is for each read alone
                    raise httpx2.ReadTimeout("it sends without end")
            return answer.status_code, answer.headers, bytes(sent)

    def _refused(self, status: int, sent: bytes) -> ModelError:
        said = brief(sent.decode(errors="replace"), 200, 3)
        key = self.settings.key
        hint = "check the address and the model's name: SERVER/v1#MODEL"
        if status in (401, 403):
            hint = f"put its key into the environment: export {key}=..." if key else "name the variable: remote.key"
        return ModelError(f"{self.url} refused the model '{self.model}' with status {status}: {said}", hint)

    def _count(self, completion: Completion) -> None:
        """A server that is gone is no reason to wait for it a thousand times."""
        self._unanswered = self._unanswered + 1 if FAILED in completion.meta else 0
        if self._unanswered >= 2 * self.settings.at_once + 2:
            raise ModelError(
                f"{self.url} left {self._unanswered} questions running unanswered: {completion.meta[FAILED]}",
                "see whether the server runs, then go on with the run",
            )


def address(source: str) -> tuple[str, str]:
    """Of `http://127.0.0.1:8000/v1#name` the address and the name."""
    parts = urlsplit(source)
    if not parts.hostname or not parts.fragment or parts.query:
        raise ConfigError(f"'{source}' names no model of a server", "write it as http://127.0.0.1:8000/v1#MODEL")
    if parts.username or parts.password:
        raise ConfigError(
            "an address with a password would be stored with the results", "put the key into the environment"
        )
    return parts._replace(fragment="").geturl().rstrip("/"), parts.fragment


def _read(sent: bytes) -> tuple[str, bool] | None:
    """Its words, and whether it came to their end; None of anything else."""
    try:
        choice = json.loads(sent)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(text, str):
        return None
    return text.encode(errors="replace").decode().strip(), choice.get("finish_reason") != "length"


def _seconds(said: str) -> float:
    """Of `Retry-After`; a date instead of seconds is not worth reading."""
    return float(said) if said.isdecimal() else 0.0


def _named(error: Exception) -> str:
    return (
        "no answer in time" if isinstance(error, httpx2.TimeoutException) else f"no connection ({type(error).__name__})"
    )
