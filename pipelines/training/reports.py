"""Reports of the workers of Ray Train, and the failures after which their training ends."""

import time
from typing import Any

import ray
import ray.train
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus

from pipelines.errors import StageFailed, in_one_line
from pipelines.tracking.ray_train import failures
from pipelines.tracking.run import Reporter

# Starts of workers in a row that may fail. Starts that wait for nodes do not count.
START_LIMIT = 5

NODE_S = 60.0  # Seconds in which Ray notices that a node is lost
POLL_S = 1.0


class Reports(ray.train.UserCallback):
    """Forwards what workers report; runs in Ray Train's controller.

    :class:`~pipelines.tracking.ray_train.MLflowCallback` does so for any loop; here the stage has
    a run, rows and steps of its own.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.step, self.saved = reporter, -1, -1

    def after_report(
        self, run_context: object, metrics: list[dict[str, Any]], checkpoint: object
    ) -> None:
        """Reports the rows of the first worker, with the metrics that only others have."""
        merged: dict[tuple[str, int], dict[str, float]] = {}
        for report in metrics:
            for row in report["rows"]:
                known = merged.setdefault((row["kind"], row["step"]), {})
                known |= {name: v for name, v in row["metrics"].items() if name not in known}
        first = metrics[0]
        rows = [{**row, "metrics": merged[row["kind"], row["step"]]} for row in first["rows"]]
        self.reporter.log(rows, first["keep"])
        self.step = rows[-1]["step"] if rows else self.step
        if first["keep"]:
            self.saved = max(self.saved, self.step)


class FailureLimit(ControllerCallback, WorkerGroupCallback):
    """Ends a training whose workers fail again and again; runs in Ray Train's controller.

    Failures count until the next checkpoint, and those at which a node was lost do not count. Ray
    Train would count all of a training, which may last for weeks.
    """

    nodes: frozenset[str]

    def __init__(self, reports: Reports, max_failures: int) -> None:
        self.reports, self.max_failures = reports, max_failures
        self.failed: list[frozenset[str]] = []  # nodes of the workers at each failure
        self.saved, self.failed_starts, self.reported = -1, 0, False

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Takes the nodes of the workers that start."""
        self.nodes = frozenset(one.metadata.node_id for one in worker_group.get_workers())
        self.failed_starts, self.reported = 0, False

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Reports the workers that failed together, in one line.

        Raises the error of the first after more than ``max_failures`` without a checkpoint.
        """
        errors = worker_group_status.errors
        if self.reported or not errors:
            return
        self.reported = True  # Ray Train polls the same workers several times
        self.reports.reporter.fail(failures(errors))
        if self.reports.saved > self.saved:
            self.saved, self.failed = self.reports.saved, []
        self.failed.append(self.nodes)
        if not worker_group_status.get_preemption_info() and self._is_exceeded():
            raise errors[min(errors)]

    def _is_exceeded(self) -> bool:
        """Returns True if there were too many failures at which no node was lost.

        Workers report a broken connection before Ray notices that the other node is lost.
        """
        deadline = time.monotonic() + NODE_S * (len(self.nodes) > 1)
        while sum(map(_are_alive, self.failed)) > self.max_failures:
            if time.monotonic() >= deadline:
                return True
            time.sleep(POLL_S)
        return False

    def after_controller_state_update(self, previous_state: object, current_state: object) -> None:
        """Raises StageFailed if too many starts in a row failed, and not for lack of nodes."""
        error = getattr(current_state, "training_failed_error", None)
        cause = getattr(error, "controller_failure", None)
        self.failed_starts += isinstance(cause, WorkerGroupStartupFailedError)
        if self.failed_starts > START_LIMIT:
            raise StageFailed(f"workers fail to start: {in_one_line(cause)}") from cause


def _are_alive(nodes: frozenset[str]) -> bool:
    return nodes <= {node["NodeID"] for node in ray.nodes() if node["Alive"]}
