"""Reading what a module imports and calls, without running it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("enticed", "protocol", "simnet")


@dataclass(frozen=True)
class Module:
    """One of our modules: its dotted name, whether it is a package's __init__, and its syntax tree."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """`import a.b` has no name; `from a.b import c` gives module `a.b` and name `c`."""

    module: str
    name: str | None
    line: int


def source_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def parse(path: Path) -> Module:
    """Once, however many tests look at it."""
    relative = path.relative_to(ROOT).with_suffix("")
    is_package = relative.name == "__init__"
    parts = relative.parts[:-1] if is_package else relative.parts
    return Module(".".join(parts), is_package, ast.parse(path.read_text(), filename=str(relative)))


def our_modules() -> list[Module]:
    return [parse(path) for path in source_files()]


def imports(module: Module) -> Iterator[Import]:
    """Every import anywhere in the module: inside functions and under TYPE_CHECKING too, since types couple as well."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(module, node)
            for alias in node.names:
                yield Import(origin, alias.name, node.lineno)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.package.split(".")
    base = parts[: len(parts) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


def dotted(node: ast.expr) -> str:
    """`np.random.default_rng` of an attribute chain; what does not start with a plain name starts with `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"
