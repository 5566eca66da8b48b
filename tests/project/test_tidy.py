"""Style as a test: what a reader, and a stranger's machine, can rely on in every file."""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.programs import need
from tests.project.imports import PACKAGES, ROOT, parse, source_files

FILE_MAX_LINES = 400
FUNCTION_MAX_LINES = 60

# A path that only one machine has; not the `/root` of an address in an API or an origin.
MACHINE_PATHS = re.compile(r"(?<![\w.)>}*-])/(?:work|root|home|opt)/[\w.]")
REGISTRIES = re.compile(r"\bpypi\.org|pythonhosted\.org")

TEXT_MAX_SIZE_BYTES = 1_000_000


@cache
def tracked_files() -> list[Path]:
    """What git tracks; new files count from `git add` on."""
    # The tree may belong to another user than the one who runs the tests, as in a container: reading it is harmless.
    command: list[str | Path] = [need("git"), "-c", "safe.directory=*", "ls-files", "-z", "--cached"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def tracked_texts() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield str(path.relative_to(ROOT)), content.decode()


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_a_file_reads_in_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in source_files()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_MAX_LINES} == {}


def test_a_function_fits_on_a_screen() -> None:
    too_long = [
        f"{module.name}.{function.name}: {function.end_lineno - function.lineno + 1} lines"
        for module in map(parse, source_files())
        for function in functions(module.tree)
        if function.end_lineno and function.end_lineno - function.lineno >= FUNCTION_MAX_LINES
    ]
    assert too_long == []


def test_every_public_module_says_what_it_is() -> None:
    modules = [parse(path) for path in source_files()]
    assert [module.name for module in modules if not ast.get_docstring(module.tree)] == []


def test_no_path_of_one_machine() -> None:
    assert lines_with(MACHINE_PATHS) == []


def test_no_address_of_a_package_index() -> None:
    assert lines_with(REGISTRIES) == []


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_holds_hashes_and_no_address(name: str) -> None:
    logical = (ROOT / name).read_text().replace("\\\n", "").splitlines()
    entries = [line for line in logical if line.strip() and not line.lstrip().startswith("#")]
    assert len(entries) > 15
    assert [
        entry for entry in entries if not re.match(r"^[a-z0-9-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+$", entry)
    ] == []


def test_no_test_directory_hides_a_package() -> None:
    """pytest would import tests/protocol under the name of what it tests."""
    assert [package for package in PACKAGES if (ROOT / "tests" / package).exists()] == []


def test_no_large_file_is_tracked() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert {name: size for name, size in sizes.items() if size > TEXT_MAX_SIZE_BYTES} == {}


@pytest.mark.parametrize("text", ["work/main", "root/.cache", "opt/wheels"])
def test_a_machine_path_is_found(text: str) -> None:
    assert MACHINE_PATHS.search(f"find-links = '/{text}'")


@pytest.mark.parametrize(
    "text", ["<ImageId>/root/x", "/v1/images/{id}/root/0", "network/root/a", "/roots/a", "./work/x"]
)
def test_what_only_looks_like_one_passes(text: str) -> None:
    assert not MACHINE_PATHS.search(text)


def test_the_wheel_brings_three_names_and_two_commands(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        commands = archive.read(entry_points).decode()
        licences = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert "enticed = enticed.__main__:main\n" in commands
    assert "entice = enticed.cli.main:main\n" in commands
    assert len(licences) == 1
