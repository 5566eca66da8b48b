"""Disk images whose authors want a file of the host: none of them gets it opened, as strace sees it."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.attacks.decoding import SECRET
from tests.image.disks import MIB, qemu_img, sparse_file
from tests.programs import need
from tests.project.imports import ROOT

pytestmark = pytest.mark.slow

MUTANTS = 12
"""Of each container, besides those made by hand."""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are that nobody may open, as every format would read them."""
    directory = tmp_path_factory.mktemp("secrets")
    raw = sparse_file(directory / "raw", MIB, {0: SECRET})
    for form in ("qcow2", "vmdk", "vpc", "vhdx"):
        qemu_img("convert", "-f", "raw", "-O", form, raw, directory / form)
    return directory


def hostile(directory: Path, secrets: Path) -> Iterator[Path]:
    """Files that name one of the secrets, in all ways that their formats have, and some that they have not."""
    for form, backing in (("qcow2", "qcow2"), ("qcow2", "raw"), ("vmdk", "vmdk")):
        path = directory / f"{form}-on-{backing}"
        qemu_img("create", "-q", "-f", form, "-b", secrets / backing, "-F", backing, path)
        yield path
    path = directory / "qcow2-data-file"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={directory / 'data'},data_file_raw=on", path, "1M")
    (directory / "data").unlink()
    old = str(directory / "data").encode()
    path.write_bytes(path.read_bytes().replace(old, str(secrets / "raw").encode()[: len(old)]))
    yield path
    for number, name in enumerate(backing_names(secrets)):
        yield qcow2_backed_by(directory / f"qcow2-{number}", name)
    yield from vmdk_descriptors(directory, secrets)


def backing_names(secrets: Path) -> Iterator[bytes]:
    raw = str(secrets / "raw")
    yield raw.encode()
    yield f"file:{raw}".encode()
    yield b"json:" + json.dumps({"driver": "raw", "file": {"driver": "file", "filename": raw}}).encode()
    yield f"raw:{raw}".encode()
    yield f"nbd+unix:///?socket={raw}".encode()
    yield b"http://127.0.0.1:1/secret"
    yield b"/dev/fd/0"
    yield b"/proc/self/environ"
    yield raw.encode() + b"\0.qcow2"
    yield b"../" * 40 + raw.encode()[1:]


def qcow2_backed_by(path: Path, name: bytes) -> Path:
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    data = bytearray(path.read_bytes())
    at = 1024
    data[at : at + len(name)] = name
    data[8:20] = struct.pack(">QI", at, len(name))
    path.write_bytes(data)
    return path


def vmdk_descriptors(directory: Path, secrets: Path) -> Iterator[Path]:
    """Of text alone, and within a sparse extent whose own descriptor names other files."""
    raw = secrets / "raw"
    extents = (f'RW 2048 FLAT "{raw}" 0', f'RW 2048 VMFS "{raw}"', f'RDONLY 2048 SPARSE "{secrets / "vmdk"}"')
    for number, extent in enumerate(extents):
        for kind in ("monolithicFlat", "vmfs", "custom"):
            text = (
                f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="{kind}"\n{extent}\n'
            )
            path = directory / f"vmdk-{kind}-{number}"
            path.write_text(text)
            yield path
    sparse = directory / "vmdk-sparse"
    qemu_img("create", "-q", "-f", "vmdk", sparse, "1M")
    data = sparse.read_bytes()
    start = data.index(b"# Disk")
    for number, (old, new) in enumerate(
        (
            (b'"vmdk-sparse"', f'"{raw}"'.encode()),
            (b"SPARSE", b"FLAT"),
            (b"parentCID=ffffffff", b'parentCID=12345678\nparentFileNameHint="' + str(raw).encode() + b'"'),
        )
    ):
        changed = data[start : data.index(b"\0", start)].replace(old, new)
        path = directory / f"vmdk-sparse-{number}"
        path.write_bytes(data[:start] + changed + data[start + len(changed) :])
        yield path


def mutants(directory: Path, secrets: Path, dice: Random) -> Iterator[Path]:
    """True containers with random bytes of their headers changed, or the secret's path written over them."""
    name = str(secrets / "raw").encode()
    for form in ("qcow2", "vmdk", "vpc", "vhdx"):
        whole = (secrets / form).read_bytes()
        for number in range(MUTANTS):
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(min(len(data), 4096))] = dice.randrange(256)
            if number % 3 == 0:
                at = dice.randrange(len(data) - len(name))
                data[at : at + len(name)] = name
            path = directory / f"mutant-{form}-{number}"
            path.write_bytes(data)
            yield path


@pytest.mark.timeout(240)
def test_no_hostile_container_opens_a_file_of_the_host(tmp_path: Path, secrets: Path) -> None:
    corpus, work, log = tmp_path / "corpus", tmp_path / "work", tmp_path / "strace"
    corpus.mkdir()
    work.mkdir()
    made = list(hostile(corpus, secrets))
    mutated = list(mutants(corpus, secrets, Random(3)))
    calls = "open,openat,openat2,connect,execve,link,linkat,rename,renameat2,unlink,unlinkat,symlink,symlinkat,creat"
    done = subprocess.run(
        [
            need("strace"), "-f", "-qq", "-s", "4096", "-e", f"trace={calls}", "-o", log,
            sys.executable, "-P", "-m", "tests.attacks.decoding", work, *made, *mutated,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=230,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == len(made) + len(mutated) >= 60
    for path in made:
        harmless = path.name == "vmdk-sparse-0"  # its extent has another name than its file: the name is not used
        assert outcomes[str(path)] == "decoded" if harmless else outcomes[str(path)].startswith("refused: "), path
        assert outcomes[str(path)].isprintable()
    assert any(outcomes[str(path)] != "raw" and not outcomes[str(path)].startswith("refused") for path in mutated)
    touched = log.read_text(errors="replace")
    assert "qemu-img" in touched, "no decoder was started: nothing was tried"
    assert str(secrets) not in touched
    assert not re.search(r"\b(link|linkat|rename\w*|symlink\w*)\(", touched)
    programs = {Path(name).name for name in re.findall(r'execve\("([^"]+)".*= 0$', touched, re.MULTILINE)}
    assert programs - {Path(sys.executable).name} == {"prlimit", "setpriv", "qemu-img"}
    assert "AF_INET" not in touched
    assert list(work.iterdir()) == []
