"""Rows written by pages are the rows that the model itself would write, one by one: attention, places, static shapes.

Oracles: one pass over the whole row, torch's own attention, and the plain way.
"""

from __future__ import annotations

import gc
import random
import weakref

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from trueup.config import ModelSettings, Sampling
from trueup.engines import continuous, pages
from trueup.engines.graph import Replayed
from trueup.engines.pages import BLOCK, NOBODY, Pages, PromptPages, blocks_of
from trueup.engines.row import Row
from trueup.engines.sampler import Sampler, choose
from trueup.models.adapters import add_lora
from trueup.models.language_model import LanguageModel
from trueup.records import Prompt

WORDS = "the cat sat on a mat and the dog ran to the red house while birds sang of rain in the old town".split()
PROMPTS = [Prompt.user(" ".join(WORDS[:n])) for n in (1, 9, 4, 17, 2, 12)]
LONG = Sampling(max_new_tokens=3 * BLOCK)
BY_PAGES = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Mistral": {"sliding_window": 96},
    "Gemma2": {"head_dim": 8, "sliding_window": 96, "attn_logit_softcapping": 2.0},
    "GPT2": {},
    "GPTNeoX": {},
    "Phi3": {},
    "OPT": {},
}
NOT_BY_PAGES = {"Bloom": {"n_head": 4, "n_layer": 2}, "GptOss": {}}  # ALiBi; attention sinks
IGNORED = pytest.mark.filterwarnings("ignore")


def gap(model: LanguageModel, sampling: Sampling, **more) -> float:
    """The largest difference of a token's log-probability from the one in a single pass over its row."""
    sampler = Sampler(model)
    completions = sampler.sample(PROMPTS, sampling, seed=3, **more)
    again = sampler.logprobs(completions, sampling.temperature)
    pairs = zip((value for c in completions for value in c.logprobs), (v for row in again for v in row), strict=True)
    return max(abs(mine - other) for mine, other in pairs)


@IGNORED
@pytest.mark.parametrize("family", [*BY_PAGES, *NOT_BY_PAGES])
def test_log_probs_are_those_of_one_pass(make_model, family):
    """Rows of several blocks, more of them than places: whatever the way, the same numbers."""
    model = make_model(family, **(BY_PAGES | NOT_BY_PAGES)[family])
    assert Sampler(model)._goes_by_pages == (family in BY_PAGES)
    assert gap(model, LONG.model_copy(update={"batch_size": 5}), n=2) < 1e-5 * 2


@IGNORED
@pytest.mark.parametrize("family", ("Mistral", "Gemma2"))
def test_rows_that_outgrow_a_window_go_the_plain_way(make_model, monkeypatch, family):
    model = make_model(family, **(BY_PAGES[family] | {"sliding_window": 24}))
    ways = []
    monkeypatch.setattr(continuous, "write", lambda *_, **__: ways.append("pages"))
    assert gap(model, LONG) < 2e-5 and ways == []


def test_a_model_whose_attention_is_read_wrongly_is_found_out(make_model, monkeypatch):
    assert continuous.same_as_plain(make_model())
    right = Pages.reading

    def later(self, trunk, position_r, where_r, owner_n, begins_n):
        return right(self, trunk, position_r - 1, where_r, owner_n, begins_n)

    monkeypatch.setattr(Pages, "reading", later)  # each token is blind to itself
    assert not continuous.same_as_plain(make_model())


def test_low_precision_stays_near_one_pass(make_model):
    model = make_model("Qwen2")
    model.network.to(torch.bfloat16)
    assert Sampler(model)._goes_by_pages and gap(model, LONG, n=2) < 0.2


def test_lora_is_folded_in(make_model):
    from trueup.models.language_model import LanguageModel as Model

    plain = make_model("Qwen2")
    model = Model(plain.network, plain.encoder, adapter=add_lora(plain.network, ModelSettings(lora_rank=4), seed=0))
    for name, parameter in model.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    assert Sampler(model)._goes_by_pages and gap(model, LONG) < 2e-5


def test_what_was_sampled_can_be_learnt_from(make_model):
    """Tensors made while sampling are of a kind that autograd refuses: none may stay behind in the model."""
    changed = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}
    model = make_model("Llama", max_position_embeddings=40, **changed)
    model.context = 96  # rows longer than that make the model compute its rotations anew
    completions = Sampler(model).sample(PROMPTS, LONG, seed=0)
    model.logprobs(model.rows(model.groups([[c] for c in completions]))).sum().backward()
    assert all(p.grad is not None for p in model.network.parameters())


# Static shapes, as a GPU has them


@pytest.mark.parametrize("stride, static", [(1, True), (4, False), (7, True), (64, True)])
def test_static_shapes_and_seldom_looks_write_the_same(make_model, stride, static):
    model = make_model("Qwen2", seed=2)
    eos = model.encoder.eos_id
    shapes = set()

    def pick(logits, rows, draws, sampling):
        logits[:, eos] += 3
        return choose(logits, draws, sampling)

    def write(**how) -> list[Row]:
        encoded = sorted((model.encoder.prompt(prompt) for prompt in PROMPTS * 3), key=len)
        rows = [Row(i, tuple(prompt), 40, 5) for i, prompt in enumerate(encoded)]
        with torch.inference_mode():
            continuous.write(model, rows, Sampling(), pick, 4, lambda row: None, **how)
        return rows

    expected = write()
    forward = continuous._forward

    def noted(trunk, pages, *given):
        shapes.add(tuple(each.shape for each in given))
        return forward(trunk, pages, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "_forward", noted)
        found = write(stride=stride, static=static)
    assert [row.tokens for row in found] == [row.tokens for row in expected]
    assert {row.finished for row in found} == {True, False}
    for mine, other in zip(found, expected, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    if static:
        assert {rows[0] for rows, *_ in shapes} == {4} and len(shapes) <= continuous.STEPS_OF_BLOCKS


def test_what_sampling_took_is_free_at_its_end_without_the_garbage_collector(make_model, monkeypatch):
    """A cycle would keep the pool until a collection, and each rollout's would lie beside the last one's."""
    made = []
    init = Pages.__init__
    monkeypatch.setattr(Pages, "__init__", lambda self, *given: made.append(weakref.ref(self)) or init(self, *given))
    sampler = Sampler(make_model("Llama"))
    gc.collect()
    gc.disable()
    try:
        sampler.sample(PROMPTS, Sampling(max_new_tokens=8, batch_size=2), seed=0)
        assert made and all(pages() is None for pages in made)
    finally:
        gc.enable()


# The pool


def small_pool(blocks: int = 12, heads: int = 2, width: int = 4) -> Pages:
    made = torch.randn(2, 1, heads, BLOCK, width, generator=torch.Generator().manual_seed(0))
    return Pages(PromptPages(made, torch.zeros(1, 8), 1), blocks)


def test_blocks_come_back_lowest_first_and_nobody_s_is_never_handed_out():
    pool = small_pool()
    first, second = pool.take(0, [0, BLOCK]), pool.take(1, [0, BLOCK, 2 * BLOCK])
    assert sorted(first + second) == [1, 2, 3, 4, 5]
    pool.give_back(first)
    assert pool.take(2, [0]) == [1] and pool.owner[1] == 2 and pool.begins[2] == NOBODY
    assert len(pool.in_use()[0]) == 6 and len(pool.in_use(9)[0]) == 9 and len(pool.in_use(99)[0]) == 13


def test_what_is_in_use_moves_together_with_what_is_in_it():
    pool, chance = small_pool(40), random.Random(0)
    rows = {row: pool.take(row, range(0, 4 * BLOCK, BLOCK)) for row in range(10)}
    for row, blocks in rows.items():
        pool.pool[:, blocks] = float(row)
    assert pool.crowd() == {}
    for row in chance.sample(range(10), 6):
        pool.give_back(rows.pop(row))
    moved = pool.crowd()
    rows = {row: [moved.get(block, block) for block in blocks] for row, blocks in rows.items()}
    assert len(pool.in_use()[0]) == 1 + 4 * 4 == 1 + len({block for blocks in rows.values() for block in blocks})
    for row, blocks in rows.items():
        assert (pool.pool[:, blocks] == row).all() and (pool.owner[blocks] == row).all()
        assert pool.begins[blocks].tolist() == [0, BLOCK, 2 * BLOCK, 3 * BLOCK]
    pool.renumber(sorted(rows))
    for new, row in enumerate(sorted(rows)):
        assert (pool.owner[rows[row]] == new).all()


def test_a_block_holds_nothing_of_what_lay_in_memory_before():
    pool = small_pool(100)
    pool.pool[:] = torch.nan
    assert (pool.pool[:, pool.take(0, range(0, 70 * BLOCK, BLOCK))] == 0).all() and (pool.pool[:, 0] == 0).all()
    owner, _ = pool.in_use(at_least=90)
    assert len(owner) == 90 and (pool.pool[:, :90] == 0).all(), "shapes that are filled up read it too"


@pytest.mark.parametrize("shared", (1, 2, 4))
@pytest.mark.parametrize("softcap", (None, 1.5))
def test_attention_by_pages_is_attention(shared, softcap):
    """Rows of random length, blocks of several owners in any order, grouped heads; against each row by itself."""
    chance, heads, width = np.random.default_rng(shared), 4, 8
    lengths = [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 40]
    torch.manual_seed(0)
    rows = [torch.randn(2, heads // shared, length, width) for length in lengths]
    query = torch.randn(len(lengths), heads, 1, width)
    owner = [row for row, length in enumerate(lengths) for _ in range(blocks_of(length))]
    begins = [b for length in lengths for b in range(0, length, BLOCK)]
    order = chance.permutation(len(owner))
    blocks = torch.randn(2, len(owner) + 1, heads // shared, BLOCK, width)  # what is not filled holds anything finite
    for place, number in enumerate(order):
        row, begin = owner[number], begins[number]
        part = rows[row][:, :, begin : begin + BLOCK]
        blocks[:, place, :, : part.shape[2]] = part
    owner_n = torch.tensor([*(owner[i] for i in order), 0])
    begins_n = torch.tensor([*(begins[i] for i in order), NOBODY])
    position_r = torch.tensor(lengths) - 1
    hidden = begins_n[:, None] + torch.arange(BLOCK) > position_r[owner_n][:, None]
    hide = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None]
    token = pages._current.set(pages._Reading(position_r, owner_n, hide))
    found, _ = pages._attention(None, query, blocks[0], blocks[1], None, scaling=0.3, softcap=softcap)
    pages._current.reset(token)
    for r, (key, value) in enumerate(rows):
        key, value = (each.repeat_interleave(shared, 0) for each in (key, value))
        if softcap is None:
            expected = scaled_dot_product_attention(query[r], key, value, scale=0.3)
        else:
            score = torch.tanh(query[r] @ key.transpose(1, 2) * 0.3 / softcap) * softcap
            expected = score.softmax(-1) @ value
        torch.testing.assert_close(found[r, 0], expected[:, 0], atol=1e-6, rtol=1e-5)


def test_attention_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="does not go by pages"):
        pages._attention(None, None, None, None, None, s_aux=torch.ones(1))
    with pytest.raises(ValueError, match="does not go by pages"):
        pages._attention(None, None, None, None, torch.ones(1))


def test_many_rows_come_and_go(make_model, monkeypatch):
    """Random lengths through few places, so that blocks are handed on, moved and left again."""
    model, lengths, moved = make_model(seed=4), [1 + i * 7 % 60 for i in range(40)], []
    crowd = Pages.crowd
    monkeypatch.setattr(Pages, "crowd", lambda self: moved.append(crowd(self)) or moved[-1])
    eos = model.encoder.eos_id

    class Forced(Sampler):
        def pick(self, logits_nv, rows, draw_n, sampling):
            ends = torch.tensor([len(row.tokens) + 1 == lengths[row.index] for row in rows])
            logits_nv[ends] = -torch.inf
            logits_nv[:, eos] = torch.where(ends, 0.0, -torch.inf)
            return super().pick(logits_nv, rows, draw_n, sampling)

    asked = [Prompt.user(" ".join(WORDS[i % 7 : i % 7 + 1 + i % 11])) for i in range(40)]
    sampling = Sampling(max_new_tokens=60)
    few, alone = (
        Forced(model).sample(asked, sampling.model_copy(update={"batch_size": size}), seed=2) for size in (7, 1)
    )
    assert [c.tokens for c in few] == [c.tokens for c in alone] and [len(c.tokens) for c in few] == lengths
    assert any(moved), "blocks must have moved for this to say anything"
    for mine, other in zip(few, alone, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("size", (5, 64, 320, 1000))
def test_a_token_is_chosen_as_by_one_running_sum(size):
    """In two stages, chunk and token, the same token as by inverting the whole cumulative distribution."""
    torch.manual_seed(size)
    logits = torch.randn(500, size) * 4
    logits[:, torch.randperm(size)[: size // 3]] = -torch.inf
    draws = torch.rand(500, dtype=torch.float64)
    chosen, logprobs = choose(logits, draws, Sampling(temperature=0.7))
    exact = torch.log_softmax(logits.double() / 0.7, -1)
    total = exact.exp().cumsum(-1)
    expected = torch.searchsorted(total, (draws * total[:, -1])[:, None], right=True).squeeze(1)
    near = (total.gather(1, expected[:, None])[:, 0] - draws).abs() < 1e-6  # there rounding may decide
    assert (near | (chosen == expected)).all() and near.float().mean() < 0.1
    torch.testing.assert_close(logprobs.double(), exact.gather(1, chosen[:, None])[:, 0], atol=1e-5, rtol=1e-5)


# Recorded passes: without a GPU the recording is played by hand


def test_a_pass_that_cannot_be_recorded_runs_as_it_is(monkeypatch, capsys):
    monkeypatch.delenv("TRUEUP_QUIET")

    def refuse(self, given):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Replayed, "_record", refuse)
    twice = Replayed(lambda x: 2 * x)
    assert [twice(torch.tensor([number])).item() for number in (1, 2)] == [2, 4]
    assert capsys.readouterr().err.count("cannot be recorded as a CUDA graph") == 1


def test_a_recorded_pass_is_given_copies_and_gives_copies(monkeypatch):
    recorded = []

    class Graph:
        def __init__(self, inputs, output):
            self.inputs, self.output = inputs, output

        def replay(self):
            self.output.copy_(2 * self.inputs[0])

    def record(self, given):
        inputs = [torch.zeros_like(each) for each in given]
        recorded.append(given[0].shape)
        output = torch.zeros_like(given[0])
        return Graph(inputs, output), inputs, output

    monkeypatch.setattr(Replayed, "_record", record)
    twice = Replayed(lambda x: 1 / 0)
    found = [twice(torch.arange(size) + start) for size, start in ((2, 0), (3, 1), (2, 5))]
    assert [each.tolist() for each in found] == [[0, 2], [2, 4, 6], [10, 12]]
    assert recorded == [(2,), (3,)], "once for each shape"
