"""Signs this host's provider records and checks what others signed: the DHT's `Notary` with real keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from enticed.core.dht.ports import CheckedName, CheckedProvider
from enticed.identity.host import HostIdentity
from enticed.limits import CHECKED_RECORDS_MAX_COUNT, RECALL_KEPT_S
from protocol.dsse import sealed_type, signers
from protocol.errors import AbsentError, CorruptError, MalformedError
from protocol.floor import FLOOR_TYPE, open_floor
from protocol.identifiers import DiscoveryKey
from protocol.limits import CLOCK_SKEW_MAX_S, PROVIDER_EXPIRY_S
from protocol.names import draft_rank, open_name
from protocol.providers import ProviderRecord, ProviderState, open_provider, seal_provider
from protocol.recall import RECALL_TYPE, open_recall


class HostNotary:
    """advertise: where peers dial this host. clock: unix time. What was checked once is not verified again."""

    def __init__(self, identity: HostIdentity, advertise: Sequence[str], clock: Callable[[], float]) -> None:
        self._identity = identity
        self._advertise = tuple(advertise)
        self._clock = clock
        self._sequence = 0
        self._checked: OrderedDict[bytes, ProviderRecord] = OrderedDict()

    def sign(self, key: DiscoveryKey, state: ProviderState) -> bytes:
        """Sequences are milliseconds, so that they go on rising after a restart."""
        now = self._clock()
        self._sequence = max(self._sequence + 1, int(now * 1000))
        own = self._identity.credential
        record = ProviderRecord(
            key,
            own.node,
            own.node_key,
            own.sealing_key,
            own.nonce,
            self._advertise,
            state,
            self._sequence,
            int(now) + PROVIDER_EXPIRY_S,
        )
        return seal_provider(record, self._identity.sign)

    def check_provider(self, data: bytes) -> CheckedProvider:
        record = self._checked.get(data)
        if record is None:
            record = self._checked[data] = open_provider(data)
            if len(self._checked) > CHECKED_RECORDS_MAX_COUNT:
                self._checked.popitem(last=False)
        self._identity.require_standing(record.node)
        lifetime_s = record.expires_at - self._clock()
        if lifetime_s <= 0:
            raise AbsentError("a provider record that has expired")
        if lifetime_s > PROVIDER_EXPIRY_S + CLOCK_SKEW_MAX_S:
            raise MalformedError("a provider record that lives longer than any may")
        return CheckedProvider(record, data, lifetime_s)

    def check_name(self, key: DiscoveryKey, data: bytes) -> CheckedName:
        kind = sealed_type(data)
        if kind == RECALL_TYPE:
            return self._check_recall(key, data)
        if kind == FLOOR_TYPE:
            return self._check_floor(key, data)
        now, trust = self._clock(), self._identity.trust
        record = open_name(data, trust.one_of(), now)
        is_draft = key == DiscoveryKey.of_draft(record.name)
        if not is_draft and DiscoveryKey.of_name(record.name) != key:
            raise CorruptError(f"the record of {record.name} under another name's key")
        # By those who may sign this one; by as many as must, unless it lies where it waits for them.
        open_name(data, trust.one_of(record.name) if is_draft else trust.quorum_of(record.name), now)
        signed = len(signers(data, trust.one_of(record.name))) if is_draft else 0
        version = draft_rank(record.version, signed) if is_draft else record.version
        return CheckedName(version, data, record.expires_at - now)

    def _check_recall(self, key: DiscoveryKey, data: bytes) -> CheckedName:
        recall = open_recall(data, self._identity.trust.trusted_publishers)
        if DiscoveryKey.of_recall(recall.image) != key:
            raise CorruptError(f"the recall of image {recall.image.short} under another key")
        return CheckedName(recall.issued_at, data, RECALL_KEPT_S, spreads=True)

    def _check_floor(self, key: DiscoveryKey, data: bytes) -> CheckedName:
        floor = open_floor(data, self._identity.trust.trusted_publishers, self._clock())
        if DiscoveryKey.of_floor(floor.image) != key:
            raise CorruptError(f"the floor of image {floor.image.short} under another key")
        return CheckedName(floor.issued_at_ms, data, RECALL_KEPT_S, spreads=True)
