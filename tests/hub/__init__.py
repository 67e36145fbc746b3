"""Tests of hub/."""
