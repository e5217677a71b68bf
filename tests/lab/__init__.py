"""Tests of ``harness.lab``."""
