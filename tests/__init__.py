"""Tests; they mirror the sources, name by name."""
