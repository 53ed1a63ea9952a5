"""The arithmetic of RLHF: tensors in, tensors out. No objects, no configuration, no device, no logging.

Usable alone:

    from trueup.algo import gae, policy_loss, token_logprobs, whiten

Conventions, the same everywhere: shapes end names (`mask_bt` is batch x time, `logits_bv` batch x vocabulary); a mask
is bool and True where a token counts; losses over tokens are sums, divided by the caller; half precision is widened
to float32 and float64 stays float64.
"""

from .advantages import gae, group_relative, leave_one_out, token_rewards
from .kl import adapted, k1, k2, k3, kl_loss, per_token_penalty, safe_exp
from .logprobs import chunked_logprobs, chunked_logprobs_and_entropy, entropy, token_logprobs
from .losses import language_model_loss, policy_loss, value_loss
from .masked import at_least_float32, last_true, masked_mean, masked_sum, masked_var, whiten, zero_outside
from .preference import (
    centring_loss,
    margin_loss,
    plackett_luce_loss,
    preference_loss,
    ranking_loss,
    smoothed,
    verdict_loss,
)

__all__ = [
    "adapted",
    "at_least_float32",
    "centring_loss",
    "chunked_logprobs",
    "chunked_logprobs_and_entropy",
    "entropy",
    "gae",
    "group_relative",
    "k1",
    "k2",
    "k3",
    "kl_loss",
    "language_model_loss",
    "last_true",
    "leave_one_out",
    "margin_loss",
    "masked_mean",
    "masked_sum",
    "masked_var",
    "per_token_penalty",
    "plackett_luce_loss",
    "policy_loss",
    "preference_loss",
    "ranking_loss",
    "safe_exp",
    "smoothed",
    "token_logprobs",
    "token_rewards",
    "value_loss",
    "verdict_loss",
    "whiten",
    "zero_outside",
]
