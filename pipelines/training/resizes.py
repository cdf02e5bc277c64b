"""Changes of the number of workers, before which a training saves a checkpoint.

Ray Train replaces all workers if the cluster has CPUs for more, or has lost some. The callbacks
around this are of Ray's developer API.
"""

import time

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import state
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus

from pipelines.training.loop import SAVE

SAVE_S = 60.0  # Seconds that a change waits for a checkpoint; a validation may take longer
POLL_S = 0.1
WAIT_S = 1.0  # Seconds between two attempts to start the fewest workers

WAITING = state.InitializingState, state.RestartingState, state.ReschedulingState


class Resizes(ControllerCallback, WorkerGroupCallback):
    """Requests checkpoints before workers are replaced; runs in Ray Train's controller."""

    group: WorkerGroup
    warned: bool

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Takes the workers that start."""
        self.group, self.warned = worker_group, False

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Requests a checkpoint if a node is about to be taken away."""
        if worker_group_status.get_preemption_info() and not self.warned:
            self.warned = True
            self.group.execute_async(_request)

    def after_controller_state_update(self, previous_state: object, current_state: object) -> None:
        """Waits for a checkpoint if workers are about to be replaced, and for nodes."""
        if isinstance(current_state, WAITING) and type(previous_state) is type(current_state):
            time.sleep(WAIT_S)  # Ray's controller would try again at once
        if isinstance(current_state, state.ResizingState):
            self.group.execute_async(_request)
            deadline = time.monotonic() + SAVE_S
            while time.monotonic() < deadline and self._saves():
                time.sleep(POLL_S)

    def _saves(self) -> bool:
        status = self.group.poll_status(timeout=SAVE_S)  # reports rows
        try:
            saves = ray.get(self.group.execute_single_async(0, _is_requested))
        except RayActorError:  # the worker died just now
            return False
        return saves and not (status.errors or status.finished)


def _request() -> None:
    SAVE.set()


def _is_requested() -> bool:
    return SAVE.is_set()
