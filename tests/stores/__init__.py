"""Tests of ``harness.stores``."""
