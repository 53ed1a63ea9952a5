"""The arithmetic behind every reported figure: intervals, win rates, agreement, over-optimisation. NumPy only."""

from .curves import BestOfNFit, RlFit, best_of_n_kl, best_of_n_mean, fit_best_of_n, fit_rl
from .intervals import Estimate, Interval, bootstrap_difference, bootstrap_mean, wilson
from .preference import Agreement, accuracy, agreement, bradley_terry, ceiling, judged_pairs, pair_accuracy
from .winrate import WinRate, sign_test, winrate

__all__ = [
    "Agreement",
    "BestOfNFit",
    "Estimate",
    "Interval",
    "RlFit",
    "WinRate",
    "accuracy",
    "agreement",
    "best_of_n_kl",
    "best_of_n_mean",
    "bootstrap_difference",
    "bootstrap_mean",
    "bradley_terry",
    "ceiling",
    "fit_best_of_n",
    "fit_rl",
    "judged_pairs",
    "pair_accuracy",
    "sign_test",
    "wilson",
    "winrate",
]
