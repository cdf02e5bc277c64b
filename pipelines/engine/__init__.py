"""Stages on Ray, chained and remembered by redun: the only package that knows how redun works.

redun runs in the driver and keeps, in ``redun.db``, which call of which code gave which artefact.
A stage is found again by its source and that of all that it imports (``digests.py``), its
configuration, and the *content* of the artefacts it reads. What is not found runs as a Ray task;
Ray starts at the first of them, so a fully cached run never does; one that is whole is found by
itself (``finished.py``). What needs redun (``evaluation.py``, ``planning.py``, ``tasks.py``) is
not imported here: that takes longer than all else of a run that finds everything.
"""

from pipelines.engine.demand import ALONE, of_training, own
from pipelines.engine.outcome import Outcome, Status
from pipelines.engine.retries import Retries
from pipelines.engine.stages import Context, Stage
from pipelines.engine.values import Artefact, Source
