"""What `/metrics` says of a running daemon. Nothing is counted here: each number is kept where the thing happens.

No label has a value per image, order or peer: 2,000 hosts with a few hundred numbers each are what a monitoring system
takes easily.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
from collections import Counter
from collections.abc import Iterable, Iterator

import enticed
from enticed.core.orders import ENDED, Failure, OrderState
from enticed.core.vocabulary import Fault
from enticed.engine.engine import DaemonEngine
from enticed.engine.memory import resident_bytes
from enticed.engine.parts import Parts
from enticed.operating.exposition import Family, by, counter, gauge, histogram


def families(engine: DaemonEngine, parts: Parts) -> Iterator[Family]:
    """All metrics, as they are now."""
    yield gauge(
        "enticed_build_info",
        "Always 1; what runs here.",
        1,
        version=enticed.__version__,
        python=platform.python_version(),
    )
    yield from _orders(engine, parts)
    yield from _bytes(parts)
    yield from _peers(parts)
    yield from _store(parts)
    yield from _dht(parts)
    yield from _daemon(engine, parts)
    yield from _process()


def _orders(engine: DaemonEngine, parts: Parts) -> Iterable[Family]:
    host = parts.driver.host
    orders = host.orders()
    states = Counter(order.state for order in orders)
    failures = Counter(order.failure for order in orders if order.state is OrderState.FAILED)
    yield by(
        gauge("enticed_orders", "Orders that this host knows of, by state.", 0),
        "state",
        {state.value: states[state] for state in OrderState},
    )
    yield by(
        counter("enticed_orders_ended_total", "Orders that came to an end, by which.", 0),
        "state",
        {state.value: parts.ledger.ended[state] for state in sorted(ENDED)},
    )
    yield by(
        gauge("enticed_orders_failed", "Failed orders that this host knows of, by why.", 0),
        "failure",
        {failure.value: failures[failure] for failure in Failure},
    )
    yield by(
        counter("enticed_order_failures_total", "Orders that failed since the start, by why.", 0),
        "failure",
        {failure.value: parts.ledger.failed[failure] for failure in Failure},
    )
    yield gauge("enticed_orders_late", "Orders under way that are past their due date, or going to be.", engine.late())


def _bytes(parts: Parts) -> Iterable[Family]:
    yield by(
        counter("enticed_received_bytes_total", "Image bytes that came in and were verified, by where from.", 0),
        "source",
        {
            "peers": parts.purchasing.received_bytes,
            "relatives": parts.stockroom.cloned_bytes,
            "origin": parts.origin.received_bytes,
        },
    )
    yield counter("enticed_sent_bytes_total", "Image bytes that other hosts were sent.", parts.warehouse.sent_bytes)


def _peers(parts: Parts) -> Iterable[Family]:
    uploads = parts.driver.host.uploads()
    yield gauge("enticed_peers", "Hosts with which there is a session.", len(parts.driver.host.peers()))
    yield by(
        gauge("enticed_uploads", "Uploads that have a slot, and that wait for one.", 0),
        "state",
        {"sending": uploads.sending, "waiting": uploads.queued},
    )
    yield by(
        counter("enticed_uploads_refused_total", "Uploads that got no slot: busy here, or not held here.", 0),
        "reason",
        {"busy": parts.warehouse.deferred, "refused": parts.warehouse.refused},
    )
    yield by(
        counter("enticed_fetches_failed_total", "Requests to peers, or the origin, that brought nothing, by fault.", 0),
        "fault",
        {fault.value: parts.purchasing.faults[fault] for fault in Fault},
    )
    yield by(
        counter("enticed_charges_total", "Fragments that were corrupt: told to peers, and told by peers.", 0),
        "direction",
        {"sent": parts.purchasing.charges_sent, "received": parts.purchasing.charges_received},
    )


def _store(parts: Parts) -> Iterable[Family]:
    space, images = parts.store.space(), parts.store.images()
    whole = sum(image.ready for image in images)
    yield by(
        gauge("enticed_images", "Images on this host, whole and in the making.", 0),
        "state",
        {"whole": whole, "partial": len(images) - whole},
    )
    yield gauge("enticed_store_used_bytes", "What images take on the disk.", space.used_bytes)
    yield gauge("enticed_store_promised_bytes", "What images under way will take yet.", space.promised_bytes)
    yield gauge("enticed_store_free_bytes", "Free on the store's file system.", space.free_bytes)
    yield gauge("enticed_store_reserved_bytes", "Of these, left for others whatever happens.", space.reserved_bytes)
    yield gauge("enticed_store_quota_bytes", "The most that images may take; 0 for no limit.", space.quota_bytes or 0)
    yield histogram("enticed_store_sync_seconds", "Syncs of image files to the disk.", parts.store.sync_seconds.look())
    yield counter(
        "enticed_store_rotten_pieces_total",
        "Pieces that were found wrong on this host's disk, and taken back.",
        parts.stockroom.rotten_pieces,
    )
    yield gauge(
        "enticed_degraded",
        "1 while the store cannot be written to: no orders are taken, what is here is served.",
        int(bool(parts.driver.host.disk.degraded)),
    )
    yield counter("enticed_degradations_total", "How often that began.", parts.caretaker.degradations)
    yield counter(
        "enticed_store_scrubbed_bytes_total", "What was read back in the background.", parts.scrubber.scrubbed_bytes
    )
    yield gauge(
        "enticed_store_scrubbed_timestamp_seconds",
        "When all of the store had been read back last; 0 before the first time.",
        parts.scrubber.finished_at or 0,
    )
    yield counter(
        "enticed_store_mended_files_total",
        "Files of images, other than their pieces, that were found wrong and made right.",
        parts.scrubber.mended_files,
    )
    yield counter("enticed_store_evicted_images_total", "Images that went to make room.", parts.keeping.evicted_images)
    yield counter("enticed_store_evicted_bytes_total", "What they took.", parts.keeping.evicted_bytes)
    shown, not_shown = parts.keeping.proofs
    yield counter("enticed_copies_shown_total", "Hosts that showed a fragment of what they said they hold.", shown)
    yield counter("enticed_copies_not_shown_total", "Hosts that did not.", not_shown)
    yield gauge(
        "enticed_images_below_floor",
        "Images of which this host has just found fewer copies than there are to be.",
        parts.keeping.below_floor,
    )
    yield counter("enticed_floor_copies_total", "Copies that this host took for that.", parts.keeping.floor_copies)
    yield gauge("enticed_store_doubted_pieces", "Pieces that wait to be read back.", parts.stockroom.doubted)


def _dht(parts: Parts) -> Iterable[Family]:
    overlay = parts.overlay
    yield gauge("enticed_dht_contacts", "Hosts that this one can ask.", overlay.contacts)
    yield gauge("enticed_dht_records", "Records and names that this host keeps for all.", overlay.records)
    yield histogram("enticed_dht_lookup_seconds", "Lookups that this host has made.", overlay.lookup_seconds.look())


def _daemon(engine: DaemonEngine, parts: Parts) -> Iterable[Family]:
    yield histogram(
        "enticed_event_loop_lag_seconds",
        "How much later than asked for the event loop came round.",
        parts.lag.seconds.look(),
    )
    yield gauge(
        "enticed_certificate_expiry_timestamp_seconds",
        "When this host's certificate expires.",
        parts.identity.credential.not_after,
    )
    yield gauge(
        "enticed_certificate_renewal_failures",
        "Tries to renew it that have failed since one succeeded.",
        parts.trust.renewing.failures,
    )
    yield gauge("enticed_trust_serial", "The serial of the trust bundle in use.", parts.identity.trust.serial)
    yield gauge("enticed_disowned", "Hosts that say that this one was revoked, a few.", len(parts.network.disowned_by))
    yield gauge(
        "enticed_revoked",
        "1 where the trust bundle in use says so of this host.",
        int(parts.identity.node in parts.identity.trust.revoked_nodes),
    )
    yield gauge("enticed_couriers", "Processes that fetch for this daemon now.", parts.network.couriers.count)
    yield gauge("enticed_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
    yield gauge("enticed_start_time_seconds", "When the daemon was started.", engine.started_at)


def _process() -> Iterable[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield counter(
        "enticed_process_cpu_seconds_total", "User and system time.", round(usage.ru_utime + usage.ru_stime, 3)
    )
    yield gauge("enticed_process_resident_memory_bytes", "Resident memory.", resident_bytes())
    yield gauge("enticed_process_open_fds", "Open descriptors.", len(os.listdir("/proc/self/fd")))
    yield gauge("enticed_process_max_fds", "The most there can be.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
