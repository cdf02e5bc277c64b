"""A machine that is lost with its disk, while a bucket has what it made."""

import shutil
import time

import pytest

from ..conftest import Store
from ..processes import wait
from .harness import end, ends_well, noted, same, start, training_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def checkpoints(bucket):
    """Returns the names of the checkpoints of the training in the bucket."""
    found = bucket.names("work/train")
    return bucket.names(f"work/train/{found[0]}/checkpoints") if found else []


def lost(folder):
    """Removes a folder; False while a worker that has not noticed the kill still writes there."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_a_lost_disk_goes_on_from_the_bucket(whole, bucket, tmp_path):
    """The store is where it is when nothing is set; another machine finds what is finished."""
    store = Store(tmp_path)
    store.home = tmp_path / "runs" / ".store"
    settings = {**bucket.environment, "EBFLOW_HOME": ""}
    process = start(store, **settings)
    hit = training_of(store)
    wait("checkpoints in the bucket", lambda: len(checkpoints(bucket)) > 1)
    process.kill()
    end(process)
    wait("the end of all writers", lambda: lost(store.home))
    since = time.time()
    ends_well(start(store, **settings))
    same(store, whole)
    noted(17, store, hit, since)
    assert bucket.names("work/train") == []
    shutil.rmtree(store.home)
    assert "train cached" in "\n".join(ends_well(start(store, **settings)))
    same(store, whole)
