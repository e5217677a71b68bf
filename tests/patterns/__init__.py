"""Tests of the two patterns."""
