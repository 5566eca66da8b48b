"""Boot profiles: a trusted publisher's hint, bounded in size, and read only once it is known to be that."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dsse import Quorum, seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import ImageId, PublisherKey
from protocol.limits import PROFILE_MAX_BLOCKS, PROFILE_MAX_RUNS, PROFILE_RUN_MAX_BLOCKS, STATEMENT_MAX_SIZE_BYTES
from protocol.profile import PROFILE_TYPE, BlockRun, BootProfile, open_profile, seal_profile
from protocol.statement import open_statement
from tests.wire.cas import NOW, signing_key

PUBLISHER = signing_key("publisher")
TRUSTED = frozenset([PublisherKey(PUBLISHER.public_key().public_bytes_raw())])
IMAGE = ImageId(b"\7" * 32)
PLAIN = BootProfile(IMAGE, (BlockRun(7, 1), BlockRun(0, 3)), NOW)
LAST_BLOCK = 2**31 - 1
TOO_MANY = PROFILE_MAX_BLOCKS // PROFILE_RUN_MAX_BLOCKS + 1
TRUSTED_BY_A = frozenset([PublisherKey(signing_key("a").public_key().public_bytes_raw())])

runs = st.builds(BlockRun, st.integers(0, LAST_BLOCK), st.integers(1, 200))
profiles = st.builds(
    BootProfile,
    st.binary(min_size=32, max_size=32).map(ImageId),
    st.lists(runs, min_size=1, max_size=50).map(tuple),
    st.integers(0, 2**64 - 1),
)


@given(profiles)
def test_what_was_said_is_heard(profile: BootProfile) -> None:
    assert open_profile(seal_profile(profile, PUBLISHER), TRUSTED) == profile


@given(st.binary(max_size=200))
def test_any_signed_bytes_are_a_profile_or_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_profile(seal(PROFILE_TYPE, payload, PUBLISHER), TRUSTED)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_profile(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        open_profile(data, TRUSTED)


def test_a_stranger_is_denied_before_a_word_is_read() -> None:
    with pytest.raises(DeniedError):
        open_profile(seal(PROFILE_TYPE, b"\xc1 not even msgpack", signing_key("stranger")), TRUSTED)


def test_a_profile_is_no_statement() -> None:
    with pytest.raises(MalformedError, match="another type"):
        open_statement(seal_profile(PLAIN, PUBLISHER), Quorum.any_of(TRUSTED))


@pytest.mark.parametrize(
    "profile",
    [
        replace(PLAIN, runs=()),
        replace(PLAIN, runs=(BlockRun(0, 0),)),
        replace(PLAIN, runs=(BlockRun(LAST_BLOCK + 1, 1),)),
        replace(PLAIN, runs=(BlockRun(0, PROFILE_RUN_MAX_BLOCKS + 1),)),
        replace(PLAIN, runs=(BlockRun(0, 1),) * (PROFILE_MAX_RUNS + 1)),
        replace(PLAIN, runs=(BlockRun(0, PROFILE_RUN_MAX_BLOCKS),) * TOO_MANY),
    ],
)
def test_what_must_not_be_said(profile: BootProfile) -> None:
    with pytest.raises(LocalError):
        seal_profile(profile, PUBLISHER)


def test_the_largest_profile_fits() -> None:
    blocks = PROFILE_MAX_BLOCKS // PROFILE_MAX_RUNS
    largest = tuple(BlockRun(LAST_BLOCK - number, blocks) for number in range(PROFILE_MAX_RUNS))
    sealed = seal_profile(replace(PLAIN, runs=largest, issued_at=2**64 - 1), *map(signing_key, "abcd"))
    assert len(sealed) < STATEMENT_MAX_SIZE_BYTES
    assert open_profile(sealed, TRUSTED_BY_A).runs == largest
