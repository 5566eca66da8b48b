"""The routing table: whom this host knows, so that it knows the more hosts the nearer they are to itself.

The one adapter over the `kademlia` package, whose buckets and table are subclassed here and used nowhere else. What is
changed, and why:
- time comes from the caller, and nothing is pinged from here: the node pings whoever is quiet;
- the range starts at 2**160 - 1 and a bucket's edge is its own: the package is one off at both, and so its buckets are
  no subtrees;
- `find_neighbors` gives the true nearest: the package stops at the first k that it meets on its way (62 % right);
- only the own bucket splits: the package measures a bucket's depth by who happens to be in it;
- a contact is never in a bucket and among its replacements at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from itertools import chain
from math import inf
from random import Random

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from protocol.dht import Contact
from protocol.identifiers import DiscoveryKey, NodeId

_BITS = 160


class Entry(Node):  # type: ignore[misc]  # the package has no types
    """A contact in the table. `long_id`: its position as a number."""

    id: NodeId
    long_id: int

    def __init__(self, contact: Contact, heard_at: float) -> None:
        super().__init__(contact.node, contact.endpoint)
        self.contact = contact
        self.heard_at = heard_at
        self.failures = 0


class Bucket(KBucket):  # type: ignore[misc]
    """A subtree of positions, `range` inclusive at both ends. `nodes`: least recently heard first."""

    range: tuple[int, int]

    def __init__(self, low: int, high: int, size: int, refreshed_at: float = -inf) -> None:
        super().__init__(low, high, size, replacementNodeFactor=1)
        self.refreshed_at = refreshed_at

    def touch_last_updated(self) -> None:
        """The package would read the clock here."""

    def split(self) -> tuple[Bucket, Bucket]:
        low, high = self.range
        middle = (low + high) // 2
        halves = (
            Bucket(low, middle, self.ksize, self.refreshed_at),
            Bucket(middle + 1, high, self.ksize, self.refreshed_at),
        )
        for entry in chain(self.nodes.values(), self.replacement_nodes.values()):
            halves[entry.long_id > middle].add_node(entry)
        return halves

    def add_node(self, node: Entry) -> bool:
        kept: bool = super().add_node(node)
        if kept:
            self.replacement_nodes.pop(node.id, None)
        return kept

    def distance_to(self, position: int) -> int:
        """Of its nearest possible member. Subtrees never interleave: all of a nearer one is nearer than all of this."""
        low, high = self.range
        return (low ^ position) & ~(high - low)


class Table(RoutingTable):  # type: ignore[misc]
    """Contacts that have shown themselves: whoever stands here was heard, with proof of who it is."""

    buckets: list[Bucket]

    def __init__(self, own: NodeId, bucket_contacts: int, failures_max: int, lost_max: int) -> None:
        self.lost: dict[bytes, None] = {}
        """Endpoints of contacts that answered no more and were not heard since, the last ones last."""
        self._lost_max = lost_max
        self._entries: dict[NodeId, Entry] = {}
        self._failures_max = failures_max
        self._network_size: float | None = None
        super().__init__(None, bucket_contacts, Node(own))

    # What the package's table does, put right.

    def flush(self) -> None:
        self.buckets = [Bucket(0, 2**_BITS - 1, self.ksize)]
        self._entries.clear()

    def get_bucket_for(self, node: Node) -> int:
        return next(index for index, bucket in enumerate(self.buckets) if node.long_id <= bucket.range[1])

    def add_contact(self, node: Entry) -> bool:
        while True:
            bucket = self.buckets[self.get_bucket_for(node)]
            if bucket.add_node(node):
                return True
            if not bucket.has_in_range(self.node):
                return False
            self.split_bucket(self.get_bucket_for(node))

    def find_neighbors(self, node: Node, k: int | None = None, exclude: Node | None = None) -> list[Entry]:
        wanted = k or self.ksize
        position = node.long_id
        found: list[Entry] = []
        for bucket in sorted(self.buckets, key=lambda one: one.distance_to(position)):
            missing = wanted - len(found)
            if missing <= 0:
                break
            left = (one for one in bucket.nodes.values() if exclude is None or one.id != exclude.id)
            found += nsmallest(missing, left, key=lambda one: one.long_id ^ position)
        return found

    # What the DHT asks of it.

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets)

    def __iter__(self) -> Iterator[Contact]:
        return (entry.contact for bucket in self.buckets for entry in bucket.nodes.values())

    def get(self, node: NodeId) -> Contact | None:
        """How a host was last reached, if it is known, be it only as a replacement."""
        entry = self._entries.get(node)
        return entry and entry.contact

    def heard(self, contact: Contact, now: float) -> None:
        """This host was heard. Where its bucket is full it waits for one of the bucket's contacts to die."""
        if contact.node == self.node.id:
            return
        self.lost.pop(contact.endpoint, None)
        entry = self._entries.get(contact.node)
        if entry is None:
            entry = self._entries[contact.node] = Entry(contact, now)
            self._network_size = None
        entry.contact, entry.heard_at, entry.failures = contact, now, 0
        if not self.add_contact(entry) and len(self._entries) > 2 * len(self):
            self._drop_unlisted()

    def failed(self, contact: Contact) -> None:
        """It did not answer there. The second time in a row it goes, and the newest replacement takes its place."""
        entry = self._entries.get(contact.node)
        # Nobody goes for not being where others said.
        if entry is not None and entry.contact == contact:
            entry.failures += 1
            if entry.failures >= self._failures_max:
                self.forget(contact.node)
                self.lost[entry.contact.endpoint] = None
                if len(self.lost) > self._lost_max:
                    del self.lost[next(iter(self.lost))]

    def forget(self, node: NodeId) -> None:
        """It is gone. A bucket that is half empty by that is due for a refresh."""
        entry = self._entries.pop(node, None)
        if entry is not None:
            self._network_size = None
            self.remove_contact(entry)
            bucket = self.buckets[self.get_bucket_for(entry)]
            if len(bucket) < self.ksize // 2:
                bucket.refreshed_at = -inf

    def nearest(self, position: bytes, count: int, exclude: NodeId | None = None) -> tuple[Contact, ...]:
        """The `count` known contacts nearest to a position, nearest first."""
        without = None if exclude is None else Node(exclude)
        return tuple(entry.contact for entry in self.find_neighbors(Node(position), count, without))

    def quietest(self) -> tuple[Contact, float] | None:
        """The contact heard longest ago, and when."""
        heads = [next(iter(bucket.nodes.values())) for bucket in self.buckets if len(bucket)]
        if not heads:
            return None
        entry: Entry = min(heads, key=lambda one: one.heard_at)
        return entry.contact, entry.heard_at

    def refreshed(self, position: bytes, now: float) -> None:
        """A lookup went there: the bucket around it needs no refreshing for a while."""
        self.buckets[self.get_bucket_for(Node(position))].refreshed_at = now

    def unrefresh(self) -> None:
        """The own place is known, the rest of the network hardly: every other bucket is due for a refresh."""
        for bucket in self.buckets:
            if not bucket.has_in_range(self.node):
                bucket.refreshed_at = -inf

    def stale_position(self, before: float, dice: Random) -> DiscoveryKey | None:
        """A random position in the bucket that was refreshed longest ago, if that was `before`."""
        bucket = min(self.buckets, key=lambda one: one.refreshed_at)
        if bucket.refreshed_at >= before:
            return None
        return DiscoveryKey(dice.randint(*bucket.range).to_bytes(_BITS // 8, "big"))

    def network_size(self) -> float:
        """How many hosts there seem to be, this one included: from how near the nearest are."""
        if self._network_size is None:
            self._network_size = self._estimate_size()
        return self._network_size

    def _estimate_size(self) -> float:
        near = self.find_neighbors(self.node)
        if len(near) < self.ksize:
            return len(near) + 1.0
        farthest: int = near[-1].long_id ^ self.node.long_id
        return float(len(near)) * 2.0**_BITS / float(farthest) + 1.0

    def _drop_unlisted(self) -> None:
        listed = (one for bucket in self.buckets for one in (*bucket.nodes, *bucket.replacement_nodes))
        self._entries = {node: self._entries[node] for node in listed}
