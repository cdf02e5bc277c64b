"""Messages about jobs, from the processes of Ray to the driver."""

import queue
import threading
from collections.abc import Callable
from typing import Any

WAIT_S = 0.5

Show = Callable[[str, str, float, str, str], None]
"""Shows the stage and the key of a job, the share that is done, what it does now, and a note."""


class Messages:
    """A queue of messages to the driver; a copy in another process adds to the same queue.

    It ends with the object that opened it.
    """

    def __init__(self) -> None:
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
        self.queue: Any = Queue(actor_options=options)

    def __call__(self, stage: str, key: str, share: float, text: str, note: str) -> None:
        """Adds a message, and does not wait for it."""
        self.queue.actor.put_nowait.remote((stage, key, share, text, note))

    def deliver(self, show: Show, stopped: threading.Event) -> None:
        """Shows the messages that come until ``stopped`` is set."""
        from ray.exceptions import RayError

        while not stopped.is_set():
            try:
                show(*self.queue.get(timeout=WAIT_S))
            except queue.Empty:
                continue
            except RayError:  # Ray restarts an actor that is lost
                stopped.wait(WAIT_S)
