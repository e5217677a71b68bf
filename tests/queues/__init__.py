"""Tests of ``harness.queues``."""
