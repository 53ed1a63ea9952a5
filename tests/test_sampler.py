"""The sampler draws from exactly the distribution the trainer computes, and the batch it happens to be in is no matter.

Oracles: `network(input_ids)` on one unpadded row, `transformers.generate`, and counting.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from trueup.config import Sampling
from trueup.engines import plain
from trueup.engines.sampler import Sampler, choose
from trueup.errors import ModelError
from trueup.models.adapters import add_lora
from trueup.models.language_model import LanguageModel
from trueup.records import Completion, Prompt

PROMPTS = [Prompt.user(text) for text in ("the cat", "a dog ran to the red house", "birds", "rain in the old town and")]
FREE = Sampling(max_new_tokens=12)
FAMILIES = ("Llama", "GPT2", "Qwen2")


@pytest.fixture(params=FAMILIES)
def any_model(request, make_model) -> LanguageModel:
    return make_model(request.param)


def distribution(model, tokens, temperature=1.0):
    """p(next token | tokens) of one unpadded row, in float64."""
    logits = model.network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].detach()
    weights = np.exp((logits.double().numpy() - float(logits.max())) / temperature)
    return weights / weights.sum()


def texts(completions):
    return [completion.text for completion in completions]


def force_stop_token(model, monkeypatch, token, below=0.0):
    """Make one token likely everywhere, so that rows stop at different times."""
    logits = LanguageModel.logits
    raised = torch.zeros(model.network.config.vocab_size)
    raised[token] = 3.0 - below
    monkeypatch.setattr(LanguageModel, "logits", lambda self, hidden: logits(self, hidden) + raised)


# Log-probabilities


@pytest.mark.parametrize("temperature", (0.7, 1.0, 1.4))
def test_sampler_and_trainer_agree_on_every_token(any_model, temperature):
    """With a cache, left padding and a token at a time, or in one pass, right-padded and shared: the same numbers."""
    sampling = Sampling(max_new_tokens=12, temperature=temperature)
    completions = Sampler(any_model).sample(PROMPTS, sampling, seed=1, n=3)
    again = Sampler(any_model).logprobs(completions, temperature)
    groups = any_model.groups([completions[i : i + 3] for i in range(0, len(completions), 3)])
    together = any_model.logprobs(any_model.rows(groups), temperature)
    for completion, values, row in zip(completions, again, together, strict=True):
        assert values == pytest.approx(completion.logprobs, abs=1e-5)
        assert row[: len(values)].tolist() == pytest.approx(completion.logprobs, abs=1e-5)


def test_logprobs_are_those_of_one_row_alone(any_model):
    """Against the plainest oracle: prompts of very different length in one batch, each token looked up by itself."""
    for completion in Sampler(any_model).sample(PROMPTS, Sampling(max_new_tokens=6, temperature=0.8), seed=2):
        row = list(any_model.encoder.prompt(completion.prompt))
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            assert logprob == pytest.approx(float(np.log(distribution(any_model, row, 0.8)[token])), abs=1e-4)
            row.append(token)


def test_text_without_tokens_is_encoded_first(model):
    """A completion from a file has no tokens: its log-probs are those of its text and the token that ends it."""
    prompt = PROMPTS[0]
    (found,) = Sampler(model).logprobs([Completion(prompt, "the red house")])
    tokens = model.encoder.completion(prompt, "the red house")
    (expected,) = Sampler(model).logprobs([Completion(prompt, "", tokens=tokens)])
    assert found == expected and len(found) == len(tokens) and tokens[-1] == model.encoder.eos_id


def test_logprobs_of_many_completions_keep_their_order(model):
    completions = Sampler(model).sample(PROMPTS, FREE, seed=3, n=12)
    for completion, values in zip(completions, Sampler(model).logprobs(completions), strict=True):
        assert values == pytest.approx(completion.logprobs, abs=1e-5)


# The same seed


def test_the_same_seed_gives_the_same_text_whatever_the_batch(any_model, monkeypatch):
    force_stop_token(any_model, monkeypatch, any_model.encoder.eos_id, below=0.5)
    whole = Sampler(any_model).sample(PROMPTS, FREE, seed=4, n=5)
    assert len({len(c.tokens) for c in whole}) >= 3, "rows must stop at different times for this to say anything"
    for size in (1, 5, 7, 10, 64):
        again = Sampler(any_model).sample(PROMPTS, FREE.model_copy(update={"batch_size": size}), seed=4, n=5)
        assert [c.tokens for c in again] == [c.tokens for c in whole]
    assert texts(Sampler(any_model).sample(PROMPTS, FREE, seed=5, n=5)) != texts(whole)


def test_the_plain_way_writes_the_same(any_model, monkeypatch):
    """Padded on the left, with transformers' own masks, and rows that leave: no other text, no other number."""
    force_stop_token(any_model, monkeypatch, any_model.encoder.eos_id, below=0.5)
    sampler = Sampler(any_model)
    expected = sampler.sample(PROMPTS, FREE, seed=4, n=5)
    assert sampler._goes_by_pages
    sampler._goes_by_pages = False
    for size in (7, 64):
        found = sampler.sample(PROMPTS, FREE.model_copy(update={"batch_size": size}), seed=4, n=5)
        assert [c.tokens for c in found] == [c.tokens for c in expected]
        for mine, other in zip(found, expected, strict=True):
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_completions_of_one_prompt_differ_and_stand_side_by_side(model):
    completions = Sampler(model).sample(PROMPTS, FREE, seed=6, n=4)
    assert [c.prompt for c in completions] == [prompt for prompt in PROMPTS for _ in range(4)]
    for i in range(0, len(completions), 4):
        assert len(set(texts(completions[i : i + 4]))) == 4


def test_nobody_else_s_random_numbers_are_touched(model):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Sampler(model).sample(PROMPTS, FREE, seed=7)
    assert torch.equal(torch.get_rng_state(), before)


# Greedy


@pytest.mark.parametrize("family, changes", [*((f, {}) for f in FAMILIES), ("Mistral", {"sliding_window": 8})])
def test_greedy_is_what_transformers_generates(make_model, family, changes):
    model = make_model(family, seed=3, **changes)
    found = Sampler(model).sample(PROMPTS, Sampling(max_new_tokens=12, temperature=0), seed=0)
    for completion in found:
        prompt = torch.tensor([model.encoder.prompt(completion.prompt)])
        expected = model.network.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        assert list(completion.tokens) == expected[0, prompt.shape[1] :].tolist()


def test_greedy_matches_a_left_padded_generate(any_model):
    """Positions count real tokens: with padding counted in, GPT-2 and Llama would both drift."""
    prompts = [list(any_model.encoder.prompt(prompt)) for prompt in PROMPTS]
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    expected = any_model.network.generate(
        tokens, attention_mask=mask, do_sample=False, max_new_tokens=10, pad_token_id=0
    )
    found = Sampler(any_model).sample(PROMPTS, Sampling(max_new_tokens=10, temperature=0), seed=0)
    for completion, row in zip(found, expected[:, width:].tolist(), strict=True):
        assert list(completion.tokens) == row[: len(completion.tokens)]


# The distribution


def chi_square(counts, probabilities):
    """p-value of counts under probabilities; cells expected fewer than five times are pooled."""
    expected = probabilities * counts.sum()
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    assert not counts[~keep].any(), "something impossible was drawn"
    return stats.chisquare(counts[keep], expected[keep]).pvalue if keep.sum() > 1 else 1.0


@pytest.mark.parametrize("temperature", (0.5, 1.0, 2.0))
def test_first_tokens_come_as_often_as_the_softmax_says(model, temperature):
    sampling = Sampling(max_new_tokens=1, temperature=temperature, batch_size=4000)
    drawn = [c.tokens[0] for c in Sampler(model).sample(PROMPTS[:1], sampling, seed=8, n=4000)]
    expected = distribution(model, list(model.encoder.prompt(PROMPTS[0])), temperature)
    assert chi_square(np.bincount(drawn, minlength=len(expected)), expected) > 0.001


def test_later_tokens_come_as_often_as_the_softmax_says(model):
    """Given a first token, the second one follows p(second | prompt, first): each row reads its own cache."""
    sampling = Sampling(max_new_tokens=2, temperature=0.7, batch_size=6000)
    completions = [c.tokens for c in Sampler(model).sample(PROMPTS[1:2], sampling, seed=9, n=6000)]
    prompt = list(model.encoder.prompt(PROMPTS[1]))
    first = int(np.bincount([c[0] for c in completions]).argmax())
    second = [c[1] for c in completions if c[0] == first and len(c) > 1]
    expected = distribution(model, [*prompt, first], 0.7)
    assert len(second) > 500
    assert chi_square(np.bincount(second, minlength=len(expected)), expected) > 0.001


LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -3.0])


@pytest.mark.parametrize(
    "changes, kept",
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 50}, [0, 1, 2, 3, 4, 5]),
        ({"top_p": 0.4}, [0]),  # the first one has 0.46: it crosses the line alone
        ({"top_p": 0.5}, [0, 1]),  # the one that crosses the line stays
        ({"top_p": 0.95}, [0, 1, 2, 3]),
        ({"top_p": 0.95, "top_k": 3}, [0, 1, 2]),
        ({"temperature": 0.5, "top_p": 0.85}, [0, 1]),  # top-p looks at the distribution that is drawn from
    ],
)
def test_what_is_cut_off_never_comes_and_the_rest_is_renormalised(changes, kept):
    sampling = Sampling(**changes)
    weights = np.exp(LOGITS.double().numpy() / sampling.temperature)
    weights = np.where(np.isin(range(6), kept), weights, 0.0)
    expected = weights / weights.sum()
    draws = torch.rand(8000, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    chosen, logprobs = choose(LOGITS.expand(8000, -1), draws, sampling)
    assert chi_square(np.bincount(chosen, minlength=6), expected) > 0.001
    assert set(chosen.tolist()) == set(kept)
    np.testing.assert_allclose(logprobs.exp().numpy(), expected[chosen.numpy()], rtol=1e-5)


@pytest.mark.parametrize("draw", (0.0, 1 - 2**-53))
def test_the_ends_of_the_unit_interval_choose_possible_tokens(draw):
    """A draw of exactly 0 must not choose a first token that is impossible, nor rounding an impossible last one."""
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    chosen, logprob = choose(logits, torch.tensor([draw], dtype=torch.float64), Sampling())
    assert chosen.item() == (1 if draw == 0 else 2) and torch.isfinite(logprob).all()


# Where a completion ends


def test_it_stops_at_the_first_eos_and_says_so(model, monkeypatch):
    eos = model.encoder.eos_id
    force_stop_token(model, monkeypatch, eos)
    completions = Sampler(model).sample(PROMPTS, FREE, seed=11, n=8)
    assert {c.finished for c in completions} == {True, False}
    for completion in completions:
        ends = [i for i, token in enumerate(completion.tokens) if token == eos]
        assert ends == ([len(completion.tokens) - 1] if completion.finished else [])
        assert len(completion.tokens) == len(completion.logprobs)
        assert completion.finished or len(completion.tokens) == FREE.max_new_tokens
        assert "<eos>" not in completion.text


def test_the_length_limit_is_exact(model):
    for limit in (1, 2, 9):
        for completion in Sampler(model).sample(PROMPTS, Sampling(max_new_tokens=limit), seed=12, n=2):
            assert len(completion.tokens) == limit or completion.finished


class Watched(Sampler):
    """Notes which rows each token was chosen for."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self.seen: list[list[int]] = []

    def pick(self, logits_nv, rows, draw_n, sampling):
        assert len(logits_nv) == len(rows) == len(draw_n)
        self.seen.append([row.index for row in rows])
        return super().pick(logits_nv, rows, draw_n, sampling)


def test_the_place_of_a_finished_row_is_taken_at_once(model, monkeypatch):
    """No token is computed for a row that has ended, and none of the places stays empty while somebody waits."""
    force_stop_token(model, monkeypatch, model.encoder.eos_id)
    sampler = Watched(model)
    completions = sampler.sample(PROMPTS, FREE.model_copy(update={"batch_size": 5}), seed=11, n=8)
    assert [sum(i in rows for rows in sampler.seen) for i in range(32)] == [len(c.tokens) for c in completions]
    alone = next(t for t, rows in enumerate(sampler.seen) if len(rows) < 5)
    begun = {i for rows in sampler.seen[: alone + 1] for i in rows}
    assert begun == set(range(32)), "a place stayed empty while rows were waiting"


def test_the_plain_way_drops_finished_rows_too(model, monkeypatch):
    """Not one by one, since leaving copies the cache, but before many of them are computed for nothing."""
    force_stop_token(model, monkeypatch, model.encoder.eos_id)
    monkeypatch.setattr(Sampler, "_goes_by_pages", False)
    sampler = Watched(model)
    lengths = [len(c.tokens) for c in sampler.sample(PROMPTS, FREE, seed=11, n=8)]
    writing = [sum(length > t for length in lengths) for t in range(max(lengths))]
    assert writing[-1] < writing[0] == len(sampler.seen[0]) and len(sampler.seen) == len(writing)
    for rows, busy in zip(sampler.seen, writing, strict=True):
        assert busy <= len(rows) <= busy / plain.DROP_AT


@pytest.mark.parametrize("by_pages", (True, False))
def test_no_more_rows_at_once_than_the_batch_holds(model, monkeypatch, by_pages):
    """Not even for one prompt with many completions; and each prompt is read once all the same, where that can be."""
    monkeypatch.setattr(Sampler, "_goes_by_pages", by_pages)
    sampler = Watched(model)
    completions = sampler.sample(PROMPTS[:2], FREE.model_copy(update={"batch_size": 3}), seed=6, n=8)
    assert max(map(len, sampler.seen)) == 3
    assert [c.tokens for c in completions] == [c.tokens for c in Sampler(model).sample(PROMPTS[:2], FREE, seed=6, n=8)]


def test_a_prompt_is_read_once_for_all_its_completions(model, monkeypatch):
    read = []
    forward = model.network.get_decoder().forward

    def count(**given):
        read.append(given["input_ids"].shape)
        return forward(**given)

    sampler = Sampler(model)
    assert sampler._goes_by_pages
    monkeypatch.setattr(model.network.get_decoder(), "forward", count)
    sampler.sample([*PROMPTS, *PROMPTS], FREE, seed=6, n=8)
    assert sum(rows for rows, width in read if width > 1) == len(PROMPTS)


# What one may set


@pytest.mark.parametrize("by_pages", (True, False))
def test_no_completion_ends_before_min_new_tokens(model, monkeypatch, by_pages):
    monkeypatch.setattr(Sampler, "_goes_by_pages", by_pages)
    force_stop_token(model, monkeypatch, model.encoder.eos_id)
    free = Sampler(model).sample(PROMPTS, FREE, seed=11, n=8)
    held = Sampler(model).sample(PROMPTS, FREE.model_copy(update={"min_new_tokens": 5}), seed=11, n=8)
    assert min(len(c.tokens) for c in free) < 5 < min(len(c.tokens) for c in held) < 12
    assert not any(model.encoder.eos_id in c.tokens[:5] for c in held)
    assert [c.tokens[0] for c in held] != [c.tokens[0] for c in free], "what was in the way is shared out"


def test_the_log_prob_is_that_of_the_distribution_without_stop_tokens(model):
    eos, sampling = model.encoder.eos_id, Sampling(max_new_tokens=3, min_new_tokens=3)
    for completion in Sampler(model).sample(PROMPTS, sampling, seed=2):
        row = list(model.encoder.prompt(completion.prompt))
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            weights = distribution(model, row)
            weights[eos] = 0
            assert logprob == pytest.approx(float(np.log(weights[token] / weights.sum())), abs=1e-4)
            row.append(token)


def test_who_overrides_pick_decides_what_is_written(model):
    """Lengths forced from outside: what a benchmark needs."""
    eos, lengths = model.encoder.eos_id, [3, 9, 1, 6, 12, 2, 4, 5]

    class Forced(Sampler):
        def pick(self, logits_nv, rows, draw_n, sampling):
            ends = torch.tensor([len(row.tokens) + 1 == lengths[row.index] for row in rows])
            logits_nv[ends] = -torch.inf
            logits_nv[:, eos] = torch.where(ends, 0.0, -torch.inf)
            return super().pick(logits_nv, rows, draw_n, sampling)

    for size in (3, 64):
        found = Forced(model).sample(PROMPTS, FREE.model_copy(update={"batch_size": size}), seed=1, n=2)
        assert [len(c.tokens) for c in found] == lengths and all(c.finished for c in found)
        assert all(c.logprobs[-1] == 0 for c in found)


# Memory


@pytest.mark.parametrize("by_pages", (True, False))
def test_when_memory_runs_out_fewer_rows_are_written_at_once(model, monkeypatch, by_pages, capsys):
    """Rows that were done stay; the others begin again and say the same; and it is remembered."""
    monkeypatch.setattr(Sampler, "_goes_by_pages", by_pages)
    monkeypatch.delenv("TRUEUP_QUIET")
    force_stop_token(model, monkeypatch, model.encoder.eos_id)
    expected = Sampler(model).sample(PROMPTS, FREE, seed=11, n=8)
    capsys.readouterr()

    class Tight(Watched):
        calls = 0

        def pick(self, logits_nv, rows, draw_n, sampling):
            self.calls += 1
            if len(rows) > 7 and self.calls % 4 == 0:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return super().pick(logits_nv, rows, draw_n, sampling)

    sampler = Tight(model)
    assert [c.tokens for c in sampler.sample(PROMPTS, FREE, seed=11, n=8)] == [c.tokens for c in expected]
    said = capsys.readouterr().err
    assert said.count("memory ran out with") == 3 and "16 completions at once; sampling goes on with 8" in said
    sampler.seen.clear()
    sampler.sample(PROMPTS, FREE, seed=11, n=8)
    assert max(map(len, sampler.seen)) == 4 and not capsys.readouterr().err


def test_other_errors_are_not_taken_for_a_lack_of_memory(model, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Sampler, "_goes_by_pages", True)
    monkeypatch.setattr(Sampler, "pick", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Sampler(model).sample(PROMPTS, FREE, seed=0)


def test_one_row_that_does_not_fit_is_an_error_with_a_hint(model, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")

    monkeypatch.setattr(Sampler, "_goes_by_pages", True)
    monkeypatch.setattr(Sampler, "pick", fail)
    with pytest.raises(ModelError, match="single completion was sampled: CUDA out of memory. Tried") as caught:
        Sampler(model).sample(PROMPTS, FREE, seed=0)
    assert "max_new_tokens" in caught.value.hint and "more" not in caught.value.message


def test_a_prompt_that_leaves_no_room_is_an_error(model):
    long = Prompt.user("the cat sat on a mat " * 40)
    with pytest.raises(ModelError, match=r"12 new tokens do not fit the context of 96"):
        Sampler(model).sample([PROMPTS[0], long], FREE, seed=0)
    room = model.context - len(model.encoder.prompt(PROMPTS[0]))
    assert Sampler(model).sample(PROMPTS[:1], Sampling(max_new_tokens=room), seed=0), "the last position is usable"
    assert Sampler(model).sample([], FREE, seed=0) == []


def test_sampling_leaves_the_model_as_it_was(make_model):
    """Training mode, requires_grad and weights; and a model in training mode is sampled without dropout."""
    model = make_model("Qwen2", attention_dropout=0.5)
    add_lora(model.network, _lora(), seed=0)
    weights = {name: p.clone() for name, p in model.network.named_parameters()}
    trained = [name for name, p in model.network.named_parameters() if p.requires_grad]
    model.train()
    first, second = (texts(Sampler(model).sample(PROMPTS, FREE, seed=13)) for _ in range(2))
    assert first == second and model.training
    assert [name for name, p in model.network.named_parameters() if p.requires_grad] == trained
    assert all(torch.equal(p, weights[name]) for name, p in model.network.named_parameters())


def _lora():
    from trueup.config import ModelSettings

    return ModelSettings(adapter="lora", lora_rank=4)


def test_progress_counts_prompts(model):
    seen = []
    Sampler(model, progress=seen.append).sample(PROMPTS, Sampling(max_new_tokens=2, batch_size=4), seed=0, n=2)
    assert sum(seen) == len(PROMPTS) and len(seen) >= 2
