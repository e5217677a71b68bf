"""Checks and formats for input and output: stored data, class names, URLs, files, log lines, text."""
