"""Orders interrupted on this package's workers, RQ, Celery and DBOS, in one run: ``tox run -e peers``."""
