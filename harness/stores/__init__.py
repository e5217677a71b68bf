"""Progress stores: implementations of :class:`harness.progress.Store`, with one behaviour suite.

* :mod:`harness.stores.memory`: in the process; the reference.
* :mod:`harness.stores.rq_meta`: in the hash of the RQ job, so that both are kept together. The default on RQ.
* :mod:`harness.stores.redis`: in separate keys in Redis, so that the progress outlives the RQ job.
* :mod:`harness.stores.sql`: in a database; only this store can commit progress and work together.

The two stores in Redis share :mod:`harness.stores.watched` and :mod:`harness.stores.shared`.
"""
