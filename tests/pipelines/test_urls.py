"""URLs, and the parts of one that may be shown."""

import pytest

from pipelines.store.files import is_url, without_password

SHOWN = {
    "http://me:secret@host:5000/path": "http://host:5000/path",
    "https://host/x.parquet?key=secret#part": "https://host/x.parquet",
    "postgresql://me:se@cret@host/db?sslmode=require": "postgresql://host/db",
    "sqlite:////tmp/mlflow.db": "sqlite:////tmp/mlflow.db",
    "s3://bucket/a@b": "s3://bucket/a@b",
}


@pytest.mark.parametrize("url", SHOWN)
def test_passwords_are_not_shown(url):
    assert without_password(url) == SHOWN[url]


def test_a_url_is_no_path():
    for place in ("s3://bucket/x", "s3:/bucket/x", "gs://b", "http://host"):
        assert is_url(place)
    for place in ("/a/b", "a.parquet", "digits", "./a:b/c", "runs/.store"):
        assert not is_url(place)
