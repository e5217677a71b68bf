"""Tests of ``harness.report``."""
