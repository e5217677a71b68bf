"""Tests of ``harness.queues``, and the behaviour suite that every queue passes."""
