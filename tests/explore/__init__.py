"""Tests of ``harness.explore``."""
