"""Tests of channels/."""
