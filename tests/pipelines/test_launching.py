"""``ray up cluster.yaml`` on machines with nothing but ssh: launched, used, and taken down."""

import contextlib
import os
import signal
import socket
import subprocess

import pytest
import yaml

from .conftest import tracking_files
from .machines import MISSING, SHARED, Machines
from .nodes import BIN, ROOT
from .processes import PATIENCE_S, free_port, wait

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING), reason=f"this machine has no {', '.join(MISSING)}"),
]

# Keys of cluster.yaml that say which machines to rent, and what is made ready on them
OF_THE_CLOUD = ("available_node_types", "docker", "head_node_type", "initialization_commands",
                "max_workers")  # fmt: skip


def stated():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def variables():
    """Returns the environment of nodes: that of cluster.yaml, with a tracking store of its own."""
    options = [word for word in stated()["docker"]["run_options"] if word.startswith("--env=")]
    found = dict(word.removeprefix("--env=").split("=", 1) for word in options)
    return {**found, **tracking_files(found["EBFLOW_HOME"]), "PATH": f"{BIN}:$PATH"}


def local(machines):
    """Returns cluster.yaml for machines that are there; the head gives no CPU, workers one."""
    config = {key: value for key, value in stated().items() if key not in OF_THE_CLOUD}
    head, *workers = machines.addresses
    config["cluster_name"] = machines.bridge
    config["provider"] = {"type": "local", "head_ip": head, "worker_ips": workers}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(machines.key)}
    for key, cpus in (("head_start_ray_commands", 0), ("worker_start_ray_commands", 1)):
        config[key] = [
            line.replace("ray start", f"ray start --num-cpus={cpus}") for line in config[key]
        ]
    return config


class Launcher:
    """Who launches a cluster: a home with the token, and the file of the cluster.

    Arguments:
        folder: The home.
        machines: The machines.
    """

    def __init__(self, folder, machines):
        self.folder, self.file = folder, folder / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(local(machines)))
        self.call("ray", "get-auth-token", "--generate")

    def environment(self):
        # Ray's second autoscaler counts the head among the workers of its local provider.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        return {**kept, "HOME": str(self.folder), "PATH": f"{BIN}:{os.environ['PATH']}",
                "RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "0",
                "PYTHONPATH": str(ROOT), "EBFLOW_HOME": str(SHARED / "store")}  # fmt: skip

    def start(self, *words):
        return subprocess.Popen(
            words, env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def call(self, *words):
        """Returns what a command prints; fails unless it ends well."""
        process = self.start(*words)
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, out
        return out

    @contextlib.contextmanager
    def tunnel(self):
        """Yields the address of the dashboard, through ssh."""
        port = free_port()
        process = self.start("ray", "dashboard", str(self.file), "-p", str(port))
        try:
            wait("the tunnel", lambda: answers(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def status(machines, name):
    return "\n".join(machines.processes(name))


def test_a_cluster_is_launched_used_and_taken_down(tmp_path):
    with Machines(tmp_path, 3, **variables()) as machines:
        home = tmp_path / "home"
        home.mkdir()
        launcher = Launcher(home, machines)
        try:
            launcher.call("ray", "up", "-y", "--no-config-cache", str(launcher.file))
            head, *workers = machines.names
            wait(
                "the workers",
                lambda: all("raylet" in status(machines, name) for name in workers),
            )
            with launcher.tunnel() as address:
                out = launcher.call(
                    str(BIN / "python"), "-m", "pipelines.cli", "submit", "density", "--address",
                    address, "--train.steps", "300", "--workers", "2",
                )  # fmt: skip
            assert "train: done in" in out
            assert (tmp_path / "shared" / "store" / "runs" / "density" / "digits").is_dir()
        finally:
            launcher.call("ray", "down", "-y", str(launcher.file))
        wait(
            "the end",
            lambda: not any("raylet" in status(machines, name) for name in machines.names),
        )
