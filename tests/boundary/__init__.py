"""Tests of ``harness.boundary``."""
