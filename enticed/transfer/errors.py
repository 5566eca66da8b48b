"""What can go wrong between a request and its bytes, by whose fault it is."""

from __future__ import annotations

from protocol.errors import AbsentError, ExhaustedError
from protocol.messages import Alternative, Refusal


class BusyError(ExhaustedError):
    """The peer has no upload slot: ask it again after `retry_after_s`, or ask the alternatives now."""

    def __init__(self, retry_after_s: float, alternatives: tuple[Alternative, ...]) -> None:
        super().__init__(f"the peer is busy for {retry_after_s:g} s, and names {len(alternatives)} others")
        self.retry_after_s = retry_after_s
        self.alternatives = alternatives


class RefusedError(AbsentError):
    """The peer does not serve this: it has not got it, cannot read it, or finds the request wrong."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(f"the peer refuses: {why.name.lower()}")
        self.why = why


class PeerLostError(AbsentError):
    """There is no connection to the peer, or not any more."""


class PeerSilentError(ExhaustedError):
    """The peer took too long: the connection is given up."""
