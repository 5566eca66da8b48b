"""The hosts that this one has met: greetings under way, keys and proven endpoints, from datagrams to payloads and back.

No sockets and no clock: what comes in gives what goes out. Nothing is kept for a stranger before it has shown that it
sits where it says (the cookie), that the CA knows it (the certificate) and that it is that host (the proof); nothing
larger goes to a stranger than came from it.
"""

from __future__ import annotations

import heapq
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enticed import limits
from enticed.core.dht.budget import Budget
from protocol.credentials import NodeCredential
from protocol.datagram import (
    CHALLENGE_SIZE_BYTES,
    HELLO_NONCE_SIZE_BYTES,
    Answer,
    Hello,
    Introduction,
    Kind,
    Knock,
    Meeting,
    Pair,
    Proof,
    kind_of,
    make_cookie,
    open_hello,
    read_tag,
    seal_hello,
    unknown_answer,
)
from protocol.errors import EnticedError
from protocol.identifiers import NodeId


@dataclass(frozen=True, slots=True)
class Transmit:
    endpoint: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Acquainted:
    """This host sits at this endpoint, proven. `introduction`: what it says of itself."""

    node: NodeId
    endpoint: bytes
    introduction: Introduction


@dataclass(frozen=True, slots=True)
class Opened:
    """A datagram from this host, at an endpoint that it has proven to be at."""

    node: NodeId
    endpoint: bytes
    payload: bytes


Output = Transmit | Acquainted | Opened


@dataclass(slots=True)
class _Greeting:
    """`said`: the datagram that waits for an answer. `queue`: what is to go out once it is known who sits there."""

    endpoint: bytes
    challenge: bytes
    said: bytes
    tries: int = 1
    pair: Pair | None = None
    queue: list[tuple[NodeId, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _Peer:
    """`pairs`: the newest last; one before it still opens what was under way when the newest was made."""

    node: NodeId
    pairs: list[Pair] = field(default_factory=list)
    endpoints: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    met_at: float = 0.0


class PairBook:
    def __init__(
        self,
        node: NodeId,
        introduction: Introduction,
        private: X25519PrivateKey,
        keys: tuple[bytes, ...],
        check: Callable[[bytes], NodeCredential],
        entropy: Callable[[int], bytes],
        may_greet: Callable[[bytes], bool] = lambda endpoint: True,
    ) -> None:
        """keys: of the cluster's hellos; the first seals. check: what a certificate says if it is good, else raises.

        may_greet: whether this host would speak first at an endpoint.
        """
        self._node = node
        self._introduction = introduction
        self._private = private
        self._keys = keys
        self._check = check
        self._entropy = entropy
        self._may_greet = may_greet
        self._secret = entropy(32)
        self._counter = 0
        self._peers: OrderedDict[NodeId, _Peer] = OrderedDict()
        self._by_tag: dict[bytes, tuple[_Peer, Pair]] = {}
        self._by_tag_out: dict[bytes, _Peer] = {}
        self._greetings: dict[bytes, _Greeting] = {}
        self._proving: dict[bytes, _Greeting] = {}
        self._retries: list[tuple[float, bytes]] = []
        self._knocks = Budget(limits.KNOCKS_PER_S, limits.KNOCKS_PER_S)
        self._proofs = Budget(limits.PROOFS_PER_S, limits.PROOFS_PER_S)
        self._unknowns = Budget(limits.UNKNOWN_ANSWERS_PER_S, limits.UNKNOWN_ANSWERS_PER_S)
        self._regreets = Budget(limits.REGREETS_PER_S, limits.REGREETS_PER_S)

    def __len__(self) -> int:
        return len(self._peers)

    def introduce_as(self, introduction: Introduction, keys: tuple[bytes, ...]) -> None:
        """What this host says of itself from now on, and the keys of hellos. Pairs that there are stay.

        A meeting that is under way fails by it, and is begun again by whoever wanted it.
        """
        self._introduction, self._keys = introduction, keys

    def forget(self, node: NodeId) -> None:
        """Open nothing more that this host seals, unless it is met anew."""
        peer = self._peers.get(node)
        if peer is not None:
            self._forget(peer)
        for greeting in [one for one in self._greetings.values() if one.pair and one.pair.peer.node == node]:
            self._end(greeting)

    def forget_all(self) -> None:
        """As `forget`, of everybody."""
        for node in list(self._peers):
            self.forget(node)

    def send(self, node: NodeId, endpoint: bytes, payload: bytes, now: float) -> list[Output]:
        """Seal and send; or meet first, and send if this host sits there. `LocalError` if it does not fit."""
        peer = self._peers.get(node)
        if peer is not None and endpoint in peer.endpoints and now < peer.met_at + limits.PAIR_LIFETIME_S:
            return [self._sealed(peer, peer.pairs[-1], endpoint, payload)]
        outputs = self.greet(endpoint, now)
        greeting = self._greetings.get(endpoint)
        if greeting is not None and len(greeting.queue) < limits.GREETING_QUEUE_MAX_COUNT:
            greeting.queue.append((node, payload))
        return outputs

    def greet(self, endpoint: bytes, now: float) -> list[Output]:
        """Find out who sits there, unless that is under way. Silence ends it without a word."""
        if endpoint in self._greetings or len(self._greetings) >= limits.GREETINGS_MAX_COUNT:
            return []
        if not self._may_greet(endpoint):
            return []
        challenge = self._entropy(CHALLENGE_SIZE_BYTES)
        said = self._hello(Knock(self._introduction, challenge))
        self._greetings[endpoint] = _Greeting(endpoint, challenge, said)
        heapq.heappush(self._retries, (now + limits.GREETING_RETRY_S, endpoint))
        return [Transmit(endpoint, said)]

    def received(self, endpoint: bytes, data: bytes, now: float) -> list[Output]:
        """What a datagram calls for; nothing, for one that no member could have sent."""
        try:
            match kind_of(data):
                case Kind.SEALED:
                    return self._take_sealed(endpoint, data, now)
                case Kind.HELLO:
                    return self._take_hello(endpoint, data, open_hello(data, self._keys), now)
                case Kind.UNKNOWN:
                    return self._take_unknown(endpoint, data, now)
        except EnticedError:
            return []

    def next_deadline(self) -> float | None:
        while self._retries and self._retries[0][1] not in self._greetings:
            heapq.heappop(self._retries)
        return self._retries[0][0] if self._retries else None

    def wake(self, now: float) -> list[Output]:
        """Say again what was not answered, twice; then give up."""
        outputs: list[Output] = []
        while (due := self.next_deadline()) is not None and due <= now:
            endpoint = heapq.heappop(self._retries)[1]
            greeting = self._greetings[endpoint]
            if greeting.tries == limits.GREETING_TRIES:
                self._end(greeting)
                continue
            greeting.tries += 1
            heapq.heappush(self._retries, (now + greeting.tries * limits.GREETING_RETRY_S, endpoint))
            outputs.append(Transmit(endpoint, greeting.said))
        return outputs

    # --- sealed datagrams ---

    def _take_sealed(self, endpoint: bytes, data: bytes, now: float) -> list[Output]:
        tag, _ = read_tag(data)
        known = self._by_tag.get(tag)
        if known is None:
            if tag in self._proving:
                return self._take_first(self._proving[tag], endpoint, data, now)
            return [Transmit(endpoint, unknown_answer(data))] if self._unknowns.take(now) else []
        peer, pair = known
        if now >= peer.met_at + 2 * limits.PAIR_LIFETIME_S:
            self._forget(peer)
            return [Transmit(endpoint, unknown_answer(data))]
        payload = pair.open(data)
        if endpoint not in peer.endpoints:
            # It has moved, or somebody sends its datagrams on from elsewhere: if it sits there, it will knock. Speaking
            # first would have this host send whoever sits there more than came from it.
            return [Transmit(endpoint, unknown_answer(data))] if self._unknowns.take(now) else []
        return [Opened(peer.node, endpoint, payload)] if payload else []

    def _take_first(self, greeting: _Greeting, endpoint: bytes, data: bytes, now: float) -> list[Output]:
        """The first datagram of a host that this one has greeted: only its keys can have sealed it."""
        assert greeting.pair is not None
        payload = greeting.pair.open(data)
        outputs = self._acquaint(greeting.pair, greeting.endpoint, now)
        if payload and endpoint == greeting.endpoint:
            outputs.append(Opened(greeting.pair.peer.node, endpoint, payload))
        return outputs

    def _take_unknown(self, endpoint: bytes, data: bytes, now: float) -> list[Output]:
        """A host no longer knows what this one sends: it is met anew. Until then the old keys stay."""
        tag, counter = read_tag(data)
        peer = self._by_tag_out.get(tag)
        if peer is None or endpoint not in peer.endpoints or counter > self._counter:
            return []
        return self.greet(endpoint, now) if self._regreets.take(now) else []

    def _sealed(self, peer: _Peer, pair: Pair, endpoint: bytes, payload: bytes) -> Transmit:
        self._counter += 1
        self._peers.move_to_end(peer.node)
        return Transmit(endpoint, pair.seal(payload, self._counter))

    # --- hellos ---

    def _take_hello(self, endpoint: bytes, data: bytes, hello: Hello, now: float) -> list[Output]:
        if hello.introduction.certificate == self._introduction.certificate:
            return []  # this host itself
        match hello:
            case Knock():
                return self._take_knock(endpoint, data, hello, now)
            case Answer():
                return self._take_answer(endpoint, hello, now)
            case Proof():
                return self._take_proof(endpoint, hello, now)

    def _take_knock(self, endpoint: bytes, data: bytes, knock: Knock, now: float) -> list[Output]:
        if not self._knocks.take(now):  # asked first: to make an answer costs more than to read a knock
            return []
        cookie = make_cookie(self._secret, endpoint, knock, _slot(now))
        answer = self._hello(Answer(self._introduction, knock.challenge, cookie))
        return [Transmit(endpoint, answer)] if len(answer) <= len(data) else []

    def _take_answer(self, endpoint: bytes, answer: Answer, now: float) -> list[Output]:
        greeting = self._greetings.get(endpoint)
        if greeting is None or greeting.pair is not None or greeting.challenge != answer.echo:
            return []
        meeting = Meeting(self._introduction, answer.introduction, greeting.challenge, answer.cookie)
        pair = Pair(self._node, self._private, self._check(answer.introduction.certificate), meeting)
        greeting.pair, greeting.tries = pair, 1
        greeting.said = self._hello(Proof(self._introduction, greeting.challenge, answer.cookie, pair.prove()))
        self._proving[pair.tag_in] = greeting
        return [Transmit(endpoint, greeting.said)]

    def _take_proof(self, endpoint: bytes, proof: Proof, now: float) -> list[Output]:
        slot = _slot(now)
        cookies = (make_cookie(self._secret, endpoint, proof, one) for one in (slot, slot - 1))
        if not any(hmac.compare_digest(proof.cookie, cookie) for cookie in cookies) or not self._proofs.take(now):
            return []
        meeting = Meeting(self._introduction, proof.introduction, proof.challenge, proof.cookie)
        pair = Pair(self._node, self._private, self._check(proof.introduction.certificate), meeting)
        if not pair.is_proof(proof.proof):
            return []
        known = self._by_tag.get(pair.tag_in)
        if known is not None:  # the answer to this proof was lost
            return [self._sealed(*known, endpoint, b"")]
        outputs = self._acquaint(pair, endpoint, now)
        return [self._sealed(*self._by_tag[pair.tag_in], endpoint, b""), *outputs]

    def _hello(self, hello: Hello) -> bytes:
        return seal_hello(hello, self._keys[0], self._entropy(HELLO_NONCE_SIZE_BYTES))

    # --- whom this host knows ---

    def _acquaint(self, pair: Pair, endpoint: bytes, now: float) -> list[Output]:
        """Both sides have proven themselves: from now on these keys are used. What waited for that goes out."""
        node = pair.peer.node
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer(node)
            if len(self._peers) > limits.PAIRS_MAX_COUNT:
                self._forget(next(iter(self._peers.values())))
        elif peer.pairs[-1].introduction.epoch != pair.introduction.epoch:
            peer.endpoints.clear()  # it has restarted since
        self._peers.move_to_end(node)
        peer.pairs.append(pair)
        self._by_tag[pair.tag_in] = peer, pair
        self._by_tag_out[pair.tag_out] = peer
        if len(peer.pairs) > limits.PAIRS_PER_PEER_COUNT:
            self._drop(peer.pairs.pop(0))
        peer.endpoints[endpoint] = None
        peer.endpoints.move_to_end(endpoint)
        if len(peer.endpoints) > limits.ENDPOINTS_PER_PEER_COUNT:
            peer.endpoints.popitem(last=False)
        peer.met_at = now
        outputs: list[Output] = [Acquainted(node, endpoint, pair.introduction)]
        greeting = self._greetings.get(endpoint)
        if greeting is not None:
            waiting, greeting.queue = greeting.queue, []
            outputs += [self._sealed(peer, pair, endpoint, payload) for wanted, payload in waiting if wanted == node]
            if greeting.pair is None or greeting.pair is pair:
                self._end(greeting)
            # Else both have greeted at once, and the other may already use what came of this host's greeting.
        return outputs

    def _forget(self, peer: _Peer) -> None:
        del self._peers[peer.node]
        for pair in peer.pairs:
            self._drop(pair)

    def _drop(self, pair: Pair) -> None:
        del self._by_tag[pair.tag_in]
        del self._by_tag_out[pair.tag_out]

    def _end(self, greeting: _Greeting) -> None:
        del self._greetings[greeting.endpoint]
        if greeting.pair is not None:
            self._proving.pop(greeting.pair.tag_in, None)


def _slot(now: float) -> int:
    """Cookies are good for one to two of these."""
    return int(now // limits.COOKIE_SLOT_S) + 1
