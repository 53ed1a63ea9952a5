"""How few tokens a text can have, told from its characters: one that is surely too long need not be tokenised.

Ten million characters take seconds to tokenise, and a file may hold many such texts by mistake. The bounds here are
never above the true count, whatever the text. Where a tokenizer leaves nothing to rely on they are 0, and the text is
tokenised.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

LONG = 50_000  # characters: what is shorter is tokenised as fast as it is looked at
# The most characters that a normal form can make one of: one is written as at most four in NFD, and in NFKD the
# composed form has none of those that stand for more.
_COMPOSED = {"NFC": 4, "NFKC": 4, "NFD": 1, "NFKD": 1}
_WORD = re.compile("[0-9A-Za-z][^ ]*")
_KEEPING = ("ByteLevel", "Metaspace", "Digits", "Punctuation", "Split", "UnicodeScripts", "FixedLength")
_PARTING = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace")

Part = Mapping[str, Any]


class Lengths:
    """`span`: the most characters, blanks apart, that one token can stand for. `by_words`: a word with a letter or a
    digit, between blanks, has a token of its own. 0 and False where the tokenizer does not say so."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spec = json.loads(tokenizer.to_str())
        added = [token["content"] for token in spec["added_tokens"]]
        blanks = any(" " in content for content in added)
        self.span, self.by_words = _span(spec, added), _by_words(spec) and not blanks

    def fewest(self, text: str) -> int:
        """`text` has at least so many tokens."""
        if len(text) < LONG:
            return 0
        by_span = -(-sum(map(len, text.split())) // self.span) if self.span else 0
        return max(by_span, sum(1 for _ in _WORD.finditer(text)) if self.by_words else 0)


def _span(spec: Mapping[str, Any], added: list[str]) -> int:
    """Of byte-level and character-level BPE in which no character is lost; a byte is at most one character."""
    model, before = spec["model"], list(_parts(spec["pre_tokenizer"], "pretokenizers"))
    composed = [_composing(each) for each in _parts(spec["normalizer"], "normalizers")]
    if model["type"] != "BPE" or 0 in composed or not all(map(_keeps, before)) or 1 in map(len, added):
        return 0
    bytewise = any(each["type"] == "ByteLevel" for each in (*before, *_parts(spec["normalizer"], "normalizers")))
    if not _knows_every_character(model, bytewise):
        return 0
    return math.prod(composed) * max(map(len, (*model["vocab"], *added)))


def _knows_every_character(model: Part, bytewise: bool) -> bool:
    """BPE drops what it does not know where it has no unknown token, and may make a run of it one."""
    vocabulary = model["vocab"]
    if bytewise:
        return all(letter in vocabulary for letter in ByteLevel.alphabet())
    if model.get("byte_fallback"):
        return all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    return model.get("unk_token") in vocabulary and not model.get("fuse_unk")


def _composing(normalizer: Part) -> int:
    """How many characters can become one; 0 where some may be lost. Blanks do not count."""
    kind = normalizer["type"]
    if kind == "Replace":
        old, new = normalizer["pattern"].get("String", ""), normalizer["content"]
        return int(bool(old) and (not old.strip() or len(new) >= len(old)))
    return 1 if kind in ("ByteLevel", "Prepend", "Lowercase", "Strip") else _COMPOSED.get(kind, 0)


def _keeps(pre_tokenizer: Part) -> bool:
    return pre_tokenizer["type"] in _KEEPING and pre_tokenizer.get("behavior") != "Removed"


def _by_words(spec: Mapping[str, Any]) -> bool:
    """Of WordPiece and Unigram models, which make at least one token of whatever lies between two blanks."""
    before = list(_parts(spec["pre_tokenizer"], "pretokenizers"))
    parting = any(each["type"] in _PARTING and each.get("split", True) for each in before)
    kept = all(each["type"] in _PARTING or _keeps(each) for each in before)
    return spec["model"]["type"] in ("WordPiece", "Unigram") and parting and kept and _letters_stay(spec)


def _letters_stay(spec: Mapping[str, Any]) -> bool:
    """Plain letters and digits, and the blanks between them, survive these normalizers."""
    known = {"BertNormalizer", "Precompiled", "Strip", "StripAccents", "Lowercase", "Prepend", *_COMPOSED}
    return all(
        each["type"] in known or (each["type"] == "Replace" and _of_blanks(each))
        for each in _parts(spec["normalizer"], "normalizers")
    )


def _of_blanks(replace: Part) -> bool:
    """Several blanks become one, or a blank the mark that stands for it."""
    pattern = replace["pattern"]
    several = pattern.get("Regex") in (" +", " {2,}", r"\s+", r"\s{2,}|[\n\r\t]")
    return replace["content"] in (" ", "▁") and (several or pattern.get("String") == " ")


def _parts(part: Part | None, inside: str) -> Iterator[Part]:
    """A sequence's parts, one after another; a single one is a sequence of itself."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for each in part[inside]:
            yield from _parts(each, inside)
    else:
        yield part
