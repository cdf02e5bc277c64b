"""The command line and stores of the pipelines' tests."""

from ..pipelines.conftest import Store, ebflow, empty_database, home, tracking_home

__all__ = ["Store", "ebflow", "empty_database", "home", "tracking_home"]
