"""RQ's own tests, run with our workers in place of RQ's, and the differences that are expected.

``tox run -e rq-suite`` runs them. An RQ upgrade thereby shows what it changes for our workers.
"""
