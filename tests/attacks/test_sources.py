"""What no line of the daemon does: the bytes that it is given become data, and never code, objects or commands."""

from __future__ import annotations

import ast

from tests.project.imports import imports, our_modules

MODULES = {
    "pickle", "dill", "shelve", "marshal", "yaml", "xml", "lxml", "zstandard", "lzma", "bz2", "zlib", "gzip", "tarfile",
    "zipfile", "code", "runpy", "xmlrpc",
}  # fmt: skip
"""Of formats that carry code or objects, or that unpack to more than anybody has asked for."""
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("tempfile", "mktemp")}


def test_nothing_is_unpickled_unpacked_or_run() -> None:
    daemon = [module for module in our_modules() if not module.name.startswith("simnet")]
    assert len(daemon) > 200
    for module in daemon:
        imported = {one.module.split(".")[0] for one in imports(module)}
        assert imported & MODULES == set(), module.name
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                assert not _is_forbidden(node), f"{module.name}:{node.lineno}"


def _is_forbidden(call: ast.Call) -> bool:
    if any(word.arg == "shell" for word in call.keywords):
        return True
    match call.func:
        case ast.Name(id=name):
            return name in CALLS
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return (owner, name) in METHODS
    return False


def test_a_forbidden_call_is_found() -> None:
    for text in ("eval(x)", "subprocess.run(x, shell=True)", "os.system(x)", "exec(x)"):
        (call,) = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        assert _is_forbidden(call)
    (call,) = [node for node in ast.walk(ast.parse("re.compile(x)")) if isinstance(node, ast.Call)]
    assert not _is_forbidden(call)
