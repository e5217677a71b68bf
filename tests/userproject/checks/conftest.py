"""A database for each process that runs tests."""

import os

os.environ["SHOPAPP_DATABASE"] = f"sqlite:///shopapp-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.db"
