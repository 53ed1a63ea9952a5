"""What is far too long is left out without being tokenised, and nothing that would fit ever is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from small import SENTENCES, settings
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from trueup import preparing
from trueup.engines.reward_scorer import RewardScorer
from trueup.loading import put_records
from trueup.models.load import new_reward
from trueup.records import Completion, Demonstration, Judgement, Message, Prompt
from trueup.runs import Run
from trueup.text import lengths
from trueup.text.chat import Encoder
from trueup.text.lengths import Lengths

ASKED = Prompt.user("the cat")
HUGE = "the old town " * 40_000
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def bytewise(**changes: Any) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<eos>"], initial_alphabet=ALPHABET, show_progress=False
    )
    made.train_from_iterator([*SENTENCES, "-" * 16 + " " * 16] * 3, trainer=trainer)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def sentencepiece(fuse: bool = True, fallback: bool = True) -> Tokenizer:
    """As Llama 2 and Gemma have it: characters and bytes, a mark for the blank."""
    words = ["<unk>", *BYTES, *"▁abcdefghijklmnopqrstuvwxyz", "th", "the", "aa", "aaaa"]
    merges = [("t", "h"), ("th", "e"), ("a", "a"), ("aa", "aa")]
    model = models.BPE(
        {word: i for i, word in enumerate(words)}, merges, unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def wordpiece() -> Tokenizer:
    words = ["[UNK]", "the", "cat", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), ("a", -3.0), ("aa", -3.0)], 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


def stripping() -> Tokenizer:
    made = bytewise()
    made.add_special_tokens([AddedToken("<|end|>", rstrip=True, lstrip=True, special=True)])
    return made


KNOWN: dict[str, Callable[[], Tokenizer]] = {
    "bytes": bytewise,
    "bytes, composed": lambda: bytewise(normalizer=normalizers.NFKC()),
    "bytes, split first": lambda: bytewise(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        )
    ),
    "marks that swallow blanks": stripping,
    "sentencepiece": sentencepiece,
    "sentencepiece, single unknowns": lambda: sentencepiece(fuse=False, fallback=False),
    "words in pieces": wordpiece,
    "unigram": unigram,
}
UNKNOWN: dict[str, Callable[[], Tokenizer]] = {
    "drops what it splits at": lambda: bytewise(pre_tokenizer=pre_tokenizers.Split("a", "removed")),
    "lacks a byte": lambda: Tokenizer(models.BPE({"a": 0, "b": 1}, [])),
    "one token for all that is unknown": lambda: sentencepiece(fallback=False),
    "drops accents": lambda: bytewise(normalizer=normalizers.StripAccents()),
    "any long word is one token": lambda: Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")),
}


def odd_texts(chance: random.Random) -> list[str]:
    """What tokenizers make least of: runs of one thing, blanks, accents, words without end."""
    runs = ("a", "aaaa", "-", " ", "\n", "the ", "e\u0301", "\u1100\u1161\u11a8", "\ufdfa", "ü", "x\x1c", "\x00", "漢")
    several = ["".join(chance.choice(runs) for _ in range(300)) for _ in range(6)]
    return ["", *(run * 200 for run in runs), *several, *SENTENCES]


@pytest.fixture
def from_the_first_character(monkeypatch):
    monkeypatch.setattr(lengths, "LONG", 0)


@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_the_bound_is_never_above_the_count(name, from_the_first_character):
    tokenizer = (KNOWN | UNKNOWN)[name]()
    bound, chance = Lengths(tokenizer), random.Random(name)
    for text in odd_texts(chance):
        assert bound.fewest(text) <= len(tokenizer.encode(text, add_special_tokens=False).ids), repr(text[:20])


@pytest.mark.parametrize("name", KNOWN)
def test_ordinary_text_without_end_is_seen_to_be_long(name):
    assert Lengths(KNOWN[name]()).fewest(HUGE) > 5_000


@pytest.mark.parametrize("name", UNKNOWN)
def test_where_nothing_can_be_relied_on_nothing_is_claimed(name):
    assert Lengths(UNKNOWN[name]()).fewest(HUGE) == 0


# What every stage does with it


@pytest.fixture
def given(monkeypatch) -> list[int]:
    """How many characters the tokenizer was given, call by call."""
    seen: list[int] = []
    encode = Encoder._encode

    def count(self, guarded, text):
        seen.append(len(text))
        return encode(self, guarded, text)

    monkeypatch.setattr(Encoder, "_encode", count)
    return seen


@pytest.fixture
def run(workspace):
    rows = [{"prompt": prompt.to_json()} for prompt in (ASKED, Prompt.user(HUGE), Prompt.user("x"))]
    data = put_records(workspace, "preferences", rows)
    made = Run.start(workspace, "toy", {}, {"data": data, "prompts": data}, seed=0)
    with made:
        yield made
        made.finish({})


def judgement(prompt: Prompt, *texts: str) -> Judgement:
    return Judgement(prompt, texts, (1, 2), "ann", "human")


def test_sft_leaves_huge_rows_out_untokenised_and_drops_huge_old_turns(run, model, given):
    old = Prompt((Message("user", HUGE), Message("assistant", "rain"), Message("user", "the cat")))
    rows = [Demonstration(ASKED, "sat"), Demonstration(ASKED, HUGE), Demonstration(Prompt.user(HUGE), "ran")]
    rows += [Demonstration(old, "sang")]
    config = settings("sft", heldout=0.0)
    groups, _, dropped = preparing.split_demonstrations(run, model, rows[:1] + rows[2:], 96, config)
    assert dropped == 1 and max(given) < 1000
    assert [len(prompt) for prompt, _ in groups] == [len(model.encoder.prompt(ASKED))] * 2
    with pytest.raises(Exception, match="2 of 2 rows"):
        preparing.split_demonstrations(run, model, rows[1:3], 96, config)
    assert max(given) < 1000


def test_judgements_are_counted_with_their_row_and_tokenised_once(run, model, given):
    said = [
        judgement(ASKED, "sat", "ran"),
        judgement(Prompt.user(HUGE), "a", "b"),
        judgement(Prompt.user("x"), "a", HUGE),
    ]
    train, _, dropped = preparing.split_judgements(run, model, said, 96, settings("reward"))
    assert len(train) == 1 and dropped == 2 and max(given) < 1000
    before = len(given)
    short = [judgement(ASKED, "sat", "ran"), judgement(Prompt.user("x"), "a", "the old town " * 60)]
    preparing.split_judgements(run, model, short, 96, settings("reward"))
    texts = [n for n in given[before:] if n > 600]
    assert len(texts) == 1, "what is tokenised to be measured is not tokenised again to be counted"
    (event,) = [e for e in run.events() if e["kind"] == "left out"][:1]
    assert event["rows"][0]["row"] == 2


def test_prompts_of_rl_and_what_is_scored(run, model, given, checkpoint):
    config = settings("sample", sampling={"max_new_tokens": 8})
    prompts = [ASKED, Prompt.user(HUGE)]
    kept, dropped = preparing.with_room(run, prompts, [(model.encoder, 96)], config)
    assert kept == [ASKED] and dropped == 1
    scorer = RewardScorer(new_reward("sequence", [str(checkpoint("Llama"))], settings("reward").model))
    assert [scorer.fits(Completion(ASKED, text)) for text in ("sat", HUGE)] == [True, False]
    assert not preparing.fits(model, judgement(ASKED, "sat", HUGE), 96)
    assert max(given) < 1000


def test_what_just_fits_is_kept(model):
    """A text over the length at which bounds begin, and a context that it fills to the last token."""
    encoder, text = model.encoder, "-" * lengths.LONG
    whole = len(encoder.prompt(ASKED)) + len(encoder.completion(ASKED, text))
    assert encoder.encode_row(ASKED, text, whole) is not None
    assert encoder.encode_row(ASKED, text, whole - 1) is None
    assert not encoder.too_long(ASKED, [text], whole) and encoder.too_long(ASKED, [text], 96)
