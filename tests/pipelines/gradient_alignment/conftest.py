"""Prepared digits, which every stage of the study reads."""

import pytest

from tests.prepared import prepare


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Prepared digits with classes."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare("digits", folder, label="label")
    return folder
