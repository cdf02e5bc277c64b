"""Options of the command line, parsed by tyro; errors are one line."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from typing import Any

import tyro

from ebflow.errors import BadInput

RULE = re.compile(r"^.*[-─]{6,}.*$", re.MULTILINE)  # The lines between the parts of a box
HELP = re.compile(r"^ {9,}.*$", re.MULTILINE)  # The help of an option, below its name


def parsed(kind: Any, prog: str, words: Sequence[str], **options: Any) -> Any:  # noqa: ANN401
    """Returns what the words say, as an instance of a type.

    Raises:
        BadInput: At the first wrong option, in one line instead of tyro's box.
        SystemExit: After ``--help``.
    """
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(kind, prog=prog, args=words, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
    raise BadInput(one_line(box.getvalue()), hint=f"See {prog} --help")


def call(function: Callable[..., Any], prog: str, words: Sequence[str]) -> Any:  # noqa: ANN401
    """Calls a function with the arguments that the words say."""

    @wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return partial(function, *args, **kwargs)

    return parsed(bound, prog, words)()


def one_line(box: str) -> str:
    """Returns the message in a box of tyro's, with the first option that it proposes."""
    parts = [HELP.sub("", part) for part in RULE.split(box.replace("│", " "))]
    parts = [" ".join(part.split()).rstrip(".") for part in parts]
    message, *others = parts[1:] or parts
    proposed = next((part for part in others if part.startswith("Perhaps you meant")), "")
    nearest = re.search(r"--[\w.-]+", proposed)
    return f"{message}; perhaps {nearest[0]}" if nearest else message
