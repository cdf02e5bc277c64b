"""Real clusters of several raylets on this machine, behind a token; dashboards on loopback.

Ray has no cluster of several nodes on loopback alone: raylets listen on the machine's address.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import yaml

from .processes import free_port

PATIENCE_S = 600
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


class Cluster:
    """A head without CPUs; nodes come and go. Every raylet has folders and ports of its own.

    Arguments:
        more: Variables of every node's environment.
    """

    before, head = (), ()  # Words before, and further words of, ``ray start`` on the head

    def __init__(self, **more):
        self.more = more
        self.folder = tempfile.TemporaryDirectory(prefix="ebn-", dir="/tmp")
        self.token, self.port, self.dashboard = secrets.token_hex(16), free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.dashboard}"
        self.count, self.processes = 0, []

    def __enter__(self):
        try:
            self.start_head()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_head(self):
        """Starts the head, at the same ports each time."""
        words = ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
        words += ["--dashboard-host=127.0.0.1", f"--ray-client-server-port={free_port()}"]
        self.start(*words, *self.head, cpus=0, before=self.before)
        self.wait(1)

    def __exit__(self, *error):
        for process in self.processes[::-1]:
            self.kill(process)
        self.folder.cleanup()

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        path = f"{BIN}:{os.environ['PATH']}"
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        settings["RAY_worker_niceness"] = "0"  # instead of 15, which starves beside other work
        settings["MLFLOW_ALLOW_FILE_STORE"] = "true"  # for jobs without a server
        return {**kept, "PATH": path, **auth, **settings, "PYTHONPATH": "", **self.more, **more}

    def start(self, *words, cpus, before=()):
        """Starts a raylet in a process group of its own; ``before`` are words of a wrapper."""
        self.count += 1
        folder = f"{self.folder.name}/{self.count}"
        ray = [*before, str(BIN / "ray"), "start", "--block", f"--num-cpus={cpus}"]
        ray += [f"--temp-dir={folder}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        ray += [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0"]
        ray += ["--max-worker-port=0", "--object-store-memory=100000000", *words]
        with open(f"{folder}.log", "w") as log:
            process = subprocess.Popen(
                ray, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def nodes(self, *cpus, before=(), words=()):
        """Nodes with so many CPUs each, for a while; ``words`` are more of ``ray start``."""
        alive = self.alive()
        address = f"--address=127.0.0.1:{self.port}"
        started = [self.start(address, *words, cpus=n, before=before) for n in cpus]
        try:
            self.wait(alive + len(cpus))
            yield
        finally:
            for process in started:
                self.kill(process)
            self.wait(alive)

    def kill(self, process):
        """Kills a raylet, and what it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.processes.remove(process)

    def get(self, path, token=None):
        """Returns the status and the body of a request with a token, or without."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def used(self, function="call"):
        """Returns the nodes on which tasks of a function ran; stages are those of ``call``."""
        path = "/api/v0/tasks?detail=1&limit=10000&filter_keys=func_or_class_name"
        path += f"&filter_predicates=%3D&filter_values={function}"
        status, body = self.get(path, self.token)
        found = json.loads(body)["data"]["result"]["result"]
        return {task["node_id"] for task in found if task["state"] == "FINISHED"}

    def alive(self):
        status, body = self.get("/nodes?view=summary", self.token)
        found = json.loads(body)["data"]["summary"] if status == 200 else []
        return sum(node["raylet"].get("state") == "ALIVE" for node in found)

    def wait(self, count):
        """Waits for so many nodes, unless a raylet ends by itself: it may not start in 30 s."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and all(p.poll() is None for p in self.processes):
            with contextlib.suppress(OSError):
                if self.alive() == count:
                    return
            time.sleep(0.3)
        logs = [path.read_text()[-800:] for path in Path(self.folder.name).glob("*.log")]
        raise TimeoutError("\n".join(logs))


HEAD_ID = "f" * 51 + "00000"  # What Ray's fake provider of nodes calls the head

PROVIDER = Path(__file__).parent / "provider"  # Folder of the module with the provider of nodes

LISTS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
    "rsync_exclude", "rsync_filter",
)  # fmt: skip


class Growing(Cluster):
    """A head without CPUs under Ray's own autoscaler, which starts raylets on this machine.

    Arguments:
        most: The most nodes, of one CPU each.
        idle: Minutes after which an idle node is released.
        more: Variables of every node's environment.
    """

    def __init__(self, most=3, idle=1.5, **more):
        super().__init__(**more)
        path = Path(f"{self.folder.name}/autoscaler.yaml")
        path.write_text(yaml.safe_dump(self.config(most, idle)))
        fake = ("RAY_FAKE_CLUSTER=1", f"RAY_OVERRIDE_NODE_ID_FOR_TESTING={HEAD_ID}")
        self.before = ("env", *fake, f"PYTHONPATH={PROVIDER}", "AUTOSCALER_UPDATE_INTERVAL_S=1")
        self.head = (f"--autoscaling-config={path}",)

    def config(self, most, idle):
        kinds = {
            "ray.head.default": {"resources": {"CPU": 0}, "max_workers": 0},
            "cpu": {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": most},
        }
        return {
            "cluster_name": "growing", "max_workers": most, "idle_timeout_minutes": idle,
            "upscaling_speed": 1.0,
            "provider": {
                "type": "external",
                "module": "own_folders.Provider",
                "folder": self.folder.name,
                "use_node_id_as_ip": True,
                "head_node_id": HEAD_ID,
                "gcs_address": f"127.0.0.1:{self.port}",
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {n: {**kind, "node_config": {}} for n, kind in kinds.items()},
            **{name: {} for name in ("auth", "docker", "file_mounts")},
            "file_mounts_sync_continuously": False, **{name: [] for name in LISTS},
        }  # fmt: skip
