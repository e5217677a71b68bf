"""Benchmarks of the cost of the product; run by ``tox run -e bench``, serial, never as timed tests."""
