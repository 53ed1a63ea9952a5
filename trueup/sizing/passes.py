"""What one pass of a model keeps, computes and moves, counted on the model's own code without its weights.

The network stands on torch's meta device, where every operation knows shapes and none computes. Its first layers run
once forwards and backwards; what autograd keeps, the products and the bytes are counted as they come, and the other
layers are taken to be like the second. So nothing here repeats what a family of models looks like, and a change of the
code that trains changes the plan with it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from ..config import ModelSettings
from ..errors import ModelError, brief
from ..models.adapters import add_lora, linear_layers
from ..models.lean_layers import make_lean
from ..models.load import skeleton
from ..models.packed import row_by_row
from ..models.quantised import FewBits
from ..models.rows import PackedRow

PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm"}
PLAIN = "trueup_on_paper"  # attention that asks for no mask
FEW_LAYERS = 2  # that are run; the others are like the second


@dataclass(frozen=True)
class Pass:
    """Bytes, floating point operations and calls of one forward pass, with its backward pass where there is one."""

    kept: float = 0.0  # bytes that autograd keeps of the forward pass
    working: float = 0.0  # the most bytes beside these at once: what comes and goes
    products: float = 0.0  # operations of matrix products
    attention: float = 0.0  # operations of attention
    moved: float = 0.0  # bytes read and written by everything that is no product
    calls: float = 0.0  # operations started

    def __add__(self, other: Pass) -> Pass:
        return self._with(other, lambda a, b: a + b)

    def __mul__(self, factor: float) -> Pass:
        return self._with(self, lambda a, _: a * factor)

    def _with(self, other: Pass, joined: Callable[[float, float], float]) -> Pass:
        return Pass(*(joined(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Rows:
    """How many rows go through at once, of how many tokens each, and whether they lie in one long row."""

    count: float
    tokens: float
    packed: bool = False

    @property
    def all_tokens(self) -> float:
        return self.count * self.tokens


def count_pass(config: Any, settings: ModelSettings, dtype: torch.dtype, rows: Rows, trains: str) -> Pass:
    """A pass of the trunk over these rows. `trains`: all of its weights, lora beside them, or nothing.

    What a pass takes is a straight line in the number of rows: two numbers of rows are run, whatever is asked for.
    """
    text = json.dumps(config.to_dict(), sort_keys=True, default=str)
    kind: Callable[..., Any] = type(config)
    length = max(1, round(rows.tokens))
    try:
        one, three = (_run(text, kind, settings, dtype, n, length, rows.packed, trains) for n in (1, 3))
    except ValueError:
        if not rows.packed:
            raise
        # Attention that goes not row by row says so, as it does in training: such rows are padded.
        return count_pass(config, settings, dtype, replace(rows, packed=False), trains)
    a_row = (three + one * -1.0) * 0.5
    return one + a_row * (rows.count - 1)


@lru_cache(maxsize=256)
def _run(
    config: str, kind: Callable[..., Any], settings: ModelSettings, dtype: torch.dtype, rows: int, length: int,
    packed: bool, trains: str,
) -> Pass:  # fmt: skip
    """With the first layer alone, with the first two, and then as many more like the second as there are."""
    found: list[Pass] = []
    for layers in range(1, FEW_LAYERS + 1):
        made = kind(**json.loads(config))
        depth = _cut(made, layers)
        found.append(_counted(skeleton(made, settings).to(dtype).eval(), settings, rows, length, packed, trains))
    whole = found[0] + (found[1] + found[0] * -1.0) * (depth - 1)
    return replace(whole, working=max(each.working for each in found))


def _cut(config: Any, layers: int) -> int:
    """Leave the first layers in a config; returns how many there were."""
    text = config.get_text_config()
    depth: int = text.num_hidden_layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    text.num_hidden_layers, text.pad_token_id = min(layers, depth), None  # which some families look for among tokens
    return depth


def _counted(network: Any, settings: ModelSettings, rows: int, length: int, packed: bool, trains: str) -> Pass:
    if trains == "lora":
        if settings.quantise != "none":
            _in_few_bits(network)
        add_lora(network, settings, 0)
    else:
        network.requires_grad_(trains == "all")
    if packed:  # on a CPU
        make_lean(network)
    counter = _Counter(network)
    with torch.set_grad_enabled(trains != "nothing"), _CountedAttention(counter), counter:
        try:
            states = _states(network.get_decoder(), rows, length, packed)
        except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:  # what looks at the numbers
            raise ModelError(
                f"a pass of {type(network).__name__} cannot be counted without weights: {brief(str(error), 200, 1)}",
                "its memory is still in `--dry-run`, by a rule; of its time only a short run tells",
            ) from error
        counter.forward_done()
        if states.requires_grad:
            torch.autograd.backward(states, torch.empty_like(states))
    return counter.found()


def _states(trunk: Any, rows: int, length: int, packed: bool) -> torch.Tensor:
    """Rows of one length: no mask is needed, and on the meta device none could be looked at."""
    found: torch.Tensor
    if packed:
        tokens = _tokens(1, rows * length)
        with row_by_row(trunk, (PackedRow(length, None),) * rows):
            found = trunk(input_ids=tokens, position_ids=torch.zeros_like(tokens), use_cache=False).last_hidden_state
        return found
    trunk.config._attn_implementation = PLAIN
    found = trunk(input_ids=_tokens(rows, length), use_cache=False).last_hidden_state
    return found


def _tokens(rows: int, length: int) -> torch.Tensor:
    return torch.zeros(rows, length, dtype=torch.long, device="meta")


def _plain(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> Any:
    return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(PLAIN, _plain)


class _FewBitsOnPaper(FewBits):
    """A layer in few bits as far as memory and work go: each product makes a whole matrix and lets it go."""

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(self.out_features, self.in_features, dtype=dtype, device="meta")

    def _packed(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.new_empty(weight.shape, dtype=torch.int8)


def _in_few_bits(network: Any) -> None:
    linear = {id(layer) for layer in linear_layers(network)}
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if id(layer) in linear:
                matrix = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T  # GPT-2's are transposed
                setattr(parent, name, _FewBitsOnPaper(matrix, layer.bias))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what is alive, computed and moved, operation by operation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, int] = {}
        self.kept: dict[int, int] = {}
        self.now = self.working = self.still_kept = 0
        self.products = self.attention = self.moved = 0.0
        self.calls = 0
        self.network = network
        for tensor in (*network.parameters(), *network.buffers()):
            self.alive[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in _flat(found) if isinstance(t, torch.Tensor)]
        made = [self._note(tensor) for tensor in tensors]
        if any(made) or func._schema.is_mutable:
            self._work(func._schema.name, [t for t in _flat(args) if isinstance(t, torch.Tensor)], tensors)
        return found

    def forward_done(self) -> None:
        """What a pass without gradient needed at once is what came and went; with one, the backward pass needs more."""
        if torch.is_grad_enabled():
            self.kept = {key: size for key, size in self.alive.items() if size}
            self.still_kept, self.working = self.now, 0

    def found(self) -> Pass:
        kept = sum(self.kept.values())
        return Pass(kept, self.working, self.products, self.attention, self.moved, self.calls)

    def _work(self, name: str, given: Sequence[torch.Tensor], made: Sequence[torch.Tensor]) -> None:
        self.calls += 1
        if name in PRODUCTS:
            left, right = given[-2:]
            self.products += 2.0 * left.numel() * right.shape[-1]
        elif "empty" not in name:
            self.moved += sum(t.numel() * t.element_size() for t in (*given, *made))

    def _note(self, tensor: torch.Tensor) -> bool:
        """Whether it has a storage of its own that was not there before."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return False
        self.alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        if self.still_kept >= sum(self.kept.values()) / 2:  # later, gradients take the place of what is freed
            self.working = max(self.working, self.now - self.still_kept)
        weakref.finalize(storage, self._gone, key)
        return True

    def _gone(self, key: int) -> None:
        size = self.alive.pop(key)
        self.now -= size
        self.still_kept -= self.kept.get(key, 0)


class _Attention(torch.autograd.Function):
    """What fused attention keeps: queries, keys, values, its result, and one number a query and head."""

    @staticmethod
    def forward(ctx: Any, counter: _Counter, *heads: torch.Tensor) -> torch.Tensor:
        query, key, value = heads
        found = torch.empty_like(query)
        ctx.counter, ctx.work = counter, 2.0 * query.numel() * key.shape[-2]  # causal: half of the square, two products
        counter.attention += ctx.work
        ctx.save_for_backward(query, key, value, found, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        query, key, value, _, _ = ctx.saved_tensors
        ctx.counter.attention += 2.5 * ctx.work  # five products where the forward pass has two
        return None, torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _CountedAttention(TorchFunctionMode):
    """In place of torch's own choice, which on the meta device is the slow one that keeps every pair of tokens."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            if key.shape[1] != query.shape[1]:  # shared heads
                key, value = (heads.repeat_interleave(query.shape[1] // key.shape[1], 1) for heads in (key, value))
            return _Attention.apply(self.counter, query, key, value)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list | tuple):
        for each in values:
            yield from _flat(each)
    else:
        yield values
