"""Checks and formats for what enters and leaves: stored data, class names, URLs, files, log lines, output text."""
