"""PPO on one rollout, beside float64 and beside TRL: every number from log-probs to the gradient of every parameter.

`benchmarks/same_ppo.py` says what is compared and docs/beside-trl.md what came out. The rollouts, and what TRL 1.12.0
made of them, were recorded by `python -m benchmarks same-ppo --hidden 16 --record FILE`; the models are a
function of the seed. TRL itself runs where its environment is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks import same_ppo_trueup as ours
from benchmarks.peers import ROOT
from benchmarks.same_ppo import CLOSE, QUANTITIES, SHOWN_BY, TRL, Measured, Numbers, apart, by_trl, norm
from benchmarks.same_ppo_cases import Shape, cases, random_weights, save
from benchmarks.same_ppo_ways import WAYS

RECORDED = Path(__file__).parent / "fixtures" / "beside-trl"
TOLD = json.loads(RECORDED.with_suffix(".json").read_text())
NAMES = [each["name"] for each in TOLD["cases"]]
FAR = 1e-3  # a hundred times what counts as equal
PEER = ROOT / ".peers" / f"trl-{TRL}"


@lru_cache
def measured(name: str) -> Measured:
    case = next(each for each in cases(Shape(**TOLD["shape"])) if each.name == name)
    told = next(each for each in TOLD["cases"] if each["name"] == name)
    weights = random_weights(case, TOLD["seed"])
    own, orders = ours.run(case, weights, told["rows"])
    undone, _ = ours.run(case, weights, told["rows"], sample_variance=True)
    assert orders == told["orders"], "the minibatches are no longer those that were recorded"
    numbers = load_file(RECORDED.with_suffix(".safetensors")).items()
    trl = {key.removeprefix(f"{name}/"): each for key, each in numbers if key.startswith(f"{name}/")}
    return Measured(case, weights, told["rows"], orders, own, undone, trl)


@lru_cache
def float64(name: str, *ways: str) -> Numbers:
    return measured(name).float64(ways)


def unequal(differences: Mapping[str, float]) -> dict[str, float]:
    return {name: d for name, d in differences.items() if not d < CLOSE}


@pytest.mark.parametrize("name", NAMES)
def test_trueup_is_the_float64_implementation(name):
    """In all of it: what is seen, what is made of it, and every update with its gradient, to the last weights."""
    found = apart(measured(name).trueup, float64(name))
    assert found.keys() == set(QUANTITIES.values())
    assert unequal(found) == {}


@pytest.mark.parametrize("name", NAMES)
def test_trl_is_the_float64_implementation_that_does_as_trl_does(name):
    """Nothing is left that has no name."""
    found = apart(measured(name).trl, float64(name, *WAYS))
    assert found.keys() >= {quantity for quantity in QUANTITIES.values() if "weights" not in quantity}
    assert unequal(found) == {}


@pytest.mark.parametrize("name", NAMES)
def test_trueup_is_trl_where_both_mean_the_same_and_nowhere_else(name):
    """With advantages whitened by the sample variance, which every case would show."""
    case, found = measured(name).case, apart(measured(name).undone, measured(name).trl)
    assert unequal({quantity: d for quantity, d in found.items() if quantity not in case.apart}) == {}
    assert all(d > CLOSE for quantity, d in found.items() if quantity in case.apart)


def test_without_padding_trueup_is_trl_from_the_log_probs_to_the_last_weights():
    assert measured("no padding").case.apart == ()
    found = apart(measured("no padding").undone, measured("no padding").trl)
    assert found.keys() == set(QUANTITIES.values()) - {"logged figures"}
    lengths = {len(row["tokens"]) for row in measured("uneven").rows}
    assert len(lengths) > 4, "and elsewhere rows are of different length"


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_trl_matters(way):
    """Without it the float64 implementation is no longer TRL."""
    name = SHOWN_BY.get(way, "uneven")
    found = apart(measured(name).trl, float64(name, *(other for other in WAYS if other != way)))
    assert max(found.values()) > FAR


def test_trl_does_not_clip_the_gradient():
    uneven = measured("uneven")
    limit = uneven.case.optimizer["grad_clip"]
    assert norm(uneven.trueup) == pytest.approx(limit, rel=1e-5) and norm(uneven.trl) > 10 * limit


def test_trl_logs_over_padding_and_trueup_does_not():
    uneven = measured("uneven")
    real = len(uneven.trl["kl"]) / (len(uneven.rows) * max(len(row["tokens"]) for row in uneven.rows))
    logged, over_tokens = float(uneven.trl["log/approx_kl"]), float(uneven.trl["real/approx_kl"])
    assert 0.5 < real < 0.8 and logged < 0.9 * over_tokens
    assert float(uneven.trueup["approx_kl"]) == pytest.approx(float(float64("uneven")["approx_kl"]), abs=CLOSE)
    assert abs(float(uneven.trl["log/entropy"]) - float(uneven.trl["real/entropy"])) > FAR


def test_the_rollouts_are_our_sampler_s():
    """Its log-probabilities, recorded with the tokens, are those that the trainer computes."""
    for name in NAMES:
        sampled = np.concatenate([row["logprobs"] for row in measured(name).rows])
        assert np.abs(sampled - measured(name).trueup["logprobs"]).max() < CLOSE


def test_a_difference_is_a_share_of_what_is_compared():
    one = {"kl": np.array([0.5, 20.0]), "0/gradient/value/norm.weight": np.array([1e-3, 3e-3])}
    other = {"kl": np.array([0.5, 20.2]), "0/gradient/value/norm.weight": np.array([1e-3, 2e-3])}
    assert apart(one, other) == pytest.approx({"KL": 0.2 / 20.2, "gradient of the value": 0.5})
    with pytest.raises(AssertionError):
        apart({"kl": np.zeros(2)}, {"kl": np.zeros(3)})


@pytest.mark.slow
@pytest.mark.skipif(not (PEER / "ready").exists(), reason="python -m benchmarks same-ppo makes TRL's environment")
def test_trl_still_says_what_was_recorded(tmp_path):
    uneven = measured("uneven")
    save(tmp_path, uneven.case, uneven.weights, uneven.rows, uneven.orders)
    _, (again,) = by_trl(str(PEER / "bin" / "python"), [tmp_path])
    assert unequal(apart(again, uneven.trl)) == {}
