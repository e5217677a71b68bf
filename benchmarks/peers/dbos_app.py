"""The orders as a workflow of DBOS, one step an order: ``python -m benchmarks.peers.dbos_app ORDERS SECONDS``."""

from __future__ import annotations

import os
import sys
from typing import Any

from dbos import DBOS, SetWorkflowID

from benchmarks.peers import work


def main(orders: int, seconds: float) -> None:
    """Resume the workflow, or start it, and stay."""
    config: Any = {"name": "peers", "system_database_url": os.environ[work.DATABASE], "log_level": "WARNING"}
    DBOS(config=config)
    step = DBOS.step()(work.process)

    def flow(number: int, pause: float) -> None:
        for each in range(number):
            step(each, pause)

    workflow = DBOS.workflow(name="orders")(flow)
    DBOS.launch()
    with SetWorkflowID("orders"):
        DBOS.start_workflow(workflow, orders, seconds).get_result()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
