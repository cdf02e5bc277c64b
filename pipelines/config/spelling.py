"""One spelling of an option in all that is told on the command line: ``--train.batch-size``.

Whoever checks an option names it by its place in a configuration, ``train.batch_size``, as a file
has it. The library names its own arguments; what of a message names one, and the option that it
is, are in ``ARGUMENTS``. A message that names a key of a file stays as it is.
"""

import re
from collections.abc import Iterator

from pipelines.config import DataConfig, DensityConfig

KEY = re.compile(r", key \S")


def spelled(line: str) -> str:
    """Returns a message with every option of the density pipeline as one types it."""
    if KEY.search(line):
        return line
    for section, argument in ARGUMENTS:
        line = argument.sub(rf"{section}.\g<0>", line)
    return OPTION.sub(lambda match: "--" + match[1].replace("_", "-"), line)


def _places() -> Iterator[str]:
    for section, field in DensityConfig.model_fields.items():
        for name in getattr(field.annotation, "model_fields", ()):
            yield rf"{section}\.{name}"


OPTION = re.compile(rf"(?<![\w./-])(?:--)?({'|'.join(_places())})(?![\w/-]|\.\w)")

ARGUMENTS = tuple(
    (section, re.compile(argument))
    for section, argument in (
        ("data", rf"^({'|'.join(DataConfig.model_fields)})(?=: found )"),
        ("data", r"(?<=\bchoose others by )(columns(?=$|,)|context\b|label$|split_column$)"),
        ("data", r"(?<=: raise )validation(?= and test$)|(?<=: raise validation and )test$"),
        ("preprocess", r"^(normalize|shrinkage)(?=: found )"),
        ("train", r"^batch_size(?=: found \d+, expected (1 …|a multiple of))"),
        ("train", r"^dtype(?=: found float)|(?<=\blower the learning rate \()lr(?=\))"),
    )
)
"""By the section of their option: where messages of the library name arguments of its own."""
