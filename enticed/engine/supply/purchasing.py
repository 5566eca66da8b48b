"""Purchasing: sessions, manifests and fragments from peers, as the core orders them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.vocabulary import ORIGIN, Contact, Fault
from enticed.engine.driver import Driver
from enticed.engine.faults import failure_of
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.origin_supply import OriginSupply
from enticed.engine.trust.groups import group_of, marks_of
from enticed.identity.host import HostIdentity
from enticed.landing import CorruptFragmentError, LandingError
from enticed.limits import BUSY_RETRY_LEAST_S, EXHAUSTED_RETRY_S, MANIFEST_TIMEOUT_S
from enticed.origin.errors import ObjectAbsentError, OriginLostError
from enticed.transfer.errors import (
    BusyError,
    PeerLostError,
    PeerSilentError,
    RefusedError,
)
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import DialFailed, Event, Heard, PeerDown, PeerUp
from enticed.transfer.tasks import Tasks
from protocol.codec import unpack_record
from protocol.errors import CorruptError, DeniedError, EnticedError, ExhaustedError, MalformedError, RemoteError
from protocol.identifiers import ImageId, NodeId
from protocol.limits import REQUEST_MAX_SIZE_BYTES, ROOT_MAX_SIZE_BYTES
from protocol.manifest import FRAGMENT_ENTRY_SIZE_BYTES, Fragments, Root, decode_pages
from protocol.messages import Charge, Part, PartRequest
from protocol.profile import open_profile
from protocol.statement import STATEMENT_SET_MAX_SIZE_BYTES, Statement, StatementSet, open_statement
from protocol.trust import TrustBundle

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Manifest:
    """An image's root, pages and statements, verified against its id and the trusted publishers."""

    root: Root
    pages: bytes
    fragments: Fragments
    statements: tuple[bytes, ...]
    said: Statement
    """What the first of the trusted statements says."""


class Purchasing:
    def __init__(
        self,
        driver: Driver,
        network: PeerNetwork,
        stockroom: Stockroom,
        origin: OriginSupply,
        identity: HostIdentity,
    ) -> None:
        self._driver = driver
        self._network = network
        self._stockroom = stockroom
        self._origin = origin
        self._identity = identity
        self._tasks = Tasks()
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self.received_bytes = 0
        self.faults: Counter[Fault] = Counter()
        """Of requests for fragments that brought nothing."""
        self.charges_sent = self.charges_received = 0
        driver.carry(ef.Dial, lambda dial: network.dial(dial.contact.node, dial.contact.addresses))
        driver.carry(ef.HangUp, lambda call: network.hang_up(call.node, call.reason))
        driver.carry(ef.Say, self._say)
        driver.carry(ef.FetchManifest, self._start_manifest)
        driver.carry(ef.Fetch, self._start_fetch)
        driver.carry(ef.Abandon, self._abandon)

    async def close(self) -> None:
        await self._tasks.close()

    # --- sessions ---

    def network_event(self, event: Event) -> None:
        """What the network tells, in the core's words."""
        match event:
            case PeerUp(node, credential, addresses, dialled_here=dialled_here):
                contact = Contact(node, addresses, credential.zone, credential.rack)
                self._driver.tell(ev.PeerUp(contact, dialled_here))
            case PeerDown(node, why):
                self._driver.tell(ev.PeerDown(node, str(why)))
            case DialFailed(node, why):
                self._driver.tell(ev.DialFailed(node, str(why)))
            case Heard(node, message):
                self.charges_received += isinstance(message, Charge)
                self._driver.tell(ev.Heard(node, message))

    def _say(self, effect: ef.Say) -> None:
        self.charges_sent += isinstance(effect.message, Charge)
        self._network.send(effect.node, effect.message)  # type: ignore[arg-type]

    # --- manifests ---

    def _start_manifest(self, effect: ef.FetchManifest) -> None:
        self._tasks.spawn(self._learn_manifest(effect.image, effect.node), f"manifest of {effect.image.short}")

    async def _learn_manifest(self, image: ImageId, node: NodeId) -> None:
        try:
            async with asyncio.timeout(MANIFEST_TIMEOUT_S):
                manifest = await self.fetch_manifest(image, node)
        except TimeoutError:
            self._driver.tell(ev.ManifestFailed(image, node, Fault.SILENT, "the manifest did not come in time"))
        except EnticedError as error:
            denied = isinstance(error, DeniedError)
            if node == ORIGIN and isinstance(error, CorruptError):
                self._origin.lied(error)
            self._driver.tell(ev.ManifestFailed(image, node, fault_of(error), str(error), denied))
        except Exception as error:
            # Whatever a peer's bytes have broken in here: others may send better ones.
            log.exception("the manifest of %s from %s", image.short, node.short, extra={"image": image, "peer": node})
            self._driver.tell(ev.ManifestFailed(image, node, Fault.MALFORMED, repr(error)))
        else:
            if self._driver.host.seeks_manifest(image):  # else nobody wants it any more, or another has come
                self._stockroom.expect(manifest.root, manifest.pages, manifest.statements)
            group = group_of(image, manifest.statements)
            self._driver.tell(ev.ManifestFetched(image, manifest.root.data_bytes.astype("int64"), group))

    async def fetch_manifest(self, image: ImageId, node: NodeId) -> Manifest:
        """An image's manifest from one peer, or ORIGIN, each part verified before the next is asked for.

        Statements come first: nothing else of an image is asked for before it is known that it may be had.
        Raises as `PeerNetwork.fetch_part` does, `CorruptError` or `MalformedError` for what is not this image's, and
        `DeniedError` where no trusted publisher has signed for it.
        """
        statements, said, root = await self.fetch_root(image, node)
        pages = await self._part(image, node, Part.PAGES, root.fragments * FRAGMENT_ENTRY_SIZE_BYTES)
        fragments = await asyncio.to_thread(decode_pages, root, pages)
        return Manifest(root, pages, fragments, statements, said)

    async def fetch_root(self, image: ImageId, node: NodeId) -> tuple[tuple[bytes, ...], Statement, Root]:
        """As `fetch_manifest`, all but the pages: what counts of the statements, what the first says, and the root."""
        statements, said = self._trusted_ones(image, await self.fetch_statements(image, node))
        root = Root.decode(await self._part(image, node, Part.ROOT, ROOT_MAX_SIZE_BYTES), image)
        if (said.virtual_size_bytes, said.data_bytes) != (root.virtual_size_bytes, root.total_data_bytes):
            raise CorruptError(f"the statement of image {image.short} gives another size than its manifest has")
        return statements, said, root

    async def fetch_statement(self, image: ImageId, node: NodeId) -> Statement:
        """What trusted publishers say of an image, as one host shows it. Raises as `fetch_manifest` does."""
        return self._trusted_ones(image, await self.fetch_statements(image, node))[1]

    async def fetch_statements(self, image: ImageId, node: NodeId) -> tuple[bytes, ...]:
        """What a host has of statements and profiles of an image, unverified. Raises as `PeerNetwork.fetch_part`."""
        packed = await self._part(image, node, Part.STATEMENTS, STATEMENT_SET_MAX_SIZE_BYTES)
        return unpack_record(StatementSet, packed).envelopes

    def _trusted_ones(self, image: ImageId, envelopes: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], Statement]:
        trusted: list[tuple[bytes, Statement]] = []
        trust = self._identity.trust
        for envelope in envelopes:
            try:
                statement = open_statement(envelope, trust.quorum)
            except (DeniedError, MalformedError):
                continue
            if statement.image == image:
                trusted.append((envelope, statement))
        if not trusted:
            raise DeniedError(unsigned(image, trust))
        said = (envelope for envelope, _ in trusted)
        return (*marks_of(image, envelopes, trust.quorum), *said, *self._profiles(image, envelopes)), trusted[0][1]

    def _profiles(self, image: ImageId, envelopes: tuple[bytes, ...]) -> Iterator[bytes]:
        for envelope in envelopes:
            with suppress(DeniedError, MalformedError):
                if open_profile(envelope, self._identity.trust.trusted_publishers).image == image:
                    yield envelope

    async def _part(self, image: ImageId, node: NodeId, part: Part, most_bytes: int) -> bytes:
        """All of a part, range after range."""
        if node == ORIGIN:
            return await self._origin.part(image, part, most_bytes)
        whole, total_bytes = await self._range(image, node, part, 0, min(REQUEST_MAX_SIZE_BYTES, max(most_bytes, 1)))
        if total_bytes > most_bytes:
            raise MalformedError(f"{part.name.lower()} of {total_bytes} bytes, where {most_bytes} are the most")
        if total_bytes <= len(whole):
            return whole
        ranges = [whole]
        for offset_bytes in range(len(whole), total_bytes, REQUEST_MAX_SIZE_BYTES):
            size_bytes = min(REQUEST_MAX_SIZE_BYTES, total_bytes - offset_bytes)
            data, _ = await self._range(image, node, part, offset_bytes, size_bytes)
            if len(data) != size_bytes:
                raise MalformedError(f"{part.name.lower()}: {len(data)} bytes where {size_bytes} were asked for")
            ranges.append(data)
        return await asyncio.to_thread(b"".join, ranges)  # tens of MiB: the loop is not held so long

    async def _range(
        self, image: ImageId, node: NodeId, part: Part, offset_bytes: int, size_bytes: int
    ) -> tuple[bytes, int]:
        """One range. A busy peer is asked again when it said, for as long as the manifest may take."""
        while True:
            try:
                return await self._network.fetch_part(node, PartRequest(image, part, offset_bytes, size_bytes))
            except BusyError as busy:
                await asyncio.sleep(max(BUSY_RETRY_LEAST_S, busy.retry_after_s))

    # --- fragments ---

    def _start_fetch(self, effect: ef.Fetch) -> None:
        task = self._tasks.spawn(self._fetch(effect), f"fetch {effect.request}")
        self._fetches[effect.request] = task
        task.add_done_callback(lambda _: self._fetches.pop(effect.request, None))

    def _abandon(self, effect: ef.Abandon) -> None:
        task = self._fetches.get(effect.request)
        if task is not None:
            task.cancel()

    async def _fetch(self, effect: ef.Fetch) -> None:
        try:
            landing = await self._stockroom.landing(effect.landing)
            if effect.node == ORIGIN:
                await self._origin.fetch(effect.wanted, landing)
            else:
                await self._network.fetch(effect.node, effect.wanted, landing)
        except BusyError as busy:
            others = tuple(Contact(one.node, one.addresses) for one in busy.alternatives)
            self._failed(ev.FetchFailed(effect.request, Fault.BUSY, str(busy), busy.retry_after_s, others))
        except CorruptFragmentError as error:
            self._failed(ev.FetchFailed(effect.request, Fault.CORRUPT, str(error), fragment=error.index))
        except EnticedError as error:
            fault = fault_of(error)
            failure = failure_of(error) if fault is Fault.LOCAL else None
            retry_after_s = EXHAUSTED_RETRY_S if fault is Fault.BUSY else 0.0
            self._failed(ev.FetchFailed(effect.request, fault, str(error), retry_after_s, failure=failure))
        except Exception as error:
            log.exception("fetching from %s", effect.node.short, extra={"peer": effect.node})
            self._failed(ev.FetchFailed(effect.request, Fault.MALFORMED, repr(error)))
        else:
            if effect.node != ORIGIN:
                self.received_bytes += landing.size_bytes
            self._driver.tell(ev.Fetched(effect.request))

    def _failed(self, event: ev.FetchFailed) -> None:
        self.faults[event.fault] += 1
        self._driver.tell(event)


def unsigned(image: ImageId, trust: TrustBundle) -> str:
    """Why nothing of an image is asked for."""
    if trust.threshold == 1:
        return f"no trusted publisher has signed for image {image.short}"
    return f"not {trust.threshold} trusted publishers have signed for image {image.short}"


def fault_of(error: EnticedError) -> Fault:
    """Whose fault it was that a request brought nothing."""
    match error:
        case BusyError():
            return Fault.BUSY
        case RefusedError() | ObjectAbsentError():
            return Fault.REFUSED
        case PeerSilentError():
            return Fault.SILENT
        case PeerLostError() | OriginLostError():
            return Fault.LOST
        case CorruptError():
            return Fault.CORRUPT
        case RemoteError() | DeniedError():
            return Fault.MALFORMED
        case LandingError():
            return Fault.LOCAL
        case ExhaustedError():
            return Fault.BUSY  # no thread or descriptor left for it here: another time, and no fault of the peer's
        case _:
            return Fault.LOCAL
