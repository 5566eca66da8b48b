"""What this host keeps for others: provider records by key, a fair sample of them where there are many, and names.

Where a key has more providers than are kept, each provider has a rank, a hash that differs from replica to replica, and
the lowest ranks are kept. Who is kept is thus a random sample that no order of arrival changes; those sampled out can
come back rarely, since they are not missed; and as all hosts below a rank are known, their number tells the population.
Providers of the whole image and of parts each have half of the places, and what of it the others leave: a seed is not
crowded out by those that are still fetching.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from blake3 import blake3

from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import CheckedName, CheckedProvider
from protocol.dht import Verdict
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.limits import PROVIDERS_MAX_COUNT
from protocol.providers import ProviderState

_FARTHEST = 1 << 8 * NodeId.size_bytes
"""No distance is so large."""


@dataclass(slots=True)
class _Kept:
    node: NodeId
    data: bytes
    state: ProviderState
    sequence: int
    expires_at: float
    rank: float


@dataclass(slots=True)
class KeptName:
    """`refreshed_at`: when its replicas were last known to have it."""

    data: bytes
    version: int
    expires_at: float
    refreshed_at: float


class Shelf:
    """The providers of one key."""

    def __init__(self, size: int, salt: bytes) -> None:
        self._size = size
        self._salt = salt
        self._kept: dict[NodeId, _Kept] = {}
        # Of each state every provider below this rank is here; 1.0 while none had to go.
        self._complete_below = dict.fromkeys(ProviderState, 1.0)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, checked: CheckedProvider, lifetime_s: float, now: float) -> tuple[Verdict, NodeId | None]:
        """What becomes of a record, and whose record had to go for it."""
        record = checked.record
        known = self._kept.get(record.node)
        if known is not None and record.sequence < known.sequence:
            return Verdict.OUTDATED, None
        digest = blake3(record.node, key=self._salt).digest(8) if known is None else b""
        rank = known.rank if known is not None else int.from_bytes(digest, "big") / 2**64
        self._kept[record.node] = _Kept(
            record.node, checked.data, record.state, record.sequence, now + lifetime_s, rank
        )
        kept = Verdict.KEPT if known is None else Verdict.RENEWED
        if len(self._kept) <= self._size:
            return kept, None
        gone = self._crowded_out()
        del self._kept[gone.node]
        self._complete_below[gone.state] = self._new_bound(gone)
        return (Verdict.SAMPLED_OUT, None) if gone.node == record.node else (kept, gone.node)

    def drop(self, node: NodeId) -> bool:
        return self._kept.pop(node, None) is not None

    def expire(self, now: float) -> list[NodeId]:
        """Drop what has expired; returns whose it was."""
        gone = [one.node for one in self._kept.values() if one.expires_at <= now]
        for node in gone:
            del self._kept[node]
        if len(self._kept) < self._size // 2:
            self._complete_below = dict.fromkeys(ProviderState, 1.0)
        return gone

    def sample(self, dice: Random, exclude: NodeId, now: float) -> tuple[bytes, ...]:
        """Some of the records in random order, among them one of a whole image if there is any."""
        live = [one for one in self._kept.values() if one.expires_at > now and one.node != exclude]
        chosen = dice.sample(live, min(PROVIDERS_MAX_COUNT, len(live)))
        if chosen and not any(one.state is ProviderState.WHOLE for one in chosen):
            whole = [one for one in live if one.state is ProviderState.WHOLE]
            chosen[0] = dice.choice(whole) if whole else chosen[0]
        # Fewer may fit: a whole one goes first.
        chosen.sort(key=lambda one: one.state is not ProviderState.WHOLE)
        return tuple(one.data for one in chosen)

    def population(self) -> int:
        """How many providers there are, as far as one can tell from those here."""
        return round(sum(self._estimate(state) for state in ProviderState))

    def _estimate(self, state: ProviderState) -> float:
        bound = self._complete_below[state]
        return sum(one.state is state and one.rank < bound for one in self._kept.values()) / bound

    def _crowded_out(self) -> _Kept:
        states = [one.state for one in self._kept.values()]
        crowd = max(ProviderState, key=states.count)
        return max((one for one in self._kept.values() if one.state is crowd), key=lambda one: one.rank)

    def _new_bound(self, gone: _Kept) -> float:
        bound = self._complete_below[gone.state]
        if gone.rank <= bound:
            return gone.rank
        # The population has fallen if few are left below the old bound; those here are then a better measure.
        below = sum(one.state is gone.state and one.rank < bound for one in self._kept.values())
        return bound if below >= self._size // 4 else gone.rank


class Shelves:
    """All that is kept: so much in all, so much for one host.

    When full, every host keeps the records whose keys are nearest to this one, as many of them as any other host or all
    that it has. Keys are whatever their announcers like: nearness alone would give a few hosts with keys made for it
    the places of everybody. Names have places of their own, and there the nearest stay.
    """

    def __init__(self, own: NodeId, policy: DhtPolicy, dice: Random) -> None:
        self._own = int.from_bytes(own, "big")
        self._salt = blake3(own, derive_key_context="enticed provider sample v1").digest()
        self._policy = policy
        self._dice = dice
        self._shelves: dict[DiscoveryKey, Shelf] = {}
        self._keys_of: dict[NodeId, set[DiscoveryKey]] = {}
        self._count = 0
        self._horizons: dict[NodeId, int] = {}
        """Of hosts some of whose records had to go, the distance of the nearest of these: nothing so far comes in."""
        self.names: dict[DiscoveryKey, KeptName] = {}
        self._names_horizon = _FARTHEST

    def __len__(self) -> int:
        """Provider records."""
        return self._count

    def put(self, checked: CheckedProvider, now: float) -> Verdict:
        """Keep a provider's record, checked and sent by its subject."""
        key, node = checked.record.key, checked.record.node
        shelf = self._shelves.get(key)
        if shelf is not None and len(shelf) >= self._policy.providers_per_key:
            self._expire(key, shelf, now)
        if key not in self._keys_of.get(node, ()) and not self._has_room(key, node):
            return Verdict.REFUSED
        shelf = self._shelves.get(key)  # what was there may have gone to make room
        if shelf is None:
            salt = blake3(key, key=self._salt).digest()
            shelf = self._shelves[key] = Shelf(self._policy.providers_per_key, salt)
        before = len(shelf)
        lifetime_s = min(checked.lifetime_s, self._policy.provider_lifetime_s)
        verdict, gone = shelf.put(checked, lifetime_s, now)
        self._count += len(shelf) - before
        if gone is not None:
            self._unlist(gone, key)
        if verdict in (Verdict.KEPT, Verdict.RENEWED):
            self._keys_of.setdefault(node, set()).add(key)
        return verdict

    def drop(self, key: DiscoveryKey, node: NodeId) -> None:
        shelf = self._shelves.get(key)
        if shelf is not None and shelf.drop(node):
            self._count -= 1
            self._unlist(node, key)
            self._drop_if_empty(key, shelf)

    def drop_host(self, node: NodeId) -> None:
        """It has left: it provides nothing any more."""
        for key in list(self._keys_of.get(node, ())):
            self.drop(key, node)

    def providers(self, key: DiscoveryKey, exclude: NodeId, now: float) -> tuple[tuple[bytes, ...], int]:
        """A sample of a key's providers, and their number."""
        shelf = self._shelves.get(key)
        if shelf is None:
            return (), 0
        self._expire(key, shelf, now)
        return shelf.sample(self._dice, exclude, now), shelf.population()

    def population(self, key: DiscoveryKey) -> int:
        shelf = self._shelves.get(key)
        return 0 if shelf is None else shelf.population()

    def put_name(self, key: DiscoveryKey, checked: CheckedName, now: float) -> Verdict:
        """Keep a name, checked, unless one of a higher version is there; of one version the first stays."""
        known = self.names.get(key)
        if known is None and not self._has_room_for_name(key):
            return Verdict.REFUSED
        is_newest = known is not None and known.expires_at > now and known.version >= checked.version
        if known is not None and is_newest and known.data != checked.data:
            return Verdict.OUTDATED
        self.names[key] = KeptName(checked.data, checked.version, now + checked.lifetime_s, now)
        return Verdict.KEPT

    def drop_name(self, key: DiscoveryKey) -> None:
        self.names.pop(key, None)

    def name(self, key: DiscoveryKey, now: float) -> KeptName | None:
        known = self.names.get(key)
        return known if known is not None and known.expires_at > now else None

    def sweep(self, now: float) -> None:
        """Forget everything that has expired."""
        for key, shelf in list(self._shelves.items()):
            self._expire(key, shelf, now)
        for key, name in list(self.names.items()):
            if name.expires_at <= now:
                del self.names[key]
        self._horizons.clear()
        self._names_horizon = _FARTHEST

    def _expire(self, key: DiscoveryKey, shelf: Shelf, now: float) -> None:
        for node in shelf.expire(now):
            self._count -= 1
            self._unlist(node, key)
        self._drop_if_empty(key, shelf)

    def _drop_if_empty(self, key: DiscoveryKey, shelf: Shelf) -> None:
        if not len(shelf):
            del self._shelves[key]

    def _unlist(self, node: NodeId, key: DiscoveryKey) -> None:
        keys = self._keys_of[node]
        keys.discard(key)
        if not keys:
            del self._keys_of[node]

    def _distance(self, key: DiscoveryKey) -> int:
        return int.from_bytes(key, "big") ^ self._own

    def _has_room(self, key: DiscoveryKey, node: NodeId) -> bool:
        """Whether a record of this host may come in under this key; if need be, room is made for it."""
        if len(self._keys_of.get(node, ())) >= self._policy.providers_per_source:
            return False
        if self._count >= self._policy.providers_max and not self._is_beyond(key, node):
            self._make_room()
        return not self._is_beyond(key, node)

    def _is_beyond(self, key: DiscoveryKey, node: NodeId) -> bool:
        horizon = self._horizons.get(node)
        return horizon is not None and self._distance(key) >= horizon

    def _make_room(self) -> None:
        """Of the hosts that have most the farthest goes: the last of each, then the last but one of each, and so on.

        A sixteenth goes at once, so that a full host does not sort its records for every one that comes.
        """
        places = self._policy.providers_max * 15 // 16
        share = _even_share([len(keys) for keys in self._keys_of.values()], places)
        above: list[tuple[int, int, NodeId]] = []
        for node, keys in self._keys_of.items():
            if len(keys) > share:
                distances = sorted(map(self._distance, keys))
                above += ((rank, distance, node) for rank, distance in enumerate(distances[share:]))
        above.sort(reverse=True)
        for _, distance, node in above[: self._count - places]:
            self._horizons[node] = distance
            self.drop(DiscoveryKey((distance ^ self._own).to_bytes(DiscoveryKey.size_bytes, "big")), node)

    def _has_room_for_name(self, key: DiscoveryKey) -> bool:
        """Whether a name may come in under this key; if need be, a sixteenth of all goes, the farthest.

        Who brought a name does not matter: only publishers make any.
        """
        if len(self.names) >= self._policy.names_max and self._distance(key) < self._names_horizon:
            farthest = sorted(self.names, key=self._distance)[self._policy.names_max * 15 // 16 :]
            self._names_horizon = self._distance(farthest[0])
            for other in farthest:
                del self.names[other]
        return self._distance(key) < self._names_horizon


def _even_share(counts: list[int], places: int) -> int:
    """The most that everybody can have, or all that it has, where there are fewer places than are wanted."""
    counts.sort()
    for index, count in enumerate(counts):
        share = places // (len(counts) - index)
        if count > share:
            return share
        places -= count
    return counts[-1]
