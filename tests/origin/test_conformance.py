"""One suite for every origin that can be read and every depot that can be written: what is put is what is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from enticed.origin.errors import ObjectAbsentError, OriginFaultError, OriginLostError
from enticed.origin.port import Depot, Origin
from enticed.origin.prefix import parse_prefix
from enticed.origin.schemes import open_depot, open_origin
from protocol.errors import EnticedError, LocalError
from protocol.limits import MIB
from simnet.testbed.origins import S3_ENVIRONMENT, nginx, s3_service
from tests.programs import need


@dataclass(frozen=True)
class Place:
    origin: Origin
    depot: Depot


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, str, str | None]]]:
    """By kind: what is exported to, what is read from, and the endpoint of S3."""
    from botocore.session import get_session

    need("nginx")
    directory = tmp_path_factory.mktemp("origins")
    served = directory / "served"
    served.mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        nginx(served, directory / "nginx") as server,
        s3_service(directory / "s3") as endpoint,
    ):
        for name, value in S3_ENVIRONMENT.items():
            patch.setenv(name, value)
        client = get_session().create_client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="images")
        client.close()
        yield {
            "folder": (f"file://{directory}/folder", f"file://{directory}/folder", None),
            "nginx": (f"file://{served}/under", f"{server.url}/under/", None),
            "s3": ("s3://images/some/prefix", "s3://images/some/prefix/", endpoint),
        }


@pytest.fixture(params=["folder", "nginx", "s3"])
def place(request: pytest.FixtureRequest, servers: dict[str, tuple[str, str, str | None]]) -> Iterator[Place]:
    written, read, endpoint = servers[request.param]
    depot, origin = open_depot(parse_prefix(written), endpoint), open_origin(parse_prefix(read), endpoint)
    yield Place(origin, depot)
    origin.close()
    depot.close()


def range_of(origin: Origin, name: str, offset_bytes: int, size_bytes: int, step_bytes: int = 1000) -> bytes:
    stream = origin.open(name, offset_bytes, size_bytes)
    try:
        data = bytearray(size_bytes)
        view = memoryview(data)
        for start in range(0, size_bytes, step_bytes):
            stream.fill(view[start : start + step_bytes])
        return bytes(data)
    finally:
        stream.close()


def test_what_is_put_is_read(place: Place) -> None:
    for data in (b"first", b"", os.urandom(300_000)):
        place.depot.put("id/root", data)
        assert place.origin.read("id/root", len(data)) == data
        assert place.depot.size_bytes("id/root") == len(data)


def test_what_is_not_there_is_absent(place: Place) -> None:
    assert place.depot.size_bytes("id/nothing") is None
    with pytest.raises(ObjectAbsentError):
        place.origin.read("id/nothing", 10)
    with pytest.raises(ObjectAbsentError):
        place.origin.open("id/nothing", 0, 10)


def test_an_object_has_a_limit(place: Place) -> None:
    place.depot.put("id/pages", bytes(1001))
    with pytest.raises(OriginFaultError, match="more than 1000 bytes"):
        place.origin.read("id/pages", 1000)


def test_ranges_of_a_file_with_holes(place: Place, tmp_path: Path) -> None:
    size_bytes = 40 * MIB + 123
    path = tmp_path / "raw"
    dice = np.random.default_rng(1)
    with path.open("wb") as file:
        for mib in (0, 7, 17, 40):
            file.seek(mib * MIB)
            file.write(dice.bytes(min(MIB, size_bytes - mib * MIB)))
    content = path.read_bytes()
    told: list[tuple[int, int]] = []
    with path.open("rb") as file:
        place.depot.put_file("id/raw", file.fileno(), size_bytes, lambda done, total: told.append((done, total)))
    assert told[-1] == (size_bytes, size_bytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert place.depot.size_bytes("id/raw") == size_bytes
    for offset_bytes, count in ((0, 1), (0, 5000), (7 * MIB - 3, MIB + 6), (size_bytes - 200_000, 200_000)):
        assert range_of(place.origin, "id/raw", offset_bytes, count) == content[offset_bytes : offset_bytes + count]
    with pytest.raises(OriginFaultError, match=r"shorter|another range"):
        place.origin.open("id/raw", size_bytes - 10, 20)
    with pytest.raises(OriginFaultError, match="shorter"):
        place.origin.open("id/raw", size_bytes, 1)


def test_what_cannot_be_finished_is_taken_back(servers: dict[str, tuple[str, str, str | None]], tmp_path: Path) -> None:
    from botocore.session import get_session

    written, _, endpoint = servers["s3"]
    path = tmp_path / "raw"
    path.write_bytes(bytes(MIB))
    depot = open_depot(parse_prefix(written), endpoint)
    with path.open("rb") as file, pytest.raises(LocalError, match="shrank"):
        depot.put_file("cut/raw", file.fileno(), 40 * MIB, lambda done, total: None)
    assert depot.size_bytes("cut/raw") is None
    client = get_session().create_client("s3", endpoint_url=endpoint)
    assert "Uploads" not in client.list_multipart_uploads(Bucket="images"), "nobody pays for what was left"
    client.close()
    depot.close()


def test_a_directory_keeps_holes(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    with source.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(8 * MIB)
        file.write(os.urandom(MIB))
    depot = open_depot(parse_prefix(f"file://{tmp_path}/depot"))
    with source.open("rb") as file:
        depot.put_file("id/raw", file.fileno(), 64 * MIB, lambda done, total: None)
    assert (tmp_path / "depot/id/raw").stat().st_blocks * 512 <= 2 * MIB
    assert [path.name for path in (tmp_path / "depot/id").iterdir()] == ["raw"]


def test_what_does_not_reach_the_disk_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be taken for whole when the export is begun again."""
    source = tmp_path / "raw"
    source.write_bytes(os.urandom(MIB))
    depot = open_depot(parse_prefix(f"file://{tmp_path}/depot"))

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with source.open("rb") as file, monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(EnticedError, match="Input/output"):
            depot.put_file("id/raw", file.fileno(), MIB, lambda done, total: None)
        with pytest.raises(EnticedError, match="Input/output"):
            depot.put("id/root", b"root")
    assert list((tmp_path / "depot/id").iterdir()) == []


def test_who_reads_an_interrupted_range_is_told(place: Place) -> None:
    place.depot.put("id/raw", bytes(MIB))
    stream = place.origin.open("id/raw", 0, MIB)
    stream.fill(memoryview(bytearray(1000)))
    stream.interrupt()
    with pytest.raises(OriginLostError):
        stream.fill(memoryview(bytearray(MIB)))
    stream.interrupt()
    stream.close()
    stream.interrupt()
