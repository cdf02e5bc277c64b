"""Workers that come no further: a process that is stopped, and one with a stopped thread."""

import ctypes
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from .harness import PAIR, children, ends_well, failures, noted, prepared, same, start, training_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEIZE, INTERRUPT, CONTINUE = 0x4206, 0x4207, 7
ANY_THREAD = 0x40000000
PATIENCE_S = 15
WORDS = ("--cluster.patience", PATIENCE_S, "--cluster.max-failures", "5")


def test_a_stopped_worker_is_replaced(whole, pair, tmp_path):
    store = prepared(whole, tmp_path)
    process = start(store, *WORDS, *PAIR)
    hit = training_of(store)
    _, worker = children(process, "RayTrainWorker")
    worker.send_signal(signal.SIGSTOP)
    ends_well(process)
    same(store, pair)
    # Ray's check of it, or the other worker, which waits for it, whichever is sooner.
    assert re.search("health check|worker 0: .*[Tt]imed out", failures(store)[0])
    noted(7, store, hit)


def test_a_worker_with_a_hung_thread_is_replaced(whole, pair, tmp_path):
    store = prepared(whole, tmp_path)
    process = start(store, *WORDS, *PAIR)
    hit = training_of(store)
    hang(busiest(children(process, "RayTrainWorker")[0]))
    ends_well(process)
    same(store, pair)
    # A thread that stops while it holds Python's lock answers no health check either.
    assert re.search(r"health check|worker \d: .*[Tt]imed out", failures(store)[0])
    noted(8, store, hit)


def test_a_lone_worker_with_a_hung_thread_ends_itself(whole, tmp_path):
    store = prepared(whole, tmp_path)
    process = start(store, *WORDS)
    training_of(store)
    hang(busiest(children(process, "ray::call")[0]))
    ends_well(process)
    same(store, whole)


def busiest(worker):
    """Returns the id of the thread that does most just now: the one that trains."""
    before = {thread.id: thread.user_time for thread in worker.threads()}
    while True:
        time.sleep(0.1)
        spent = {t.id: t.user_time - before.get(t.id, 0.0) for t in worker.threads()}
        if max(spent.values()) > 0.03:
            return max(spent, key=spent.get)


def traced(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(request, thread, None, None):
        pytest.skip(f"this machine lets no test stop a thread: {os.strerror(ctypes.get_errno())}")


def hang(thread):
    """Stops one thread where it computes, as a debugger does, until its process ends.

    In a system call it may be between one watch and the next, where nothing of its own hangs.
    """
    traced(SEIZE, thread)
    while True:
        traced(INTERRUPT, thread)
        os.waitpid(thread, ANY_THREAD)
        if Path(f"/proc/{thread}/syscall").read_text().startswith("-1"):
            break
        traced(CONTINUE, thread)
        time.sleep(0.01)
    threading.Thread(target=os.waitpid, args=(thread, ANY_THREAD), daemon=True).start()
