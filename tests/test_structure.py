"""Rules of the house that no linter knows: sizes, names that explain themselves, no imports for types only."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "tureen": ROOT / "clients/python",
    "tureen_core": ROOT / "service",
    "tureen_serve": ROOT / "service",
    "tureen_train": ROOT / "training",
}
MOST_LINES_OF_A_FILE = 250
MOST_LINES_OF_A_FUNCTION = 60
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# named as users type them
COMMANDS = {
    "tureen_serve.commands.check.check",
    "tureen_serve.commands.fetch.fetch",
    "tureen_serve.commands.label.label",
}

each_package = pytest.mark.parametrize("package", PACKAGES)


@cache
def modules(package: str) -> Mapping[str, ast.Module]:
    """The syntax tree of every module of a package, by dotted name."""
    base = PACKAGES[package]
    return {
        _name(path.relative_to(base)): ast.parse(path.read_text()) for path in sorted((base / package).rglob("*.py"))
    }


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The module and the name of everything that a module takes from another one, also by ``module.name``."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                yield node.module, each.name
                aliases[each.asname or each.name] = f"{node.module}.{each.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield aliases[node.value.id], node.attr


@each_package
def test_no_class_name_stands_twice(package: str) -> None:
    places = defaultdict(list)
    for name, tree in modules(package).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@each_package
def test_functions_that_other_files_import_are_named_by_verb_and_noun(package: str) -> None:
    taken = {pair for each in PACKAGES for tree in modules(each).values() for pair in imports_of(tree)}
    one_word = [
        f"{name}.{node.name}"
        for name, tree in modules(package).items()
        for node in tree.body
        if isinstance(node, FUNCTIONS) and (name, node.name) in taken and "_" not in node.name.strip("_")
    ]
    assert [each for each in one_word if each not in COMMANDS] == []


@each_package
def test_files_and_functions_are_small(package: str) -> None:
    long_files = [name for name, tree in modules(package).items() if tree.body and _lines(tree) > MOST_LINES_OF_A_FILE]
    long_functions = [
        f"{name}.{node.name}"
        for name, tree in modules(package).items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and _lines(node) > MOST_LINES_OF_A_FUNCTION
    ]
    assert long_files == []
    assert long_functions == []


def _lines(node: ast.Module | FUNCTIONS) -> int:
    """Lines from the first statement, or the ``def``, to the last line."""
    first = 1 if isinstance(node, ast.Module) else node.lineno
    last = node.body[-1].end_lineno
    assert last is not None
    return last - first + 1


@each_package
def test_nothing_is_imported_for_types_only(package: str) -> None:
    found = [
        name
        for name, tree in modules(package).items()
        if any(isinstance(node, ast.Name) and node.id == "TYPE_CHECKING" for node in ast.walk(tree))
    ]
    assert found == []


@each_package
def test_every_module_says_its_duty(package: str) -> None:
    silent = [name for name, tree in modules(package).items() if tree.body and ast.get_docstring(tree) is None]
    assert silent == []


@pytest.mark.parametrize("folder", ["clients/python", "service", "training"])
def test_only_packages_decisions_and_pages_for_readers_stand_beside_each_other(folder: str) -> None:
    found = {path.name for path in (ROOT / folder).iterdir() if not path.name.startswith((".", "__pycache__"))}
    assert found <= {*PACKAGES, "README.md", "OPERATIONS.md", "decisions", "playground"}
