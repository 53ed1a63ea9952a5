"""The one place where messages become tokens, and where a row's completion (what the loss counts) begins.

`PromptFormat` is text only: template, system text, the strings that end a turn. It is stored with the model at SFT,
and every later stage, the sampler, the reward model and the export read it there. `Encoder` joins it to a tokenizer.

Three promises hold here and nowhere else:

- A completion ends with exactly one stop token, and the pad token is never one of them.
- What a message says cannot end its turn: '<|im_end|>' typed by a user is encoded as ordinary text. Before rendering,
  each special string inside a message is replaced by one private-use character, so the special strings of the rendering
  are the template's own. The text comes back when the stretches between them are encoded.
- A completion is never cut. A row too long loses its oldest turns (a system text stays); if its last turn alone does
  not fit, there is no row, and the caller counts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from functools import cached_property, lru_cache
from os.path import commonprefix
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from tokenizers import AddedToken, Tokenizer

from ..config import PromptSettings
from ..errors import ModelError
from ..records import Message, Prompt, digest
from .lengths import LONG, Lengths

PLAIN_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{% if message.role == 'assistant' %}{{ 'Answer: ' + message.content + eos_token }}"
    "{% elif message.role == 'user' %}{{ 'Prompt: ' + message.content }}"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAnswer:' }}{% endif %}"
)
"""For base models without a chat template: 'Prompt: ...', an empty line, 'Answer:', the completion, EOS."""

FILE = "prompt_format.json"
_PROBE = "zq7Reply7qz"  # a reply that no template contains
_CACHED_PROMPTS = 4096
# Tokens that serve as padding where a tokenizer declares none, or declares a stop token as it (in order of preference).
_PADS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>", "[UNK]", "<|unk|>")


@dataclass(frozen=True)
class PromptFormat:
    """How messages become text. Made by `prompt_format` at SFT; equal formats have equal fingerprints."""

    template: str
    system: str = ""
    stop: tuple[str, ...] = ()
    bos: str = ""
    eos: str = ""
    pad: str = ""
    date: str = ""  # what templates that print today's date print: fixed, or tomorrow's prompts differ from today's

    @property
    def stops(self) -> tuple[str, ...]:
        """Every string that ends a completion: `stop`, and EOS always."""
        return tuple(dict.fromkeys(s for s in (*self.stop, self.eos) if s))

    @property
    def fingerprint(self) -> str:
        return digest(asdict(self))[:16]

    def render_prompt(self, prompt: Prompt) -> str:
        """Everything up to the point where the assistant begins to write."""
        return self.render(self.turns(prompt), generation=True)

    def render_completion(self, prompt: Prompt, text: str) -> str:
        """Exactly what follows the prompt when the assistant replies `text`, up to and with the end of its turn."""
        guarded = guard(self.turns(prompt, text), _any_of((*self.stops, self.bos, self.pad)))
        tail = self.split(guarded.messages)[1]
        end = _any_of(self.stops).search(tail)
        return guarded.restore(tail[: end.end()] if end else tail + self.eos)

    def turns(self, prompt: Prompt, reply: str | None = None) -> tuple[Message, ...]:
        """The messages to render: the system text first where the prompt has none, the reply last."""
        first = () if not self.system or prompt.messages[0].role == "system" else (Message("system", self.system),)
        last = () if reply is None else (Message("assistant", reply),)
        return (*first, *prompt.messages, *last)

    def split(self, messages: Sequence[Message]) -> tuple[str, str]:
        """A conversation that ends with a reply, as (prompt, what follows): the first must be a prefix of the whole."""
        head, whole = self.render(messages[:-1], generation=True), self.render(messages, generation=False)
        if not whole.startswith(head):
            at = len(commonprefix([head, whole]))
            raise ModelError(
                f"the chat template is not prefix-stable: at character {at} the prompt reads {head[at : at + 40]!r} "
                f"but the same prompt with its reply reads {whole[at : at + 40]!r}",
                "a reply must follow its prompt unchanged; set [prompt] template to one that leaves earlier text alone",
            )
        return head, whole[len(head) :]

    def render(self, messages: Sequence[Message], *, generation: bool) -> str:
        names: dict[str, Any] = {"bos_token": self.bos, "eos_token": self.eos, "pad_token": self.pad}
        names |= {"tools": None, "documents": None, "add_generation_prompt": generation}
        try:
            return _compiled(self.template, self.date).render(
                messages=[{"role": m.role, "content": m.content} for m in messages], **names
            )
        except Exception as error:  # the template is foreign code: whatever it raises is its fault, not ours
            roles = ", ".join(m.role for m in messages)
            raise ModelError(
                f"the chat template fails on a conversation of {roles}: {str(error) or type(error).__name__}",
                "set [prompt] template, or check which roles and orders the model's template accepts",
            ) from error

    def save(self, folder: Path | str) -> Path:
        path = Path(folder) / FILE
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path | str) -> PromptFormat:
        path = Path(folder) / FILE
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            return cls(**(row | {"stop": tuple(row["stop"])}))
        except FileNotFoundError:
            raise ModelError(f"{path} is missing: this model has no prompt format", "run `trueup train sft`") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"{path} is not a prompt format: {error}", "it was edited, or made by a newer trueup"
            ) from error


def prompt_format(
    tokenizer: Tokenizer, settings: PromptSettings, *, template: str = "", bos: str = "", eos: str = "", pad: str = ""
) -> PromptFormat:
    """The format of a model: the settings' template, else the model's own (`template`), else the plain one.

    The token that the template puts after a reply joins the stop tokens: a base model's EOS often differs from it.
    """
    chosen = settings.template or template or PLAIN_TEMPLATE
    today = date.today().isoformat() if "strftime_now" in chosen else ""
    made = PromptFormat(chosen, settings.system, settings.stop, bos, eos, pad, today)
    end = _any_of(_special_tokens(tokenizer, made.stops)).search(_around_reply(made)[1])
    if end is None or end.group() in made.stops:
        return made
    return PromptFormat(chosen, settings.system, (*settings.stop, end.group()), bos, eos, pad, today)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of training: the loss counts `tokens[completion_start:]`. `truncated`: its oldest turns were left out."""

    tokens: tuple[int, ...]
    completion_start: int
    truncated: bool = False


class Encoder:
    """A tokenizer and a prompt format: the only way trueup turns records into tokens and tokens into text."""

    def __init__(self, tokenizer: Tokenizer, format: PromptFormat) -> None:
        self.tokenizer = _unlimited(tokenizer)
        self.format = format
        tokens = _special_tokens(tokenizer, format.stops)
        missing = [s for s in format.stops if s not in tokens]
        if missing or not format.stops:
            raise ModelError(
                f"{missing[0]!r} cannot end a completion: it is not a special token of the tokenizer"
                if missing
                else "no token ends a completion: the tokenizer has no EOS and [prompt] stop is empty",
                "name an added token of the tokenizer in [prompt] stop; ordinary text would end turns anywhere",
            )
        self.vocabulary = int(tokenizer.get_vocab_size(with_added_tokens=True))
        self.stop_ids = frozenset(tokens[s][0] for s in format.stops)
        self.eos_id = tokens[format.eos or format.stops[0]][0]
        self.pad_id, self.pad_note = _choose_pad(tokenizer, format, self.stop_ids, self.vocabulary)
        self._known = self.vocabulary
        self._special = tokens
        self._special_ids = frozenset(number for number, _ in tokens.values())
        self._pattern = _any_of(tokens)
        lead, tail = _around_reply(format)
        end = _any_of(format.stops).search(tail)
        self._lead = self._pattern.sub("", lead)
        self._trail = self._pattern.sub("", tail[: end.start()] if end else tail)
        self._lengths = Lengths(self.tokenizer)
        self._cached_prompt = lru_cache(_CACHED_PROMPTS)(self._encode_prompt)

    def restrict(self, embeddings: int) -> None:
        """The model has no more embeddings than this: tokens were added to its tokenizer and not to it."""
        if beyond := sorted(number for number in self.stop_ids if number >= embeddings):
            raise ModelError(
                f"{self.tokenizer.id_to_token(beyond[0])!r} ends completions, but the model has no embedding for it "
                f"(token {beyond[0]} of {embeddings})",
                "resize the model's embeddings to its tokenizer and save it again, or name another [prompt] stop",
            )
        self._known = min(self.vocabulary, embeddings)
        if self.pad_id >= self._known:
            self.pad_id, self.pad_note = _choose_pad(self.tokenizer, self.format, self.stop_ids, self._known)

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        return self._cached_prompt(prompt)

    def completion(self, prompt: Prompt, text: str, *, finished: bool = True) -> tuple[int, ...]:
        """The tokens that follow `prompt(prompt)` when the reply is `text`: one stop token, at the end.

        `finished=False` leaves the stop token out: text that was cut off at a length limit.
        """
        guarded = guard(self.format.turns(prompt, text), self._pattern)
        head, tail = self.format.split(guarded.messages)
        start = self.prompt(prompt)
        # Encoded with its prompt, as the sampler meets it; alone only where a token would span the border.
        tokens = self._encode(guarded, head + tail)
        tokens = tokens[len(start) :] if tokens[: len(start)] == start else self._encode(guarded, tail)
        end = self._end(tokens)
        stop = tokens[end : end + 1] or (self.eos_id,)
        return tokens[:end] + stop if finished else tokens[:end]

    def shortened(self, tokens: Sequence[int], room: int) -> Sequence[int]:
        """A completion read only as far as it fits: it has no end then."""
        return tokens[:room]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion: up to the first stop token, without special tokens and the template's own text."""
        end = self._end(tokens)
        text = str(self.tokenizer.decode(list(tokens[:end]), skip_special_tokens=True)).removeprefix(self._lead)
        return text.removesuffix(self._trail) if end < len(tokens) else text

    def encode_row(self, prompt: Prompt, completion: str, max_tokens: int) -> Row | None:
        """Prompt and completion in at most `max_tokens` tokens, or None: drop the row and count it."""
        fitted = self.fit_with(prompt, [completion], max_tokens)
        if fitted is None:
            return None
        start, (reply,) = self.prompt(fitted[0]), fitted[1]
        return Row(start + reply, len(start), fitted[0] is not prompt)

    def fit_with(
        self, prompt: Prompt, completions: Sequence[str], max_tokens: int
    ) -> tuple[Prompt, list[tuple[int, ...]]] | None:
        """As `fit`, with room for the longest of its completions, whose tokens come along."""
        least = max(self.fewest(prompt, completion) for completion in completions)
        start = next(self._perhaps(prompt, max_tokens - least), None)
        if start is None:
            return None
        replies = [self.completion(start, completion) for completion in completions]
        fitted = self.fit(start, max_tokens - max(map(len, replies)))
        if fitted is None or fitted is start:
            return None if fitted is None else (fitted, replies)
        return fitted, [self.completion(fitted, completion) for completion in completions]

    def fit(self, prompt: Prompt, room: int) -> Prompt | None:
        """The prompt itself if it fits in `room` tokens, else without its oldest turns, else None.

        Whole turns, because a prompt that begins inside a message is one the model never meets in use.
        """
        return next((p for p in self._perhaps(prompt, room) if len(self.prompt(p)) <= room), None)

    def too_long(self, prompt: Prompt, completions: Iterable[str], max_tokens: int) -> bool:
        """Whether the prompt with one of its completions surely has more tokens, told without tokenising any of it."""
        least = max((self.fewest(prompt, completion) for completion in completions), default=0)
        return self.fewest(prompt) + least > max_tokens

    def fewest(self, prompt: Prompt, completion: str | None = None) -> int:
        """At least so many tokens `prompt`, or that completion of it, has."""
        if sum(len(m.content) for m in prompt.messages) + len(completion or "") < LONG:
            return 0
        guarded = guard(self.format.turns(prompt, completion), self._pattern)
        if completion is None:
            return self._lengths.fewest(guarded.restore(self.format.render(guarded.messages, generation=True)))
        tail = self.format.split(guarded.messages)[1]
        end = _any_of(self.format.stops).search(tail)
        return self._lengths.fewest(guarded.restore(tail[: end.end()] if end else tail))

    def _perhaps(self, prompt: Prompt, room: int) -> Iterator[Prompt]:
        """The prompt, and what is left of it without its oldest turns, but for what surely has more tokens."""
        return (p for p in (prompt, *_without_oldest_turns(prompt)) if self.fewest(p) <= room)

    def _encode_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        guarded = guard(self.format.turns(prompt), self._pattern)
        return self._encode(guarded, self.format.render(guarded.messages, generation=True))

    def _encode(self, guarded: Guarded, text: str) -> tuple[int, ...]:
        tokens = tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)
        # A normalizer may make a special token out of text that did not hold its string: hence the comparison.
        own = [self._special[s][0] for s in self._pattern.findall(text)]
        if guarded.literal or [t for t in tokens if t in self._special_ids] != own:
            tokens = tuple(self._encode_stretches(guarded, text))
        self._check_known(tokens)
        return tokens

    def _check_known(self, tokens: Sequence[int]) -> None:
        if self._known < self.vocabulary and max(tokens, default=0) >= self._known:
            raise ModelError(
                f"the text has the token {self.tokenizer.id_to_token(max(tokens))!r}, which was added to the tokenizer "
                "and for which the model has no embedding",
                "resize the model's embeddings to its tokenizer and save it again",
            )

    def _encode_stretches(self, guarded: Guarded, text: str) -> Iterator[int]:
        """Special tokens where the template wrote them; the stretches between them as text that has none."""
        rest, strip = text, False
        for match in self._pattern.finditer(text):
            number, token = self._special[match.group()]
            stretch, rest = text[len(text) - len(rest) : match.start()], text[match.end() :]
            stretch = stretch.lstrip() if strip else stretch
            yield from self._encode_literally(guarded.restore(stretch.rstrip() if token.lstrip else stretch))
            yield number
            strip = token.rstrip
        yield from self._encode_literally(guarded.restore(rest.lstrip() if strip else rest))

    def _encode_literally(self, text: str) -> list[int]:
        tokens: list[int] = self._literal.encode(text, add_special_tokens=False).ids if text else []
        if self._special_ids.isdisjoint(tokens):
            return tokens
        # A stop token not marked special, or a model of whole words with a special string among them: spell it.
        parts = [p for part in self._pattern.split(text) for p in (part if part in self._special else [part])]
        spelled = [t for p in parts if p for t in self._literal.encode(p, add_special_tokens=False).ids]
        return [t for t in spelled if t not in self._special_ids]

    @cached_property
    def _literal(self) -> Tokenizer:
        """The tokenizer with special strings read as ordinary text."""
        literal = Tokenizer.from_str(self.tokenizer.to_str())
        literal.encode_special_tokens = True
        return literal

    def _end(self, tokens: Sequence[int]) -> int:
        return next((i for i, token in enumerate(tokens) if token in self.stop_ids), len(tokens))


@dataclass(frozen=True, slots=True)
class Guarded:
    """Messages whose special strings are private-use characters, and what each of these stands for."""

    messages: tuple[Message, ...]
    literal: Mapping[str, str] = field(default_factory=dict)

    def restore(self, text: str) -> str:
        return text.translate({ord(marker): string for marker, string in self.literal.items()})


def guard(messages: tuple[Message, ...], special: re.Pattern[str]) -> Guarded:
    found = dict.fromkeys(s for m in messages for s in special.findall(m.content))
    if not found:
        return Guarded(messages)
    used = set().union(*(m.content for m in messages))
    free = (c for c in map(chr, range(0xF0000, 0xFFFFE)) if c not in used)
    markers = dict(zip(found, free, strict=False))
    hidden = tuple(Message(m.role, special.sub(lambda s: markers[s.group()], m.content)) for m in messages)
    return Guarded(hidden, {marker: string for string, marker in markers.items()})


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the strings, the longest first, as tokenizers do; never, when there are none."""
    ordered = sorted({s for s in strings if s}, key=lambda s: (-len(s), s))
    return re.compile("(" + "|".join(map(re.escape, ordered)) + ")" if ordered else "((?!))")


def _special_tokens(tokenizer: Tokenizer, stops: Sequence[str]) -> dict[str, tuple[int, AddedToken]]:
    """Added tokens that text must not become: the special ones and every stop token. content -> (id, token)."""
    added = tokenizer.get_added_tokens_decoder().items()
    return {t.content: (number, t) for number, t in added if t.special or t.content in stops}


def _around_reply(format: PromptFormat) -> tuple[str, str]:
    """What the template itself writes between the prompt and a reply, and after the reply."""
    tail = format.split(format.turns(Prompt.user("x"), _PROBE))[1]
    before, found, after = tail.partition(_PROBE)
    if not found:
        raise ModelError("the chat template does not print the assistant's reply", "set [prompt] template")
    return before, after


def _choose_pad(tokenizer: Tokenizer, format: PromptFormat, stop_ids: frozenset[int], known: int) -> tuple[int, str]:
    """A pad id that ends nothing, and what to tell people when it is not the one the tokenizer declares.

    Padding is masked everywhere, so any other token will do; the last resort is the vocabulary's last ordinary token
    rather than a new one, which would change the model's shape.
    """
    declared = tokenizer.token_to_id(format.pad) if format.pad else None
    if declared is not None and declared not in stop_ids and declared < known:
        return declared, ""
    candidates = (tokenizer.token_to_id(name) for name in _PADS)
    usable = (number for number in candidates if number is not None and number not in stop_ids and number < known)
    special = {number for number, _ in _special_tokens(tokenizer, format.stops).values()}
    number = next(usable, None)
    if number is None:
        number = max(i for i in tokenizer.get_vocab().values() if i not in special and i < known)
    why = "the tokenizer has no pad token"
    if declared is not None:
        why = f"{format.pad!r} " + ("also ends a completion" if declared < known else "has no embedding in the model")
    return number, f"{why}: padding with {tokenizer.id_to_token(number)!r} (id {number}) instead"


def _unlimited(tokenizer: Tokenizer) -> Tokenizer:
    """Many tokenizer.json files carry a truncation or padding setting, which would cut rows silently."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _without_oldest_turns(prompt: Prompt) -> Iterator[Prompt]:
    messages = prompt.messages
    start = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    for i in range(start + 1, len(messages)):
        if messages[i].role == "user":
            yield Prompt(messages[:start] + messages[i:], prompt.meta)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for other tools; here it only has to be printed."""

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_Generation.tags = {"generation"}


@lru_cache(maxsize=32)
def _compiled(template: str, day: str) -> jinja2.Template:
    """Templates come with models, so they run in a sandbox, with the names that published templates expect."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: (
        datetime.fromisoformat(day) if day else datetime.now()
    ).strftime(form)
    return environment.from_string(template)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
