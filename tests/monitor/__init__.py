"""Tests of ``harness.monitor``."""
