"""Digests of code: of a module, and of all of ours that it imports, without importing it."""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from ebflow.files import sha256

OURS = ("ebflow", "pipelines", "tuning")

# Modules that carry data and compute none: a change of them leaves finished stages valid.
INFRASTRUCTURE = tuple(
    f"pipelines.{name}" for name in ("cluster", "engine", "errors", "store", "tracking")
)
# Modules of these packages that write the files of artefacts, and so are part of every key.
WRITERS = ("pipelines.store.files", "pipelines.tracking.run")

HELP = ("description", "help")  # Keywords of texts for users, which change no result

# Suffixes of files beside the code that count: templates and fitted distributions.
DATA = (".j2", ".safetensors")

# The dots before a module, the module, and the names that are imported from it.
Import = tuple[int, str, tuple[str, ...]]


def code_digest(module: str) -> str:
    """Returns a SHA-256 of the code of a stage's module and of all of ours that it runs.

    Comments, docstrings and help texts are no part of it. Data beside the code are. No module
    is imported.
    """
    digests = closure(module)
    folders = {_existing(name).parent for name in digests}
    files = sorted(f for folder in folders for f in folder.iterdir() if f.is_file())
    data = [(file.name, sha256(file)) for file in files if file.suffix in DATA]
    return hashlib.sha256(json.dumps([sorted(digests.items()), data]).encode()).hexdigest()


def closure(module: str) -> dict[str, str]:
    """Returns the digests of a module, the writers, and all of ours that they import, in turn."""
    todo, digests = [module, *WRITERS], {}
    while todo:
        name = todo.pop()
        if name not in digests:
            path = _existing(name)
            digests[name], imports = _parsed(path, (path.stat().st_mtime_ns, path.stat().st_size))
            todo += _imported(name, path, imports)
    return digests


def _existing(module: str) -> Path:
    if (path := _path(module)) is None:
        raise ModuleNotFoundError(module)
    return path


@cache
def _parsed(path: Path, stamp: tuple[int, int]) -> tuple[str, tuple[Import, ...]]:  # noqa: ARG001
    """Returns the digest of a file's code, and its imports; ``stamp`` changes with the file."""
    code = _Code()
    tree = code.visit(ast.parse(path.read_bytes()))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(code.imports)


class _Code(ast.NodeTransformer):
    """Removes texts and imports for type checkers from a tree; collects its other imports."""

    def __init__(self) -> None:
        self.imports: list[Import] = []

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        constant = isinstance(node.value, ast.Constant)
        return None if constant else self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg in HELP else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:  # noqa: ANN401
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return [self.visit(other) for other in node.orelse]
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        self.imports += [(0, alias.name, ()) for alias in node.names]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        names = tuple(alias.name for alias in node.names)
        self.imports.append((node.level, node.module or "", names))
        return node


def _imported(module: str, path: Path, imports: tuple[Import, ...]) -> Iterator[str]:
    """Yields the modules of ours that decide results among the imports of a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for level, base, names in imports:
        base = resolve_name("." * level + base, package)
        if base.split(".")[0] in OURS:
            for name in names or [""]:
                found = f"{base}.{name}" if name and _path(f"{base}.{name}") else base
                if not f"{found}.".startswith(tuple(f"{one}." for one in INFRASTRUCTURE)):
                    yield found


def _path(module: str) -> Path | None:
    """Returns the file of a module, without importing it; None if there is none."""
    package, *names = module.split(".")
    path = _root(package).joinpath(*names)
    return next(filter(Path.is_file, (path / "__init__.py", path.with_suffix(".py"))), None)


@cache
def _root(package: str) -> Path:
    origin = Path(find_spec(package).origin)
    return origin.parent if origin.name == "__init__.py" else origin.with_suffix("")
