"""Jobs with one typical mistake each, and their correct twins.

The line with the mistake ends in ``# mistake``. All work on the invoices of :mod:`tests.planted.shop`.
"""
