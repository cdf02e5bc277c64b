"""Stages on Ray, put together into graphs that redun evaluates.

A stage is cached in the store by its key: a hash of its code, its configuration and the content
of its inputs (``keys.py``). Stages that the store has not run as tasks of Ray, which starts at the
first of them. redun is imported by ``tasks.py``, ``executors.py`` and ``evaluation.py`` alone.
"""

from pipelines.engine.resources import WHOLE_NODE, needs_from_config, needs_of_training
from pipelines.engine.retries import Retries
from pipelines.engine.stages import Context, Stage
from pipelines.engine.values import Artefact, Source
