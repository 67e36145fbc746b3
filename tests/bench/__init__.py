"""The benchmarks N1 to N13: `python -m tests.bench --help`."""
