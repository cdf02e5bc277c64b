"""Machines on this one: namespaces of network, names, processes and files, each with ssh.

What is on them is this machine's, but for ``/home``, ``/tmp``, ``/dev/shm`` and processes, which
each has alone, and ``/mnt/ebflow``, which they share. Root lives in ``/home/ray``.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

__all__ = ["MISSING", "SHARED", "Machines"]

NEEDED = ("ip", "rsync", "ssh", "ssh-keygen", "sshd", "unshare")
# What of this machine a test lacks
MISSING = [name for name in NEEDED if not shutil.which(name)] + ["root"] * (os.getuid() != 0)

SHARED = Path("/mnt/ebflow")
PATIENCE_S = 60

SERVER = """
Port 22
ListenAddress {address}
HostKey /home/ray/host_key
PidFile none
StrictModes no
UsePAM no
AuthorizedKeysFile /home/ray/.ssh/authorized_keys
"""

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /home
mkdir -p {shared} /home/ray /run/sshd
mount --bind {folder}/shared {shared}
mount --bind {folder}/{name} /home/ray
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/hosts /etc/hosts
hostname {name}
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
exec "$(command -v sshd)" -D -e -f /home/ray/sshd_config
"""


class Machines:
    """So many machines on a network of their own, while it is entered.

    Arguments:
        folder: For their files.
        count: How many.
        variables: Of the environment of who comes by ssh.
    """

    def __init__(self, folder, count, **variables):
        self.folder, self.variables = folder, variables
        self.mark, self.net = secrets.token_hex(3), f"10.{secrets.randbelow(100) + 100}.77"
        self.bridge = f"eb{self.mark}"
        self.names = [f"{self.bridge}-{k}" for k in range(count)]
        self.addresses = [f"{self.net}.{10 + k}" for k in range(count)]
        self.key = folder / "key"
        self.servers = []

    def __enter__(self):
        (self.folder / "shared").mkdir()
        users = Path("/etc/passwd").read_text().splitlines(keepends=True)
        users[0] = "root:x:0:0:root:/home/ray:/bin/bash\n"
        (self.folder / "passwd").write_text("".join(users))
        hosts = [f"{a} {n}\n" for a, n in zip(self.addresses, self.names, strict=True)]
        (self.folder / "hosts").write_text("".join(["127.0.0.1 localhost\n", *hosts]))
        keygen(self.key)
        try:
            ip("link", "add", self.bridge, "type", "bridge")
            ip("addr", "add", f"{self.net}.1/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
            for name, address in zip(self.names, self.addresses, strict=True):
                self._plug(name, address)
                self._boot(name, address)
            for address in self.addresses:
                self._reach(address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", self.bridge], stderr=subprocess.DEVNULL)

    def processes(self, name):
        """Returns the command lines of what runs on a machine."""
        found = subprocess.check_output(["ip", "netns", "pids", name], text=True).split()
        lines = []
        for pid in found:
            with contextlib.suppress(OSError):
                lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return lines

    def _plug(self, name, address):
        """Makes a network of one interface, and plugs it into the bridge."""
        index = self.names.index(name)
        here = f"v{self.mark}{index}"
        ip("netns", "add", name)
        ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", here, "master", self.bridge, "up")
        for words in (
            ("addr", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", f"{self.net}.1"),
        ):
            ip("-n", name, *words)

    def _boot(self, name, address):
        """Starts the server of ssh; all that it starts ends with it."""
        home = self.folder / name
        (home / ".ssh").mkdir(parents=True)
        keygen(home / "host_key")
        shutil.copy(f"{self.key}.pub", home / ".ssh" / "authorized_keys")
        (home / "sshd_config").write_text(SERVER.format(address=address))
        words = [f"export {name}={value}\n" for name, value in self.variables.items()]
        (home / ".bashrc").write_text("".join(words))
        script = BOOT.format(folder=self.folder, name=name, shared=SHARED)
        alone = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        with open(self.folder / f"{name}.log", "w") as log:
            self.servers.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *alone, "bash", "-c", script],
                    stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    def _reach(self, address):
        deadline = time.monotonic() + PATIENCE_S
        words = ["ssh", "-i", str(self.key), "-o", "StrictHostKeyChecking=no",
                 "-o", "UserKnownHostsFile=/dev/null", f"root@{address}", "true"]  # fmt: skip
        while subprocess.run(words, capture_output=True).returncode:
            if time.monotonic() > deadline:
                logs = [path.read_text() for path in self.folder.glob("*.log")]
                raise TimeoutError("\n".join(logs))
            time.sleep(0.3)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
