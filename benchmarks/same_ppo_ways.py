"""In what TRL's PPO departs from trueup's: each way by a name, for the float64 implementation to take or leave."""

from __future__ import annotations

AFTER_END = "score after the end"  # on the padding behind the last token, whose value is learnt and bootstrapped from
SAMPLE_VARIANCE = "variance over n - 1"  # when advantages are whitened
PENALTY = "penalty for a missing EOS"  # taken off the score; otherwise a fixed score stands in its place
UNCLIPPED = "gradient not clipped"
MEAN_OF_MEANS = "mean of means"  # of micro-batches; otherwise one sum over one count
UNLIMITED_KL = "KL of a token without limit"  # otherwise at most 10 nats either way
WAYS = (AFTER_END, SAMPLE_VARIANCE, PENALTY, UNCLIPPED, MEAN_OF_MEANS, UNLIMITED_KL)
