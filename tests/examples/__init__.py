"""Tests of the examples: each is run as its docstring says."""
