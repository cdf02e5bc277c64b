"""The versions and the commit of the running code."""

import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ebflow import __version__

PACKAGES = ("../../ebflow", "../../pipelines", "../../tuning")


@cache
def code() -> dict[str, str | None]:
    """Returns the versions of ebflow and torch, and ebflow's git commit.

    The commit ends in ``+`` if tracked files of the packages differ from it. Outside a checkout
    it is ``EBFLOW_COMMIT``, or None.
    """
    return {"ebflow": __version__, "torch": version("torch"), "commit": _commit()}


def version_and_commit() -> str:
    """Returns the version and the short commit of the running code, such as 0.2.0, 12ab34c."""
    commit, changed, _ = (code()["commit"] or "").partition("+")
    return ", ".join(filter(None, [__version__, f"{commit[:7]}{changed}"]))


def _commit() -> str | None:
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return os.environ.get("EBFLOW_COMMIT")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *PACKAGES)
    return f"{_git('rev-parse', 'HEAD')}{'+' if changed else ''}"


def _git(*words: str) -> str | None:
    """Returns the output of git in this file's folder; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
