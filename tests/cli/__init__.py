"""Tests of ``harness.cli``."""
