"""A prompt and its completion as the two segments of an encoder model: `[CLS] prompt [SEP] completion [SEP]`.

Reward models on DeBERTa, RoBERTa and their kin read text so: `tokenizer(prompt, completion)`, which is where the marks,
their places and their ids are taken from. There are no turns and no template. A prompt of one message is its text; the
messages of a longer one stand one after another, with an empty line between.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from ..errors import ModelError
from ..records import Prompt
from .chat import Encoder, PromptFormat
from .lengths import LONG, Lengths

NO_TEMPLATE = PromptFormat(template="")
Tokens = tuple[int, ...]


class SegmentEncoder(Encoder):
    """What a message says is never one of the marks: '[SEP]' typed by a user is encoded as ordinary text.

    `types` are the token types of the two segments where the model is told them.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int, unknown_id: int | None, *, typed: bool) -> None:
        self.tokenizer, self.format = Tokenizer.from_str(tokenizer.to_str()), NO_TEMPLATE
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocabulary = self._known = int(tokenizer.get_vocab_size(with_added_tokens=True))
        self._before, self._between, self._after, types = _frame(self.tokenizer)
        self.types = types if typed else None
        self.pad_id, self.pad_note, self.stop_ids = pad_id, "", frozenset[int]()
        self.eos_id = self._after[-1]
        added = self.tokenizer.get_added_tokens_decoder().items()
        self._marks = frozenset(number for number, token in added if token.special) - {unknown_id}
        self._lengths = Lengths(self.tokenizer)

    def prompt(self, prompt: Prompt) -> Tokens:
        return self._before + self._text(_joined(prompt)) + self._between

    def completion(self, prompt: Prompt, text: str, *, finished: bool = True) -> Tokens:
        """Whether it was cut off makes no difference: the last mark ends the segment, not the text."""
        return self._text(text) + self._after

    def shortened(self, tokens: Sequence[int], room: int) -> Sequence[int]:
        text = tokens[: len(tokens) - len(self._after)]
        return (*text[: max(room - len(self._after), 0)], *self._after)[:room]

    def fewest(self, prompt: Prompt, completion: str | None = None) -> int:
        text = _joined(prompt) if completion is None else completion
        return self._lengths.fewest(text) if len(text) >= LONG else 0

    def _text(self, text: str) -> Tokens:
        tokens = self._literal.encode(text, add_special_tokens=False).ids if text else []
        self._check_known(tokens)
        return tuple(token for token in tokens if token not in self._marks)


def _joined(prompt: Prompt) -> str:
    return "\n\n".join(message.content for message in prompt.messages)


def _frame(tokenizer: Tokenizer) -> tuple[Tokens, Tokens, Tokens, tuple[int, int]]:
    """What the tokenizer writes before, between and after two texts; and the types of the two segments."""
    pair = tokenizer.encode("a", "a")
    segment = pair.sequence_ids
    first, second = ([i for i, number in enumerate(segment) if number == which] for which in (0, 1))
    if not first or not second or second[0] - first[-1] < 2 or second[-1] + 1 == len(segment):
        raise ModelError(
            "this classifier is no decoder with a chat template, and its tokenizer puts no marks around two texts",
            "save its tokenizer with the post-processor it was trained with, or with a chat template",
        )
    ids, types = pair.ids, pair.type_ids
    start = second[0]
    if len(set(types[:start])) > 1 or len(set(types[start:])) > 1:
        raise ModelError(
            "the tokenizer of this classifier gives its marks token types of their own, as XLNet's does",
            "use a classifier of the BERT, RoBERTa, DeBERTa or ModernBERT kind, or a decoder",
        )
    return (
        tuple(ids[: first[0]]),
        tuple(ids[first[-1] + 1 : start]),
        tuple(ids[second[-1] + 1 :]),
        (types[0], types[start]),
    )
