"""The benchmarks N1 to N14: `python -m tests.bench --help`."""
