"""What an operator writes for an origin, and what it must not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.origin.errors import ObjectAbsentError, OriginFaultError
from enticed.origin.prefix import Prefix, parse_prefix
from enticed.origin.s3 import SignedAddresses
from enticed.origin.schemes import open_depot, open_origin
from protocol.errors import DeniedError, LocalError


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("https://mirror.example/images/", "https://mirror.example/images"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("http://[fd00::1]:8080/a", "http://[fd00::1]:8080/a"),
        ("https://host/a%20b", "https://host/a%20b"),
        ("s3://my-bucket", "s3://my-bucket"),
        ("s3://my-bucket/a/b/", "s3://my-bucket/a/b"),
        ("file:///srv/images/", "file:///srv/images"),
    ],
)
def test_a_prefix(text: str, label: str) -> None:
    assert parse_prefix(text).label == label
    assert parse_prefix(label) == parse_prefix(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "never", "/srv/images", "ftp://host/a", "https://", "https:///a", "s3://", "s3://B/a", "s3://b", "file://host/a",
        "file://srv", "https://user:secret@host/a", "https://secret@host", "https://host/a?secret", "https://host/a#secret",
        "https://host:port/", "https://host/../a", "https://host/%2e%2e/a", "https://ho st/", "https://höst/", "https://[::1/",
    ],
)  # fmt: skip
def test_what_is_none_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(LocalError) as raised:
        parse_prefix(text)
    assert "secret" not in str(raised.value)


@given(st.text(max_size=60) | st.text(alphabet="s3htpfile:/.a%@?#[]", max_size=40))
def test_any_text_is_a_prefix_or_a_local_error(text: str) -> None:
    try:
        prefix = parse_prefix(text)
    except LocalError:
        return
    assert isinstance(prefix, Prefix)
    assert ".." not in prefix.path.split("/")


def test_a_role_that_is_not_lent_is_a_fault_of_the_origin() -> None:
    from botocore.exceptions import ClientError

    class Refused:
        def generate_presigned_url(self, *_: object) -> str:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole")

    with pytest.raises(OriginFaultError, match="AccessDenied"):
        SignedAddresses(Refused(), "bucket", "")("name")


def test_a_web_server_is_not_written_to() -> None:
    with pytest.raises(LocalError, match="directory that it serves"):
        open_depot(parse_prefix("https://host/a"))


def test_s3_without_credentials_says_where_they_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    prefix = parse_prefix("s3://bucket/a")
    with pytest.raises(ObjectAbsentError, match="AWS_ACCESS_KEY_ID"):
        open_origin(prefix, "http://127.0.0.1:9").read("id/root", 10)
    with pytest.raises(DeniedError, match="AWS_ACCESS_KEY_ID"):
        open_depot(prefix, "http://127.0.0.1:9").put("id/root", b"")
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(LocalError, match="none"):
        open_origin(prefix)
