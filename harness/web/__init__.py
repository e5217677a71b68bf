"""Web page that shows jobs live and steers them: an ASGI application for ``harness web``, or to be mounted.

* :mod:`harness.web.app`: the application and its addresses.
* :mod:`harness.web.feed`: one read of Redis for all viewers, and the stream of changes for each of them.
* :mod:`harness.web.pages`: a look as HTML, in parts. :mod:`harness.web.metrics`: a look for Prometheus.
* :mod:`harness.web.access`: who may view and steer; protection against requests from other sites.
* :mod:`harness.web.actions`: actions on a job. :mod:`harness.web.forms`: the form that enqueues one.
* :mod:`harness.web.serving`: the server of ``harness web``. :mod:`harness.web.stage`: its demo.
"""

from harness.web.access import Access, loopback_only, token_access
from harness.web.app import create_app

__all__ = ["Access", "create_app", "loopback_only", "token_access"]
