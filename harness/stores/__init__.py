"""Where progress lives: siblings of one contract, :class:`harness.progress.Store`, with one behaviour suite.

* :mod:`harness.stores.memory`: in the process; the reference.
* :mod:`harness.stores.rq_meta`: in the ``meta`` of the RQ job, so that it goes where the job goes.
"""
