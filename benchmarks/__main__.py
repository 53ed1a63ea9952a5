"""`python -m benchmarks NAME`: one measurement, printed as text or JSON."""

from __future__ import annotations

import click

from .adapters_memory import adapters_memory
from .choose import choose_benchmark
from .coverage import coverage
from .gold import gold
from .growth import growth
from .guard import guard
from .label import label
from .learning import learning
from .plan import plan
from .reward_size import reward_size
from .same_ppo import same_ppo
from .speed import speed
from .steady import steady
from .turnover import turnover
from .turnover_charts import turnover_charts


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure trueup. Figures depend on the machine; ratios are taken within one run."""


main.add_command(adapters_memory)
main.add_command(choose_benchmark)
main.add_command(coverage)
main.add_command(gold)
main.add_command(growth)
main.add_command(guard)
main.add_command(label)
main.add_command(learning)
main.add_command(plan)
main.add_command(reward_size)
main.add_command(same_ppo)
main.add_command(speed)
main.add_command(steady)
main.add_command(turnover)
main.add_command(turnover_charts)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
