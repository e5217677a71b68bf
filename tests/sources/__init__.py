"""Tests of ``harness.sources``."""
