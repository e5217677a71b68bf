"""Tests of the three demonstration jobs."""
