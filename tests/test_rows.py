"""However rows lie in a batch, every completion is computed as if it stood alone.

The oracle is as plain as can be: one unpadded row at a time through `network(input_ids)`, and a loop over its tokens.
Everything runs in float64, so that equal means equal to ten digits and no tolerance can hide a wrong position. Only
gradients get seven digits: the RMSNorm of transformers computes in float32, whatever the weights are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface

from trueup.algo.losses import language_model_loss
from trueup.errors import ModelError
from trueup.models import language_model, packed
from trueup.models.language_model import LanguageModel, run_trunk, trunk_layout
from trueup.models.rows import PLAIN, Group, Layout, lay_out, row_tokens
from trueup.train.pretrain import heldout_loss

FAMILIES = ("Llama", "GPT2", "Qwen2")
PAD = 0
GROUPS: list[Group] = [
    ((5, 11, 3, 7, 19), [(9, 30, 2), (4, 8, 8, 6, 2), (13, 2)]),
    ((40,), [(2,), (41, 2)]),  # one token of prompt, one of completion
    ((21, PAD, 22, 23), [(PAD, 24, PAD, 2)]),  # the pad token as ordinary text
    ((50, 51, 52, 53, 54, 55, 56, 57), [(58, 59, 60, 61, 62, 63, 2), (64, 2)]),
]


def flat(groups):
    return [(list(prompt), list(completion)) for prompt, completions in groups for completion in completions]


def logits_alone(network, tokens):
    """Logits of one row by itself: no padding, no mask, no positions given."""
    return network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def logprobs_alone(network, prompt, completion, temperature=1.0):
    """log p(token | everything before it) for each completion token, in a loop."""
    scaled = logits_alone(network, prompt + completion) / temperature
    found = []
    for t, token in enumerate(completion, start=len(prompt)):
        found.append(scaled[t - 1, token] - scaled[t - 1].logsumexp(-1))
    return torch.stack(found)


def hidden_alone(network, tokens):
    return network.get_decoder()(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0]


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def assert_same(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name in expected:
        scale = expected[name].abs().max()
        assert (found[name] - expected[name]).abs().max() <= 5e-7 * scale, name


@pytest.fixture(params=FAMILIES)
def exact(request, make_model) -> LanguageModel:
    return make_model(request.param).double()


@pytest.fixture(params=("plain", "shared", "packed", "packed, shared", "plain, trimmed", "packed, shared, trimmed"))
def layout(request) -> Layout:
    return Layout(*(way in request.param for way in ("shared", "packed", "trimmed")))


@pytest.fixture
def rows(layout, exact):
    assert exact.layout == Layout(True, True, True), "these families are known to compute every layout correctly"
    return lay_out(GROUPS, PAD, layout)


# The forward pass


@pytest.mark.parametrize("temperature", (1.0, 0.6, 1.7))
def test_logprobs_are_those_of_each_row_alone(exact, rows, temperature):
    found = exact.logprobs(rows, temperature)
    for i, (prompt, completion) in enumerate(flat(GROUPS)):
        expected = logprobs_alone(exact.network, prompt, completion, temperature)
        torch.testing.assert_close(found[i, : len(completion)], expected, rtol=1e-10, atol=1e-10)
        assert not found[i, len(completion) :].any(), "zero outside the mask"
        assert rows.mask_cl[i].tolist() == [True] * len(completion) + [False] * (found.shape[1] - len(completion))


def test_states_are_read_before_each_token_and_at_the_last_one(exact, rows):
    """The state before a token predicts it and carries its value; a reward head reads the one at the last token."""
    hidden = exact.hidden(rows)
    last = run_trunk(exact.network.get_decoder(), rows, None if rows.read_n is None else rows.last_c)
    for i, (prompt, completion) in enumerate(flat(GROUPS)):
        alone = hidden_alone(exact.network, prompt + completion)
        before = hidden[rows.before_cl[i, : len(completion)]]
        torch.testing.assert_close(before, alone[len(prompt) - 1 : -1], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(last[rows.last_c[i]], alone[-1], rtol=1e-10, atol=1e-10)


def test_prompt_tokens_are_those_of_the_prompt_alone(exact, rows, layout):
    """What pretraining reads: each prompt token after the first, once a row."""
    hidden = exact.hidden(rows, whole=True)
    found = exact.read(hidden[rows.prompt_before_bp[rows.prompt_mask_bp]], rows.prompt_target_bp[rows.prompt_mask_bp])
    a_row_each = [p for p, _ in GROUPS] if layout.shared else [p for p, _ in flat(GROUPS)]
    expected = [logprobs_alone(exact.network, list(p[:1]), list(p[1:])) for p in a_row_each if len(p) > 1]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-10, atol=1e-10)


def test_loss_and_gradient_are_the_sum_over_rows_alone(exact, rows):
    loss = language_model_loss(exact.logprobs(rows), rows.mask_cl)
    found = gradients(exact.network, loss)
    alone = -sum(logprobs_alone(exact.network, prompt, completion).sum() for prompt, completion in flat(GROUPS))
    torch.testing.assert_close(loss, alone, rtol=1e-12, atol=1e-12)
    assert_same(found, gradients(exact.network, alone))


# Padding and batches


def test_neither_the_pad_token_nor_the_amount_of_padding_matters(exact):
    longer: Group = (tuple(range(3, 60)), [tuple(range(60, 80))])
    for shared in (False, True):
        lone = exact.logprobs(lay_out(GROUPS, PAD, Layout(shared)))
        other_pad = exact.logprobs(lay_out(GROUPS, 17, Layout(shared)))
        beside_a_long_row = exact.logprobs(lay_out([*GROUPS, longer], PAD, Layout(shared)))[: len(lone)]
        torch.testing.assert_close(other_pad, lone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(beside_a_long_row[:, : lone.shape[1]], lone, rtol=1e-10, atol=1e-10)


def test_what_stands_in_the_padding_never_matters(exact, rows):
    """Other tokens and other positions in the padding of the very same rows: nothing may change."""
    garbage = torch.randint(3, 280, rows.tokens_bt.shape, generator=torch.Generator().manual_seed(1))
    spoilt = replace(
        rows,
        tokens_bt=torch.where(rows.real_bt, rows.tokens_bt, garbage),
        positions_bt=torch.where(rows.real_bt, rows.positions_bt, garbage % 90),
    )
    torch.testing.assert_close(exact.logprobs(spoilt), exact.logprobs(rows), rtol=1e-12, atol=1e-12)


def test_the_split_into_batches_does_not_matter(exact):
    whole = exact.logprobs(exact.rows(GROUPS))
    one_at_a_time = [exact.logprobs(exact.rows([group])) for group in GROUPS]
    start = 0
    for part in one_at_a_time:
        torch.testing.assert_close(
            whole[start : start + len(part), : part.shape[1]], part, rtol=1e-10, atol=1e-10
        )  # fmt: skip
        start += len(part)
    assert heldout_loss(exact, GROUPS, batch=1) == pytest.approx(heldout_loss(exact, GROUPS, batch=9), rel=1e-12)


# Models that are different


def test_a_sliding_window_is_respected_and_never_shared(make_model):
    """A window counts columns, and completions beside each other are further apart in columns than in positions."""
    model = make_model("Mistral", sliding_window=4).double()
    assert model.layout == PLAIN
    found = model.logprobs(model.rows(GROUPS))
    for i, (prompt, completion) in enumerate(flat(GROUPS)):
        expected = logprobs_alone(model.network, prompt, completion)
        torch.testing.assert_close(found[i, : len(completion)], expected, rtol=1e-10, atol=1e-10)
    shared = model.logprobs(lay_out(GROUPS, PAD, Layout(True)))
    assert not torch.allclose(shared, found, atol=1e-3), "sharing would be wrong: that is why it is refused"


def test_a_wide_window_is_not_shared_either(make_model):
    assert make_model("Mistral", sliding_window=4096).layout == PLAIN
    assert make_model("Mistral", sliding_window=None).layout.shared


def test_a_trunk_that_ignores_the_block_mask_does_not_share(model, monkeypatch):
    """Some attention kernels drop a 4-D mask without a word: then a completion sees its siblings."""
    trunk = model.network.get_decoder()
    forward = trunk.forward
    monkeypatch.setattr(trunk, "forward", lambda attention_mask=None, **rest: forward(attention_mask=None, **rest))
    assert not trunk_layout(trunk).shared


@pytest.mark.parametrize(
    "family, changes",
    [
        ("Gemma2", {"final_logit_softcapping": 5.0, "head_dim": 8}),
        ("Granite", {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
        ("Cohere", {"logit_scale": 0.3}),
    ],
)
def test_what_a_family_does_after_its_projection_is_known(make_model, family, changes):
    model = make_model(family, **changes).double()
    rows = model.rows(GROUPS)
    found = model.logprobs(rows)
    for i, (prompt, completion) in enumerate(flat(GROUPS)):
        expected = logprobs_alone(model.network, prompt, completion)
        torch.testing.assert_close(found[i, : len(completion)], expected, rtol=1e-9, atol=1e-9)


def test_a_model_that_does_something_unknown_to_its_logits_is_refused(model, monkeypatch):
    forward = model.network.forward

    def shifted(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 1.5
        return output

    monkeypatch.setattr(model.network, "forward", shifted)
    with pytest.raises(ModelError, match="between its trunk and its logits"):
        LanguageModel(model.network, model.encoder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_vocabulary_goes_through_in_chunks_and_changes_nothing(make_model, family, monkeypatch):
    model = make_model(family).double()
    rows = model.rows(GROUPS)
    whole = model.logprobs(rows, 0.7)
    gradient = gradients(model.network, whole.sum())
    monkeypatch.setattr(language_model, "WHOLE_LOGITS", 1)
    chunked = model.logprobs(rows, 0.7)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)
    assert_same(gradients(model.network, chunked.sum()), gradient)


def test_half_precision_logprobs_are_computed_in_float32(make_model):
    model = make_model().bfloat16()
    rows = model.rows(GROUPS)
    found = model.logprobs(rows)
    assert found.dtype == torch.float32
    logits = model.logits(model.hidden(rows)[rows.before_cl[rows.mask_cl]])
    assert logits.dtype == torch.bfloat16
    expected = logits.double().log_softmax(-1).gather(1, rows.target_cl[rows.mask_cl][:, None])[:, 0]
    torch.testing.assert_close(found[rows.mask_cl].double(), expected, rtol=1e-5, atol=1e-5)


# The bookkeeping itself

token = st.integers(0, 40)
some_tokens = st.lists(token, min_size=1, max_size=5).map(tuple)
some_groups = st.lists(st.tuples(some_tokens, st.lists(some_tokens, min_size=1, max_size=3)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(some_groups, st.booleans())
def test_packed_rows_are_those_of_the_other_layouts_without_their_padding(groups, shared):
    rows, padded = (lay_out(groups, 41, Layout(shared, together)) for together in (True, False))
    real = padded.real_bt.flatten()
    assert rows.real_bt.all() and rows.tokens_bt.shape == (1, int(real.sum())) and rows.allow_b1tt is None
    for long, apart in ((rows.tokens_bt, padded.tokens_bt), (rows.positions_bt, padded.positions_bt)):
        assert long[0].tolist() == apart.flatten()[real].tolist()
    place = real.cumsum(0) - 1  # where a token of the padded rows lies in the long one
    for name in ("target_cl", "mask_cl", "prompt_target_bp", "prompt_mask_bp"):
        assert torch.equal(getattr(rows, name), getattr(padded, name))
    assert torch.equal(rows.last_c, place[padded.last_c])
    for where, mask in (("before_cl", "mask_cl"), ("prompt_before_bp", "prompt_mask_bp")):
        there = getattr(rows, mask)
        assert torch.equal(getattr(rows, where)[there], place[getattr(padded, where)[there]])
    assert [row.length for row in rows.packed] == padded.real_bt.sum(1).tolist()
    for row, packed_row in enumerate(rows.packed):
        if packed_row.allow_tt is not None:
            n = packed_row.length
            assert torch.equal(packed_row.allow_tt, padded.allow_b1tt[row, 0, :n, :n])


def test_a_trunk_whose_attention_is_of_another_kind_is_not_packed(make_model, monkeypatch):
    model = make_model("Llama")
    assert model.layout.packed
    assert not make_model("Mistral", sliding_window=4).layout.packed
    attention = packed._attention
    monkeypatch.setitem(
        AttentionInterface._global_mapping, packed.NAME, lambda *a, **more: attention(*a, **more, softcap=30.0)
    )
    assert trunk_layout(model.network.get_decoder()) == Layout(shared=True, trimmed=True), "it says it cannot"
    monkeypatch.setitem(
        AttentionInterface._global_mapping, packed.NAME, lambda m, q, k, v, mask, **more: (q.transpose(1, 2), None)
    )
    assert trunk_layout(model.network.get_decoder()) == Layout(shared=True, trimmed=True), "it computes something else"
    assert model.network.config._attn_implementation == "sdpa", "and is left as it was"


@settings(max_examples=60, deadline=None)
@given(some_groups, st.booleans())
def test_every_token_stands_where_the_indices_say(groups, shared):
    """Follow the indices by hand: what they point to must be the tokens that went in."""
    rows = lay_out(groups, 41, Layout(shared))
    width = rows.tokens_bt.shape[1]
    tokens, positions = rows.tokens_bt.flatten().tolist(), rows.positions_bt.flatten().tolist()
    for i, (prompt, completion) in enumerate(flat(groups)):
        before = rows.before_cl[i, : len(completion)].tolist()
        assert [tokens[b] for b in before] == [prompt[-1], *completion[:-1]]
        assert [positions[b] for b in before] == list(range(len(prompt) - 1, len(prompt) + len(completion) - 1))
        assert rows.target_cl[i, : len(completion)].tolist() == completion
        last = int(rows.last_c[i])
        assert (tokens[last], positions[last]) == (completion[-1], len(prompt) + len(completion) - 1)
        if rows.allow_b1tt is None:
            continue
        row, column = divmod(last, width)
        seen = [tokens[row * width + c] for c in range(width) if rows.allow_b1tt[row, 0, column, c]]
        assert seen == prompt + completion, "the last token of a completion sees its prompt and itself, nothing else"
    laid = groups if shared else [(p, [c]) for p, c in flat(groups)]
    assert rows.real_bt.sum(1).tolist() == [row_tokens(group) for group in laid]
    assert math.prod(rows.tokens_bt.shape) == len(laid) * max(map(row_tokens, laid)), "no wider than the longest row"
