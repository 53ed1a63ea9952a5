"""Programs that measure: `python -m benchmarks NAME --help`. None is part of the installed package."""
