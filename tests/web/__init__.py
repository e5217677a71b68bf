"""Tests of the page that shows and steers jobs."""
