"""The digest of the code that a stage runs: what must change for a finished stage to be stale."""

import ast
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

from pipelines.store.files import write_text
from pipelines.store.paths import user_cache

OURS = ("ebflow", "pipelines", "tuning")

CARRIERS = tuple(
    f"pipelines.{name}"
    for name in ("cluster", "engine", "errors", "store", "tracking",
                 "training.stage_reports")
)  # fmt: skip
"""What carries data and numbers and makes none: a change of it leaves finished stages valid."""

Statement = tuple[int, str, list[str]]
"""An import: the dots before its module, the module, and the names of ``from``."""


def source_digest(module: str) -> str:
    """Returns a SHA-256 of the source of a module and of all of ours that it imports, in turn.

    Reads the sources; imports none of them.

    Raises:
        ImportError: If one of them imports from a package that looks its names up when asked, so
            that what is run cannot be read off.
    """
    todo, seen, parsed = [module], {}, len(_known())
    while todo:
        module = todo.pop()
        if module not in seen:
            seen[module], imported = _read(module)
            todo += imported
    if len(_known()) > parsed:
        _keep()
    total = hashlib.sha256()
    for module in sorted(seen):
        total.update(f"{module}\0{len(seen[module])}\0".encode() + seen[module])
    return total.hexdigest()


def data_digest(package: str) -> str:
    """Returns a SHA-256 of the files of a package that are no Python, by their names."""
    path, total = _path(package), hashlib.sha256()
    if path is None:
        raise ModuleNotFoundError(package)
    for file in sorted(path.parent.iterdir()):
        if file.is_file() and file.suffix != ".py":
            total.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
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
    for level, base, names in _statements(source):
        base = resolve_name("." * level + base, package)
        for name in names or [""]:
            found = _submodule(base, name) if name else base
            if _is_ours(found) and not _carries(found):
                _check(module, found, name)
                yield found


def _check(module: str, imported: str, name: str) -> None:
    """Raises ImportError if a package is asked for what it does not have itself."""
    source = _lazy(imported)
    if source and f"\n{name} = " not in source:
        raise ImportError(
            f"{module}: found an import of {name or 'all'} from {imported}, which looks names up "
            "when asked, expected one from the module that has it"
        )


@cache
def _lazy(module: str) -> str:
    """Returns the source of a package that looks names up when asked; nothing of any other."""
    path = _path(module)
    source = path.read_text() if path and path.name == "__init__.py" else ""
    return source if "\ndef __getattr__(" in source else ""


def _statements(source: bytes) -> list[Statement]:
    known, name = _known(), hashlib.sha256(source).hexdigest()
    if name not in known:
        known[name] = list(_parsed(source))
    return known[name]


def _parsed(source: bytes) -> Iterator[Statement]:
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]


@cache
def _known() -> dict[str, list[Statement]]:
    """Returns what sources import, by their SHA-256: to parse them all takes longer than a run
    that finds everything.
    """
    try:
        return json.loads(_file().read_bytes())
    except (OSError, ValueError):
        return {}


def _keep() -> None:
    """Keeps what has been parsed for other processes, where the user's cache can be written."""
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_text(_file(), json.dumps(_known()))


def _file() -> Path:
    """Returns where that is kept, apart for each way to parse."""
    parser = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return user_cache() / f"imports-{parser[:20]}.json"


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
    return next(filter(Path.is_file, (path / "__init__.py", path.with_suffix(".py"))), None)
