"""What a daemon and its couriers say to each other: any error arrives as what it was, and any bytes are looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.landing import CorruptFragmentError, LandingError
from enticed.transfer.courier_messages import FROM_COURIER, TO_COURIER, Ended, error_of, failure_of
from enticed.transfer.errors import BusyError, PeerLostError, PeerSilentError, RefusedError
from protocol.errors import DeniedError, EnticedError, ExhaustedError, LocalError, MalformedError, RemoteError
from protocol.identifiers import NodeId
from protocol.messages import Alternative, Refusal

ERRORS: list[EnticedError] = [
    BusyError(0.25, (Alternative(NodeId(bytes(20)), ("192.0.2.1:7000",)),)),
    RefusedError(Refusal.NOT_HELD),
    CorruptFragmentError(17),
    PeerLostError("gone"),
    PeerSilentError("silent"),
    MalformedError("no message"),
    RemoteError("wrong"),
    DeniedError("a stranger"),
    LocalError("a bug"),
    RemoteError("half a character"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_what_it_was(error: EnticedError) -> None:
    told = error_of(failure_of(error))
    assert type(told) is type(error)
    assert vars(told) == vars(error)
    assert str(told) == str(error)


def test_a_disk_error_arrives_with_its_cause() -> None:
    error = LandingError("what was received cannot be written: No space left on device")
    error.__cause__ = OSError(28, "No space left on device")
    told = error_of(failure_of(error))
    assert isinstance(told, LandingError)
    assert isinstance(told.__cause__, OSError)
    assert told.__cause__.errno == 28


def test_a_text_that_cannot_be_sent_is_made_one_that_can() -> None:
    failure = failure_of(RemoteError("half a character: \ud800"))
    message = FROM_COURIER.decode(FROM_COURIER.encode(Ended(1, failure)))
    assert str(error_of(message.failure)) == "half a character: ?"


def test_any_other_error_is_our_own() -> None:
    told = error_of(failure_of(ExhaustedError("x" * 5000)))
    assert type(told) is LocalError
    assert str(told) == "x" * 1024


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for vocabulary in (TO_COURIER, FROM_COURIER):
        try:
            message = vocabulary.decode(data)
        except MalformedError:
            continue
        assert vocabulary.decode(vocabulary.encode(message)) == message
