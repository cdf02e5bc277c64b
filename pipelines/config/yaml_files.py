"""YAML files of a user: plain values, every key once, no aliases."""

import reprlib
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from ebflow.errors import BadInput

MOST_BYTES = 1 << 18
"""A configuration has some kB; one that names ten thousand columns has less than this."""

MOST_BITS = 64

MOST_CHARACTERS = 100
"""Of a value that a message shows."""


def read(path: Path) -> dict[str, Any]:
    """Returns the mapping that a file holds.

    An alias is refused, as a few lines of them are gigabytes when they are written out.

    Raises:
        BadInput: If the file cannot be read, is too large, is not YAML, or holds no mapping.
    """
    loader = None
    try:
        loader = _Plain(_text(path))
        found = loader.get_single_data()
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML ({_where(error)})") from None
    except RecursionError:
        raise BadInput(f"{path}: found values nested too deeply, expected sections") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(found, dict):
        raise BadInput(f"{path}: found {type(found).__name__}, expected a mapping of sections")
    return found


def shown(value: object) -> str:
    """Returns a value as a message shows it: short, and on one line."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, MOST_CHARACTERS, MOST_CHARACTERS
    text = short.repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            found = stream.read(MOST_BYTES + 1)
        if len(found) > MOST_BYTES:
            raise BadInput(f"{path}: found a large file, expected at most {MOST_BYTES} bytes")
        return found.decode()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: found bytes that are not UTF-8, expected YAML") from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or "unreadable"
    return what if mark is None else f"line {mark.line + 1}: {what}"


class _Plain(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, "found an alias, expected its value", mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401
        try:
            found = super().construct_object(node, deep)
        except (AttributeError, IndexError, KeyError, ValueError):
            raise _wrong(node) from None
        if isinstance(found, int) and found.bit_length() > MOST_BITS:
            raise _wrong(node)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found, seen = super().construct_mapping(node, deep), set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                what = f"found key {shown(name)} twice, expected it once"
                raise ConstructorError(None, None, what, key.start_mark)
            seen.add(name)
        return found


def _wrong(node: yaml.Node) -> ConstructorError:
    kind = node.tag.rpartition(":")[2]
    what = f"found {shown(node.value)}, expected a value of type {kind}"
    return ConstructorError(None, None, what, node.start_mark)
