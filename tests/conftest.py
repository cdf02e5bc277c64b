"""Every test: one thread, a store of its own, no telemetry, no log of MLflow on the terminal."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# What a shell starts in the background ignores SIGINT, and so does what that starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
