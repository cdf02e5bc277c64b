"""A server of S3's protocol on loopback, with its objects in memory."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request

from pyarrow.fs import FileSelector, S3FileSystem

from .nodes import free_port

KEYS = {
    "AWS_ACCESS_KEY_ID": "me",
    "AWS_SECRET_ACCESS_KEY": "mine",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "ebflow-tests"


class Buckets:
    """The server, with one bucket; forgets all when it is killed."""

    def __init__(self):
        self.port, self.process = free_port(), None
        query = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        self.url = f"s3://{BUCKET}/runs?{query}"

    def __enter__(self):
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, start_new_session=True, **quiet)
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/moto-api/").close()
                self.files.create_dir(BUCKET)
                return self
            time.sleep(0.2)
        raise TimeoutError("the server did not come up")

    def __exit__(self, *error):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def files(self):
        """The server's file system, beside the product's own."""
        return S3FileSystem(
            access_key="me",
            secret_key="mine",
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def clear(self):
        """Forgets all."""
        self.files.delete_dir_contents(BUCKET)

    def names(self, name):
        """Returns the names below one in the storage."""
        selector = FileSelector(f"{BUCKET}/runs/{name}", allow_not_found=True)
        return [found.base_name for found in self.files.get_file_info(selector)]

    @property
    def environment(self):
        """What a process is told that uses it as its storage."""
        return {"EBFLOW_STORAGE": self.url, **KEYS}
