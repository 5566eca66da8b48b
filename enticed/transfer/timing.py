"""How long anything may take between two hosts."""

from __future__ import annotations

from dataclasses import dataclass

from enticed.transfer import limits


@dataclass(frozen=True, slots=True)
class Timing:
    """How long anything may take; what each means is said in `enticed/transfer/limits.py`."""

    connect_s: float = limits.CONNECT_TIMEOUT_S
    handshake_s: float = limits.HANDSHAKE_TIMEOUT_S
    hello_s: float = limits.HELLO_TIMEOUT_S
    goodbye_s: float = limits.GOODBYE_TIMEOUT_S
    ping_after_s: float = limits.PING_AFTER_S
    silent_s: float = limits.PEER_SILENT_S
    reply_s: float = limits.REPLY_TIMEOUT_S
    send_s: float = limits.SEND_TIMEOUT_S
    send_stalled_s: float = limits.SEND_STALLED_S
    idle_s: float = limits.BULK_IDLE_S
    served_idle_s: float = limits.BULK_SERVED_IDLE_S
