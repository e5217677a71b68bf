"""Implementation of the pytest plugin's fixtures and options.

* :mod:`harness.testing.options`: the options, checked before anything is collected; interruptions as parameters.
* :mod:`harness.testing.labs`: one lab of each kind for each process, and trials in them.
* :mod:`harness.testing.exploring`: explorations as tests; :mod:`harness.testing.crash_points`: one subtest a point.
* :mod:`harness.testing.collector`: the records of all processes, and the bar.
"""
