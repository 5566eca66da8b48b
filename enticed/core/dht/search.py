"""Finding what is kept under a key: providers and names, checked as they come in, and when that is enough."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median_low

from enticed.core.dht.events import Answered
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import CheckedName, Notary
from protocol.dht import Contact, FindValue, Question, Reply, Values
from protocol.errors import EnticedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.records import ProviderRecord


class Search:
    """A goal: what the replicas of a key say.

    It is met early once `replicas_asked` of them knew the key, and there is a name, or providers enough for one asker
    (or as many as there seem to be). Else the walk goes on until all replicas have been asked.
    """

    expected: type[Reply] = Values

    def __init__(
        self,
        ticket: int,
        key: DiscoveryKey,
        own: NodeId,
        policy: DhtPolicy,
        notary: Notary,
        charge: Callable[[NodeId], None],
        then: Callable[[Answered], None],
    ) -> None:
        """`charge` is told of each host that sent a record which does not verify."""
        self.ticket = ticket
        self.target = key
        self._own = own
        self._policy = policy
        self._notary = notary
        self._charge = charge
        self._then = then
        self._seen: set[bytes] = set()
        self._providers: dict[NodeId, ProviderRecord] = {}
        self._names: dict[bytes, CheckedName] = {}
        self._populations: list[int] = []
        self._checks_left = policy.checks_per_lookup
        self.abandoned = False

    def question(self, token: int) -> Question:
        return FindValue(token, self.target)

    def heard(self, contact: Contact, reply: Reply, now: float) -> bool:
        if self.abandoned:
            return True
        assert isinstance(reply, Values)
        try:
            self.take(reply)
        except EnticedError:
            self._charge(contact.node)
        return self._is_enough()

    def take(self, values: Values) -> None:
        """What one replica keeps. Raises for the first record that does not verify; what comes after it is not read."""
        if not values.providers and values.name is None:
            return
        for data in values.providers:
            if self._is_new(data):
                checked = self._notary.check_provider(data)
                if checked.record.key != self.target:
                    raise EnticedError("a provider of something else")
                self._add(checked.record)
        if values.name is not None and self._is_new(values.name):
            self._names[values.name] = self._notary.check_name(self.target, values.name)
        self._populations.append(values.population)

    def over(self, nearest: list[Contact], asked: int, now: float) -> None:
        names = sorted(self._names.values(), key=lambda one: one.version, reverse=True)
        population = median_low(self._populations) if self._populations else 0
        self._then(
            Answered(
                self.ticket,
                tuple(self._providers.values()),
                tuple(one.data for one in names),
                max(population, len(self._providers)),
                asked,
            )
        )

    def _is_new(self, data: bytes) -> bool:
        if data in self._seen or self._checks_left == 0:
            return False
        self._seen.add(data)
        self._checks_left -= 1
        return True

    def _add(self, record: ProviderRecord) -> None:
        known = self._providers.get(record.node)
        if record.node != self._own and (known is None or known.sequence < record.sequence):
            self._providers[record.node] = record

    def _is_enough(self) -> bool:
        if len(self._populations) < self._policy.replicas_asked:
            return False
        wanted = min(self._policy.providers_wanted, median_low(self._populations))
        return bool(self._names) or 0 < wanted <= len(self._providers)
