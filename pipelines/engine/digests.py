"""The digest of the code that a stage runs: what must change for a finished stage to be stale."""

__all__ = ["source_digest"]

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("ebflow", "pipelines", "tuning")

CARRIERS = tuple(
    f"pipelines.{name}" for name in ("cluster", "engine", "errors", "store", "tracking")
)
"""What carries data and numbers and makes none: a change of it leaves finished stages valid."""


def source_digest(module: str) -> str:
    """Returns a SHA-256 of the source of a module and of all of ours that it imports, in turn.

    Reads the sources; imports none of them.
    """
    todo, seen = [module], {}
    while todo:
        module = todo.pop()
        if module not in seen:
            seen[module], imported = _read(module)
            todo += imported
    total = hashlib.sha256()
    for module in sorted(seen):
        total.update(f"{module}\0{len(seen[module])}\0".encode() + seen[module])
    return total.hexdigest()


@cache
def _read(module: str) -> tuple[bytes, tuple[str, ...]]:
    """Returns the source of a module, and what it imports of ours."""
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(module)
    source = path.read_bytes()
    return source, tuple(_imported(module, path, source))


def _imported(module: str, path: Path, source: bytes) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
            names = [_submodule(base, alias.name) for alias in node.names]
        else:
            continue
        yield from (name for name in names if _is_ours(name) and not _carries(name))


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in OURS


def _carries(module: str) -> bool:
    return any(f"{module}.".startswith(f"{carrier}.") for carrier in CARRIERS)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yields all statements but those below ``if TYPE_CHECKING``, which no stage runs."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr) and not _is_for_types(child):
            yield from _executed(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _submodule(base: str, name: str) -> str:
    """Returns the module that ``from base import name`` reads."""
    inner = f"{base}.{name}"
    return inner if _is_ours(base) and _path(inner) else base


def _path(module: str) -> Path | None:
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*rest)
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.is_file() else None
