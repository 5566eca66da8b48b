"""Groups: what follows from a secret, and that nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record
from protocol.dsse import seal
from protocol.errors import DeniedError, MalformedError
from protocol.group import PRIVATE_TYPE, Group, Privacy, format_group, open_privacy, parse_group, seal_privacy
from protocol.identifiers import DiscoveryKey, ImageId, NodeId, PublisherKey
from protocol.limits import GROUP_TOKEN_MAX_CHARS, PRIVACY_MAX_SIZE_BYTES
from protocol.statement import STATEMENT_TYPE
from tests.wire.cas import NOW, signing_key

PUBLISHER = signing_key("publisher")
TRUSTED = frozenset({PublisherKey(PUBLISHER.public_key().public_bytes_raw())})
GROUP, OTHER = Group("team-a", b"\1" * 32), Group("team-a", b"\2" * 32)
ONE, TWO = NodeId(b"\1" * 20), NodeId(b"\2" * 20)
IMAGE = ImageId(b"\7" * 32)
SEALED = seal_privacy(Privacy(IMAGE, GROUP.id, NOW), PUBLISHER)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


@given(names, st.binary(min_size=32, max_size=32))
def test_its_line_is_the_group(name: str, secret: bytes) -> None:
    group = Group(name, secret)
    assert parse_group(format_group(group)) == group


@given(st.text(max_size=GROUP_TOKEN_MAX_CHARS + 2) | st.from_regex(r"ENTG1\.[a-z]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_any_text_is_a_group_or_malformed(text: str) -> None:
    try:
        assert format_group(parse_group(text)) == text
    except MalformedError:
        pass


@pytest.mark.parametrize("name", ["", "-a", "a.b", "a/b", "..", "a b", "x" * 65, "a\n"])
def test_no_names(name: str) -> None:
    with pytest.raises(MalformedError):
        Group(name, bytes(32))


def test_a_secret_of_another_length() -> None:
    for size in (0, 31, 33):
        with pytest.raises(MalformedError):
            Group("a", bytes(size))


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(GROUP)
    assert GROUP.secret.hex() not in repr(GROUP)


def test_everything_follows_from_the_secret_alone() -> None:
    assert Group("called-otherwise", GROUP.secret).id == GROUP.id
    keys = {DiscoveryKey.of_image(IMAGE, one) for one in (GROUP.discovery_key, OTHER.discovery_key)}
    assert len({*keys, DiscoveryKey.of_image(IMAGE)}) == 3
    assert len({GROUP.id, OTHER.id}) == 2


def test_a_proof_is_of_one_host_for_one_host_in_one_group() -> None:
    proofs = {GROUP.proof(ONE, TWO), GROUP.proof(TWO, ONE), GROUP.proof(ONE, ONE), OTHER.proof(ONE, TWO)}
    assert len(proofs) == 4
    assert GROUP.proof(ONE, TWO) == Group("b", GROUP.secret).proof(ONE, TWO)


def test_a_mark_is_what_a_publisher_signed() -> None:
    assert open_privacy(SEALED, TRUSTED) == Privacy(IMAGE, GROUP.id, NOW)
    with pytest.raises(DeniedError):
        open_privacy(seal(PRIVATE_TYPE, b"\xc1", signing_key("stranger")), TRUSTED)
    with pytest.raises(MalformedError):
        open_privacy(seal(STATEMENT_TYPE, pack_record(Privacy(IMAGE, GROUP.id, NOW)), PUBLISHER), TRUSTED)
    with pytest.raises(MalformedError, match="bytes"):
        open_privacy(bytes(PRIVACY_MAX_SIZE_BYTES + 1), TRUSTED)


def test_no_bit_can_be_flipped() -> None:
    for at in range(len(SEALED)):
        flipped = bytearray(SEALED)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, DeniedError)):
            open_privacy(bytes(flipped), TRUSTED)


@given(st.binary(max_size=120))
def test_any_signed_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_privacy(seal(PRIVATE_TYPE, payload, PUBLISHER), TRUSTED)


@given(st.binary(max_size=PRIVACY_MAX_SIZE_BYTES + 2))
def test_any_bytes_are_no_mark(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        open_privacy(data, TRUSTED)
