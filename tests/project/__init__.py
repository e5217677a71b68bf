"""Tests of the package as a whole: its names, its documentation, its installation."""
