"""What of a link's rate is payload: a simulated link is as fast as the real one without its headers."""

from __future__ import annotations

from dataclasses import replace

from simnet.scenario import Scenario

FRAME_BYTES = 1514
"""A full Ethernet frame as tbf counts it: 14 bytes of Ethernet, 20 of IPv4, 32 of TCP with timestamps, payload."""
SEGMENT_BYTES = 1448
TLS_RECORD_BYTES = 16_384
TLS_OVERHEAD_BYTES = 22
"""Of each record: its header, its type, its tag."""
GOODPUT_SHARE = SEGMENT_BYTES / FRAME_BYTES * TLS_RECORD_BYTES / (TLS_RECORD_BYTES + TLS_OVERHEAD_BYTES)


def in_goodput(scenario: Scenario) -> Scenario:
    """The same with every link's rate less headers."""
    network = scenario.network
    return replace(
        scenario,
        network=replace(
            network,
            up_mbit_per_s=network.up_mbit_per_s * GOODPUT_SHARE,
            down_mbit_per_s=network.down_mbit_per_s * GOODPUT_SHARE,
        ),
        groups=tuple(
            replace(group, up_mbit_per_s=_less(group.up_mbit_per_s), down_mbit_per_s=_less(group.down_mbit_per_s))
            for group in scenario.groups
        ),
    )


def _less(mbit_per_s: float | None) -> float | None:
    return None if mbit_per_s is None else mbit_per_s * GOODPUT_SHARE
