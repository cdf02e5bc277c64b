"""Faults of stored files: a full disk, damaged checkpoints, changed data."""

import contextlib
import re
import subprocess
import time

import pytest

from ..conftest import Store
from ..processes import wait
from .harness import (
    artefact,
    checkpoints,
    end,
    ends_well,
    intact,
    noted,
    runs,
    same,
    start,
    training_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SIZE = "48m"


@pytest.fixture
def small(tmp_path):
    """A store on a small file system of its own, in memory."""
    store = Store(tmp_path)
    store.home.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "ebflow", str(store.home)],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"this machine lets no test mount a file system: {made.stderr.strip()}")
    yield store
    subprocess.run(["umount", "--lazy", str(store.home)], check=True)


def fill(path):
    """Writes to a file until the disk is full."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(size))


def test_a_full_disk_is_one_line_and_loses_nothing(whole, small):
    process = start(small, "--retries", "0")
    hit = training_of(small)
    fill(small.home / "filler")
    code, _, err = end(process)
    assert code == 1 and len(err) == 1, err
    assert re.search("No space left on device|disk is full", err[0]), err
    assert f"&& {small.named} run density" in err[0]
    (small.home / "filler").unlink()
    since = time.time()
    ends_well(start(small, "--retries", "0"))
    same(small, whole)
    noted(9, small, hit, since)


def turn(path):
    """Turns one bit of a file, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(whole, killed, tmp_path):
    store = killed[0].copy(tmp_path)
    before, newest = checkpoints(store.home / killed[1].work.relative_to(killed[0].home))[-2:]
    turn(newest / "ema.safetensors")
    since = time.time()
    out = ends_well(start(store))
    (warning,) = (line for line in out if ": corrupt" in line)
    assert f"{newest / 'ema.safetensors'}: corrupt" in warning
    step = before.name.removeprefix("step-")
    assert warning.endswith(f"training resumes from step {step}")
    same(store, whole)
    noted(10, store, killed[1], since)


def test_changed_data_are_told_and_prepared_again(whole, tmp_path):
    """The test rows change while the flow is trained, which does not read them."""
    store = Store(tmp_path)
    process = start(store)
    training_of(store)
    (shard,) = (store.home / "artefacts" / "prepare").glob("*/test-*.parquet")
    turn(shard)
    code, _, err = end(process)
    assert code == 2 and len(err) == 1, err
    assert shard.name in err[0] and "expected" in err[0]
    out = ends_well(start(store))
    assert "train cached" in "\n".join(out) and "prepare: started" in out
    harmed = f"{shard.parent}: found files that are missing or changed, expected what was stored"
    assert f"prepare: {harmed}; it is recomputed" in out
    assert [name for name, _ in runs(store)].count("train") == 1
    same(store, whole)
    assert (artefact(store, "prepare") / shard.name).read_bytes() == (
        artefact(whole, "prepare") / shard.name
    ).read_bytes()
    intact(11)


def test_a_stage_that_fails_twice_succeeds_the_third_time(whole, killed, tmp_path):
    """The stage's folder of artefacts is a link to a share that is away."""
    store = killed[0].copy(tmp_path)
    obstacle = store.home / "artefacts" / "evaluate"
    obstacle.symlink_to(tmp_path / "away")
    process = start(store, "--retries", "1000")
    wait("two failures", lambda: runs(store).count(("evaluate", "FAILED")) > 1)
    obstacle.unlink()
    ends_well(process)
    same(store, whole)
    assert not [status for _, status in runs(store) if status == "RUNNING"]
    intact(13)
