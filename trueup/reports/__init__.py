"""What a run leaves behind for people: one self-contained HTML page, and the same result in a terminal.

Both are rendered from one JSON-able dict, so a page can be made again later from a saved result. Every key is
optional: what was not measured is left out, never invented. Model text is hostile until shown otherwise.

    seed, n_heldout, seconds, cpu_seconds        numbers
    people                                       the sentence that says who judged
    stages            [{name, seconds, data, result}]
    win_rates         [{name: "RL vs SFT sampled", value, ci: [low, high], n}]
    reward_models     [{name, kind, accuracy, ci, gold_accuracy, gold_ci, n, ceiling}]
    over_optimisation {sqrt_kl, proxy, gold, n, best_of_n: {n, sqrt_kl, proxy, gold}, weak: {as the outer one}}
                      with proxy_low, proxy_high, gold_low, gold_high where there are intervals
    gold_scores       [{name, values}]           the gold score of every held-out post
    samples           [{post, entries: [{who, text, gold}]}]   the first entry is what the others are compared with
    curves            {pretrain, sft, reward, rl: {step: [...], n, metric: [...], metric_low, metric_high}}
    lineage, notes, commands                     lists of lines
    settings, versions                           (nested) tables
"""

from .charts import Series, histogram, interval_chart, line_chart
from .page import demo_page
from .terminal import print_summary

__all__ = ["Series", "demo_page", "histogram", "interval_chart", "line_chart", "print_summary"]
