"""Tests of the harness itself; ``jobs`` holds every toy job, importable by a real worker."""
