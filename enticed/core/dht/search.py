"""Finding what is kept under a key: providers and names, checked as they come in, and when that is enough."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median_low

from enticed.core.dht.events import Answered
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import CheckedName, Notary
from protocol.dht import Contact, FindValue, Question, Reply, Values
from protocol.errors import CorruptError, EnticedError, RemoteError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.providers import ProviderRecord


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
        """`charge` is told of each host that sent what no honest one would."""
        self.ticket = ticket
        self.target = key
        self.width = policy.replicas
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
        except (RemoteError, CorruptError):
            self._charge(contact.node)
        return self._is_enough()

    def take(self, values: Values) -> None:
        """What one replica keeps; `RemoteError` or `CorruptError` for what no honest one would, the rest then unread.

        What has expired, or whose publisher is not trusted, is only left out: the replica may not know better.
        """
        for data in values.providers:
            self._check(data, self._take_provider)
        if values.name is not None:
            self._check(values.name, self._take_name)
        if values.providers or values.name is not None:
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
                len(nearest),
            )
        )

    def _check(self, data: bytes, take: Callable[[bytes], None]) -> None:
        if data in self._seen or self._checks_left == 0:
            return
        self._seen.add(data)
        self._checks_left -= 1
        try:
            take(data)
        except (RemoteError, CorruptError):
            raise
        except EnticedError:
            pass

    def _take_name(self, data: bytes) -> None:
        self._names[data] = self._notary.check_name(self.target, data)

    def _take_provider(self, data: bytes) -> None:
        record = self._notary.check_provider(data).record
        if record.key != self.target:
            raise CorruptError("a provider of something else")
        known = self._providers.get(record.node)
        if record.node != self._own and (known is None or known.sequence < record.sequence):
            self._providers[record.node] = record

    def _is_enough(self) -> bool:
        if len(self._populations) < self._policy.replicas_asked:
            return False
        wanted = min(self._policy.providers_wanted, median_low(self._populations))
        return bool(self._names) or 0 < wanted <= len(self._providers)
