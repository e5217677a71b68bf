"""Enumerators: sources of pairs of item and cursor for iteration jobs.

* :mod:`~harness.sources.enumerators`: the contract, sequences, one item; ``throttles`` makes
  them wait.
* :mod:`~harness.sources.keyset`: SQLAlchemy selects, page by page (``pages``) along a key (``keys``, ``key_values``,
  ``nulls``); ``selects`` analyses which tables and keys a select reads.
* :mod:`~harness.sources.csv_files`: rows of CSV files; ``csv_lines`` reads their lines.
* :mod:`~harness.sources.nesting`: enumerators within enumerators.
* :mod:`~harness.sources.parallel`, ``parallel_selects``: division among several jobs.
"""
