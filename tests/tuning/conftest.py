"""The command line and stores of the pipelines' tests."""

from ..pipelines.conftest import Store, ebflow, home, tracking_home

__all__ = ["Store", "ebflow", "home", "tracking_home"]
