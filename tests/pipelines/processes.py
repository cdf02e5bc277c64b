"""Servers in processes of their own, and waits for what processes do."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

PATIENCE_S = 1500  # For machines that have other work to do


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, found, seconds=PATIENCE_S, process=None):
    """Waits until a function returns something, while a process runs; returns it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if value := found():
            return value
        time.sleep(0.05)
    raise TimeoutError(f"waited in vain for {what}")


def answers(url):
    """Returns True if a server answers."""
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url).close()
        return True
    return False


class Server:
    """A process that serves on loopback; it can be killed and started again.

    Arguments:
        words: Python's options, and the server's.
        ready: A path that it answers once it is up.
        settings: Variables of its environment.
    """

    def __init__(self, *words, ready, **settings):
        self.address = f"127.0.0.1:{free_port()}"
        self.command = [sys.executable, *words, f"--port={self.address.partition(':')[2]}"]
        self.ready, self.settings = f"http://{self.address}{ready}", settings

    def start(self):
        environment = {**os.environ, **self.settings}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            self.command, env=environment, start_new_session=True, **quiet
        )
        wait("the server", lambda: answers(self.ready), process=self.process)

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.kill()
