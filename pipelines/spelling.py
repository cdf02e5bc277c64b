"""One spelling of an option in all that is told on the command line: ``--train.batch-size``.

Whoever checks an option names it by its place in a configuration, ``train.batch_size``, as a file
has it; the library names its own arguments, of which those of data are options too. A message
that names a key of a file stays as it is.
"""

__all__ = ["spelled"]

import re
from collections.abc import Iterator

from pipelines.config import DataConfig, DensityConfig

KEY = re.compile(r", key \S")


def spelled(line: str) -> str:
    """Returns a message with every option of the density pipeline as one types it."""
    if KEY.search(line):
        return line
    line = ARGUMENT.sub(r"data.\g<0>", line)
    return OPTION.sub(lambda match: "--" + match[1].replace("_", "-"), line)


def _places() -> Iterator[str]:
    for section, field in DensityConfig.model_fields.items():
        for name in getattr(field.annotation, "model_fields", ()):
            yield rf"{section}\.{name}"


OPTION = re.compile(rf"(?<![\w./-])(?:--)?({'|'.join(_places())})(?![\w/-]|\.\w)")

ARGUMENT = re.compile(
    rf"^({'|'.join(DataConfig.model_fields)})(?=: found )|(?<=\bchoose others by )columns$"
    r"|(?<=\bchoose another by )label$"
)
