"""The list of mutants keeps up with the code: every snippet stands in its file once and the broken file is Python."""

import ast
from pathlib import Path

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: f"{Path(m.file).stem}: {m.why}")
def test_a_mutant_applies_and_still_parses(mutant: mutants.Mutant) -> None:
    source = (mutants.ROOT / mutant.file).read_text()
    assert ast.dump(ast.parse(mutant.applied_to(source))) != ast.dump(ast.parse(source))


def test_there_are_at_least_thirty_and_every_file_has_tests() -> None:
    assert len(mutants.MUTANTS) >= 30
    assert all((mutants.ROOT / test).is_file() for tests in mutants.TESTS.values() for test in tests)
