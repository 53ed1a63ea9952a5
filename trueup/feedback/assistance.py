"""People with help and without, on golds: who is more often right, and who follows a helper into its mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..records import Judgement
from ..stats.assistance import answers_of, assistance
from ..store import queue


@dataclass
class HelpedGolds:
    """Items stream by once; kept are the expected places of golds that helpers say something about."""

    keys: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, item: queue.Item) -> None:
        if item.help and item.key and item.role == "gold" and item.state != "quarantined":
            self.keys[item.id] = tuple(item.key["ranks"])

    def figures(
        self, judgements: Iterable[tuple[Judgement, Mapping[str, Any]]], *, seed: int = 0
    ) -> dict[str, Any] | None:
        """None where nobody judged such a gold; judgements are read only where there is one."""
        if not self.keys:
            return None
        said = [
            judgement
            for judgement, about in judgements
            if about["item"] in self.keys and about["round"] == 0 and "assisted" in judgement.meta
        ]
        if not said:
            return None
        answers = [each for judgement in said for each in answers_of(judgement, self.keys[judgement.meta["item"]])]
        helped = [judgement for judgement in said if judgement.meta["assisted"]]
        opened = sum(bool((judgement.meta.get("answer") or {}).get("help_opened", True)) for judgement in helped)
        return assistance(answers, seed=seed) | {"judgements": len(said), "helped": len(helped), "opened": opened}
