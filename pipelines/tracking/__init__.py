"""MLflow, as it is written to; ``pipelines/history.py`` reads it."""

__all__ = ["Follower", "Sender", "StageRun", "Tracker", "connect", "default_store", "lasting",
           "log_model", "reaching", "save_model", "serve", "store_uri", "uri"]  # fmt: skip

from pipelines.tracking.following import Follower, Sender
from pipelines.tracking.models import log_model, save_model
from pipelines.tracking.places import default_store, lasting, reaching, serve, store_uri, uri
from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import Tracker, connect
