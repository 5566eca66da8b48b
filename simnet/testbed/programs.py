"""Programs of the system, as the testbed runs them."""

from __future__ import annotations

import os
import shutil
import subprocess

# mkfs.ext4, ip and their like live where an ordinary user's PATH does not reach.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def run(program: str, *arguments: str, text: str = "") -> None:
    """Run a program to its end, with `text` to read; `subprocess.CalledProcessError`, with what it wrote, where it
    fails."""
    subprocess.run([tool(program), *arguments], check=True, input=text.encode(), capture_output=True)


def tool(program: str) -> str:
    return shutil.which(program, path=_PATH) or program


def present(program: str) -> bool:
    return shutil.which(program, path=_PATH) is not None
