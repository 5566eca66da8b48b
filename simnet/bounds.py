"""What each number of a scenario is at least and at most: one table, by record and key, units in the keys."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from enticed.limits import SIMULATED_HOSTS_MAX_COUNT, SIMULATED_IMAGE_MAX_SIZE_MIB, SIMULATED_LINK_MAX_MBIT_PER_S
from protocol.limits import (
    BLOCK_SIZE_BYTES,
    FRAGMENT_MAX_SIZE_BYTES,
    FRAGMENT_MIN_BLOCKS,
    KIB,
    MIB,
    WINDOW_MAX_SIZE_BYTES,
)
from simnet.faults import Mishap
from simnet.scenario import Group, ImageSpec, Network, OrderSpec, OriginSpec, ReaderSpec, Scenario

Bounds = tuple[float, float]

HOSTS = (1, SIMULATED_HOSTS_MAX_COUNT)
SIZE_MIB = (1, SIMULATED_IMAGE_MAX_SIZE_MIB)
SEED = (0, 2**32 - 1)

_HOSTS_OR_NONE: Bounds = (0, SIMULATED_HOSTS_MAX_COUNT)
_PERCENT: Bounds = (0, 100)
_MBIT_PER_S: Bounds = (1, SIMULATED_LINK_MAX_MBIT_PER_S)
_TIME_S: Bounds = (0, 7 * 86400)
_LASTING_S: Bounds = (0, inf)
_FRAGMENT_KIB: Bounds = (FRAGMENT_MIN_BLOCKS * BLOCK_SIZE_BYTES // KIB, FRAGMENT_MAX_SIZE_BYTES // KIB)

BOUNDS: Mapping[type, Mapping[str, Bounds]] = {
    ImageSpec: {
        "size_mib": SIZE_MIB,
        "piece_mib": (0, WINDOW_MAX_SIZE_BYTES // MIB),
        "fragment_kib": _FRAGMENT_KIB,
        "new_percent": _PERCENT,
    },
    Network: {
        "up_mbit_per_s": _MBIT_PER_S,
        "down_mbit_per_s": _MBIT_PER_S,
        "latency_ms": (0, 10_000),
        "rack_hosts": _HOSTS_OR_NONE,
        "rack_oversubscription": (1, 1000),
        "zone_racks": _HOSTS_OR_NONE,
    },
    Group: {"hosts": HOSTS, "percent": _PERCENT, "up_mbit_per_s": _MBIT_PER_S, "down_mbit_per_s": _MBIT_PER_S},
    OrderSpec: {"from_s": _TIME_S, "over_s": _TIME_S, "due_in_s": _TIME_S, "cancel_after_s": _TIME_S},
    ReaderSpec: {"from_s": _TIME_S, "over_s": _TIME_S, "fragments": (1, 100_000), "within_s": (0.01, _TIME_S[1])},
    OriginSpec: {"mbit_per_s": _MBIT_PER_S},
    Mishap: {
        "percent": _PERCENT,
        "hosts": HOSTS,
        "from_s": _TIME_S,
        "after_seed_copies": (0, SIMULATED_HOSTS_MAX_COUNT),
        "over_s": _TIME_S,
        "for_s": _LASTING_S,
        "every_s": (0.1, _TIME_S[1]),
        "until_s": _LASTING_S,
        "factor": (1, 1_000_000),
        "by_s": (-1e9, 1e9),
    },
    Scenario: {"hosts": HOSTS, "goals": (-1e18, 1e18), "seed": SEED, "limit_s": (1, _TIME_S[1])},
}
"""Of a table of numbers, each of them."""
