"""`entice` is run by scripts many times a minute: it starts fast, and imports what is heavy only when it is needed."""

import subprocess
import sys

from tests.project.imports import ROOT

HEAVY = ("numpy", "cryptography", "aiohttp", "rich", "uvloop", "kademlia")


def test_entice_imports_nothing_heavy_at_start() -> None:
    code = f"import enticed.cli.main, sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
