"""Any Python function as a scorer: `FILE.py:NAME`, with a time limit and a few tries.

Two forms, told apart by how many arguments the function takes:

    def brevity(prompt: str, completion: str) -> float: ...            # one completion at a time
    def brevity(completions: list[trueup.Completion]) -> list[float]: ...   # all of a batch
"""

from __future__ import annotations

import importlib.util
import inspect
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError, RunError
from ..records import Completion, Score

TRIES = 3


class FunctionScorer:
    """Calls the function in a thread of its own: one that hangs is left behind, since Python cannot stop it."""

    def __init__(self, function: Callable[..., Any], name: str, time_limit: float = 0.0) -> None:
        self.function, self.name, self.time_limit = function, name, time_limit
        self.one_by_one = _takes(function, name) == 2

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        """Tried again when it raises or takes too long; after that it is an error of the run."""
        if not completions:
            return []
        for _ in range(TRIES):
            values, problem = self._call(list(completions))
            if not problem:
                return self._checked(values, len(completions))
        raise RunError(
            f"the scorer {self.name} failed {TRIES} times in a row: {problem}",
            "mend it and resume the run; scoring.time_limit says how long it may take",
        )

    def _call(self, completions: list[Completion]) -> tuple[Any, str]:
        """What it returned, or what went wrong."""
        found: list[tuple[Any, str]] = []

        def work() -> None:
            try:
                found.append((self._values(completions), ""))
            except Exception as error:  # whatever somebody's function may raise
                found.append((None, f"{type(error).__name__}: {error}"))

        thread = threading.Thread(target=work, daemon=True, name=self.name)
        thread.start()
        thread.join(self.time_limit or None)
        return found[0] if found else (None, f"no answer within {self.time_limit:g} s (scoring.time_limit)")

    def _values(self, completions: list[Completion]) -> Any:
        if self.one_by_one:
            return [self.function(completion.prompt.text, completion.text) for completion in completions]
        return self.function(completions)

    def _checked(self, values: Any, count: int) -> list[Score]:
        try:
            scores = [Score(float(value)) for value in values]
        except (TypeError, ValueError) as error:
            raise RunError(
                f"the scorer {self.name} returned no numbers: {error}", "it has to return one number a completion"
            ) from error
        if len(scores) != count:
            raise RunError(
                f"the scorer {self.name} returned {len(scores)} numbers for {count} completions",
                "it has to return one number a completion, in their order",
            )
        return scores


def load_function(source: str) -> Callable[..., Any]:
    """The function that `FILE.py:NAME` names. Its file is run, as any Python file is."""
    path, _, name = source.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"trueup_scorer_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None, "a name that ends in .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"{path} could not be run: {type(error).__name__}: {error}", "mend it") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ModelError(f"{path} has no function '{name}'", f"it has {', '.join(known) or 'none'}")
    _takes(function, source)
    return function  # type: ignore[no-any-return]


def _takes(function: Callable[..., Any], name: str) -> int:
    empty, kinds = inspect.Parameter.empty, (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    asked = [p for p in inspect.signature(function).parameters.values() if p.default is empty and p.kind not in kinds]
    if len(asked) not in (1, 2):
        raise ModelError(
            f"the scorer {name} takes {len(asked)} arguments", "it takes (prompt, completion) or a list of completions"
        )
    return len(asked)
