"""What the product costs; run by ``tox run -e bench``, serial, never as timed tests."""
