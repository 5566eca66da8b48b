"""What no line of the daemon does: make code, objects or commands of bytes it is given, or tell secrets by time."""

from __future__ import annotations

import ast
import re

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


SECRETS = re.compile(r"secret|cookie|token_sha256|passphrase")


def test_secrets_are_compared_in_constant_time() -> None:
    """With `hmac.compare_digest`, and by no operator; what is written in the code, as "-" is, may be told so."""
    for module in our_modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Compare):
                assert not _compares_secrets(node), f"{module.name}:{node.lineno}"


def _compares_secrets(compare: ast.Compare) -> bool:
    sides = [compare.left, *compare.comparators]
    is_of_bytes = isinstance(compare.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn)
    if not is_of_bytes or any(isinstance(side, ast.Constant) for side in sides):
        return False
    return any(SECRETS.search(ast.unparse(side)) for side in sides if not _is_length(side))


def _is_length(side: ast.expr) -> bool:
    return isinstance(side, ast.Call) and ast.unparse(side.func) == "len"


def test_a_comparison_of_secrets_is_found() -> None:
    for text in ("secret == given", "hello.cookie not in cookies", "one.token_sha256 != shown"):
        (compare,) = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Compare)]
        assert _compares_secrets(compare)
