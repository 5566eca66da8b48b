"""The programs that tests run beside our own."""

import os
import shutil
from pathlib import Path

import pytest


def need(program: str) -> Path:
    """Where `program` is; skips the test where it is not installed (`scripts/system-packages test` installs it)."""
    found = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return Path(found)


def need_root() -> None:
    """Skips the test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
