"""Modules of the library import public names only; some import nothing heavy."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ebflow

ROOT = Path(__file__).parents[2]
TREES = {
    path: ast.parse(path.read_text())
    for room in ("ebflow", "pipelines", "tuning")
    for path in sorted((ROOT / room).rglob("*.py"))
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): tree for path, tree in TREES.items() if path.is_relative_to(ROOT / "ebflow")
}


def imports(path, top_level=False):
    """Yields the modules that a file imports names from, and the names."""
    package = name_of(path) if path.stem == "__init__" else name_of(path).rpartition(".")[0]
    for node in TREES[path].body if top_level else ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = above if node.level else []
            yield ".".join([*base, *filter(None, [node.module])]), [a.name for a in node.names]


def public(tree):
    """Returns the names without an underscore that a module defines or lists in ``__all__``."""
    found = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name) | ast.ClassDef(name):
                found.add(name)
            case ast.Assign([ast.Name("__all__")], ast.List([ast.Constant(), *_]) as names):
                found.update(ast.literal_eval(names))
            case ast.Assign() | ast.AnnAssign():
                targets = getattr(node, "targets", None) or [node.target]
                walked = [one for target in targets for one in ast.walk(target)]
                found.update(one.id for one in walked if isinstance(one, ast.Name))
    return {name for name in found if not name.startswith("_")} | {"__version__"}


def test_names_are_public_and_imported_from_the_module_that_defines_them():
    known = {module: public(tree) for module, tree in MODULES.items()}
    known["ebflow"].update(ebflow.__all__)
    hidden = [
        f"{name_of(path)}: {module}.{name}"
        for path in TREES
        for module, names in imports(path)
        for name in names
        if module in MODULES and name not in known[module] and f"{module}.{name}" not in MODULES
    ]
    assert hidden == []


def test_no_module_imports_itself_through_others():
    graph = {
        name: {
            f"{module}.{one}" if f"{module}.{one}" in MODULES else module
            for module, names in imports(path, top_level=True)
            for one in names
        }
        for path, name in ((path, name_of(path)) for path in TREES)
        if name in MODULES
    }
    TopologicalSorter(graph).prepare()


def test_random_numbers_and_errors_stand_alone():
    taken = {
        name: {module for module, _ in imports(ROOT / f"ebflow/{name}.py") if "ebflow" in module}
        for name in ("errors", "randomness")
    }
    assert taken == {"errors": set(), "randomness": set()}


@pytest.mark.system
def test_the_library_imports_with_its_core_dependencies_alone():
    code = """
import pkgutil, sys
from importlib import import_module
for name in ("pyarrow", "pydantic", "pandas", "polars", "ray", "mlflow", "redun", "pipelines"):
    sys.modules[name] = None
import ebflow
for module in pkgutil.walk_packages(ebflow.__path__, "ebflow."):
    import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
