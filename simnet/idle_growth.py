"""How what discovery costs grows with hosts and images: fitted to what whole machines were measured to send.

Per host and hour, with `keys` that each host announces and log2 of the hosts for the length of a walk:
- stores go to the replicas of each key: a constant for each key;
- walks: to each key, and to keep the routing table: a + b log2(hosts), and the same for each key;
- pings, to contacts not heard otherwise: a + b log2(hosts), as many as with few keys, which is the most;
- hellos: two hosts that speak within an hour meet once an hour, in 4 datagrams. Not fitted, since in a small cloud all
  meet: a host asks, and is asked by, as many as keep its keys or are passed on the way, and as are in tables. Were all
  of these random, it would meet n (1 - exp(-asked / n)) of n others. It meets fewer: some are asked for many keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log2

import numpy as np
from numpy.typing import NDArray

from enticed.core.dht.policy import DhtPolicy
from simnet.dht_network import HELLO, MEETING_DATAGRAMS
from simnet.idle import OWN_KEYS, Idle

STORING = ("Store", "Stored")
WALKING = ("FindNode", "Nodes")
PINGING = ("Ping", "Pong")
REPLICAS, BUCKET_CONTACTS = DhtPolicy().replicas, DhtPolicy().bucket_contacts


@dataclass(frozen=True, slots=True)
class Growth:
    """Datagrams per host and hour; `log` stands beside log2(hosts)."""

    store_per_key: float
    walk: float
    walk_log: float
    walk_per_key: float
    walk_per_key_log: float
    ping: float
    ping_log: float

    def of(self, hosts: int, images: int) -> dict[str, float]:
        """By what they are for."""
        keys, length = images + OWN_KEYS, log2(hosts)
        walk_per_key = self.walk_per_key + self.walk_per_key_log * length
        in_tables = BUCKET_CONTACTS * max(1.0, length - log2(BUCKET_CONTACTS) + 1)
        asked = 2 * (keys * max(REPLICAS, walk_per_key / 2) + in_tables)  # half of a walk's datagrams are questions
        met = (hosts - 1) * (1 - exp(-asked / (hosts - 1)))
        return {
            "store": self.store_per_key * keys,
            "walk": self.walk + self.walk_log * length + walk_per_key * keys,
            "ping": max(0.0, self.ping + self.ping_log * length),
            "hello": met * MEETING_DATAGRAMS / 2,
        }


def measured(idle: Idle) -> dict[str, float]:
    """What `Growth.of` predicts, as it was."""
    return {
        "store": sum(map(idle.per_host, STORING)),
        "walk": sum(map(idle.per_host, WALKING)),
        "ping": sum(map(idle.per_host, PINGING)),
        "hello": idle.per_host(HELLO),
    }


def fit(runs: Sequence[Idle]) -> Growth:
    """Least squares. Runs of at least two numbers of hosts, and of two numbers of images."""
    length = np.array([log2(run.hosts) for run in runs])
    keys = np.array([run.keys for run in runs], np.float64)
    one = np.ones(len(runs))
    by_kind = {kind: np.array([measured(run)[kind] for run in runs]) for kind in ("store", "walk", "ping")}
    few = keys == keys.min()
    return Growth(
        *_solve([keys], by_kind["store"]),
        *_solve([one, length, keys, keys * length], by_kind["walk"]),
        *_solve([one[few], length[few]], by_kind["ping"][few]),
    )


def _solve(columns: Sequence[NDArray[np.float64]], values: NDArray[np.float64]) -> list[float]:
    solution: list[float] = np.linalg.lstsq(np.stack(columns, axis=1), values, rcond=None)[0].tolist()
    return solution
