"""Servers of the protocols of S3 and Google's storage on loopback, with objects in memory."""

import urllib.request

from pyarrow.fs import FileSelector, S3FileSystem

from .processes import Server

KEYS = {
    "AWS_ACCESS_KEY_ID": "me",
    "AWS_SECRET_ACCESS_KEY": "mine",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "ebflow-tests"


# Serves connections side by side: pyarrow keeps several, and one would wait for another's end
THREADED = """
import http.server
import runpy
http.server.HTTPServer = http.server.ThreadingHTTPServer
runpy.run_module("gcp_storage_emulator", run_name="__main__", alter_sys=True)
"""


class GoogleBuckets(Server):
    """A server of Google's protocol, with one bucket."""

    def __init__(self):
        options = ("start", "--host=127.0.0.1", "--in-memory", f"--default-bucket={BUCKET}")
        super().__init__("-c", THREADED, *options, ready="/")
        query = f"endpoint_override={self.address}&scheme=http&retry_limit_seconds=20"
        self.url = f"gs://anonymous@{BUCKET}/runs?{query}"

    def clear(self):
        """Forgets all."""
        urllib.request.urlopen(f"http://{self.address}/wipe?keep-buckets=true").close()


class Buckets(Server):
    """A server of S3's protocol, with one bucket."""

    def __init__(self):
        super().__init__("-m", "moto.server", "--host=127.0.0.1", ready="/moto-api/")
        query = f"endpoint_override={self.address}&scheme=http&region=us-east-1"
        self.url = f"s3://{BUCKET}/runs?{query}"

    def __enter__(self):
        super().__enter__()
        self.files.create_dir(BUCKET)
        return self

    @property
    def files(self):
        """The server's file system, beside the product's own."""
        return S3FileSystem(
            access_key="me",
            secret_key="mine",
            endpoint_override=self.address,
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
        """Returns the environment of a process that uses it as its storage."""
        return {"EBFLOW_STORAGE": self.url, **KEYS}
