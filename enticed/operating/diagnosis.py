"""What is wrong with this host, and what to do: what `entice doctor` asks of a running daemon.

Beside the checks of `/readyz`, which say whether it can work, this looks for what will keep it from working, or already
does for some orders; some of it (whether others can be reached) is tried out while one waits.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from os import listdir
from pathlib import Path

from enticed.core.orders import OrderState
from enticed.engine.engine import DaemonEngine
from enticed.engine.parts import Parts
from enticed.engine.port import OrderView
from enticed.engine.stock.stockroom import HEAL_PREFIX
from enticed.identity.limits import CERTIFICATE_WARNING_S
from enticed.limits import DOCTOR_ADDRESSES_MAX_COUNT, DOCTOR_CLOCK_STEP_MAX_S, DOCTOR_CONNECT_TIMEOUT_S, SCRUB_PERIOD_S
from enticed.operating import health
from enticed.operating.live_settings import LiveSettings
from enticed.store.use import guests_on
from protocol.addresses import split_address
from protocol.errors import EnticedError, LocalError


class Area(StrEnum):
    HOST = "host"
    STORE = "store"
    TIME = "time"
    NETWORK = "network"
    TRUST = "trust"


class Verdict(StrEnum):
    GOOD = "good"
    HINT = "hint"
    """It works, and will not for ever, or not as well as it could."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """said: how things are. to_do: what helps, where it is not good."""

    area: Area
    name: str
    verdict: Verdict
    said: str
    to_do: str = ""


_AREAS = {"trust": Area.TRUST, "certificate": Area.TRUST, "event_loop": Area.HOST, "peers": Area.NETWORK}


_FOUNDER_RENEWS = "bring the founding host back or restore it; join again only once the certificate has expired"


async def diagnose(engine: DaemonEngine, parts: Parts, settings: LiveSettings) -> tuple[Finding, ...]:
    """All findings, as things are now; takes as long as it takes to find that hosts cannot be reached."""
    await parts.standing.hear(DOCTOR_ADDRESSES_MAX_COUNT)
    found = [*_ready(parts), *_orders(engine), *_rot(engine, parts), _descriptors(), *_clock(parts), *_trust(parts)]
    found += [await _settings(settings), _advertised(parts), *[one async for one in _reached(parts)]]
    if directories := settings.config.guest_directories:
        found.append(await parts.threads.run(_guests, directories))
    return tuple(sorted(found, key=lambda one: list(Area).index(one.area)))


async def _settings(settings: LiveSettings) -> Finding:
    """Files that were changed and are wrong show only at the next start: of all hosts that were given them, at once."""
    try:
        pending = await settings.pending()
    except LocalError as error:
        return Finding(
            Area.HOST, "settings", Verdict.WRONG, f"the daemon would not start again: {error}", "mend that file"
        )
    if pending:
        said = f"{len(pending)} settings are others now in the files, and not in use yet: {pending[0].key}"
        return Finding(Area.HOST, "settings", Verdict.HINT, said, "entice reload, or restart enticed")
    return Finding(Area.HOST, "settings", Verdict.GOOD, "what the files say is in use")


def _ready(parts: Parts) -> Iterator[Finding]:
    for check in health.checks(parts):
        verdict = Verdict.GOOD if check.is_ok else Verdict.WRONG
        yield Finding(_AREAS.get(check.name, Area.STORE), check.name, verdict, check.said, check.to_do)


def _orders(engine: DaemonEngine) -> Iterator[Finding]:
    orders = engine.orders()
    failed = [order for order in _failed(orders) if not order.key.startswith(HEAL_PREFIX)]
    paused = [order for order in orders if order.state is OrderState.PAUSED]
    if paused:
        said = f"{len(paused)} wait for this host's disk: {paused[0].reason}"
        to_do = f"make room, or see to the disk: entice why {paused[0].key}"
        yield Finding(Area.STORE, "paused_orders", Verdict.WRONG, said, to_do)
    if failed:
        latest = max(failed, key=lambda order: order.created_at)
        said = f"{len(failed)} have failed, the latest: {latest.reason}"
        to_do = f"entice why {latest.key}" + ("; all: entice orders --state failed" if len(failed) > 1 else "")
        yield Finding(Area.HOST, "failed_orders", Verdict.HINT, said, to_do)


def _failed(orders: Sequence[OrderView]) -> list[OrderView]:
    """Those that have failed, but for what is over: the same image has been ready since, or what a later order
    brought by the same name."""
    ready = [order for order in orders if order.ready_at is not None]
    image_ready_at = {one.image: one.ready_at for one in sorted(ready, key=lambda one: one.ready_at or 0.0)}
    target_ordered_at = {one.target: one.created_at for one in sorted(ready, key=lambda one: one.created_at)}
    return [
        one
        for one in orders
        if one.state is OrderState.FAILED
        and (one.image is None or (image_ready_at.get(one.image) or 0.0) <= one.created_at)
        and target_ordered_at.get(one.target, 0.0) <= one.created_at
    ]


def _rot(engine: DaemonEngine, parts: Parts) -> Iterator[Finding]:
    rotten, mended = parts.stockroom.rotten_pieces, parts.scrubber.mended_files
    if rotten or mended:
        said = f"{rotten} pieces and {mended} files were found wrong on this host's disk since the start"
        to_do = "they are healed from peers; suspect the disk and the memory of this host: smartctl, dmesg, memtest"
        yield Finding(Area.STORE, "rot", Verdict.HINT, said, to_do)
    unhealed = [order for order in engine.orders(OrderState.FAILED) if order.key.startswith(HEAL_PREFIX)]
    if unhealed:
        said = f"{len(unhealed)} images that rotted here cannot be healed: {unhealed[0].reason}"
        yield Finding(Area.STORE, "unhealed", Verdict.WRONG, said, "start a host that has them, or publish them again")
    finished_at, now = parts.scrubber.finished_at, parts.clock()
    overdue_s = now - max(finished_at or 0.0, engine.started_at) - SCRUB_PERIOD_S
    if overdue_s > 0 and parts.store.images():
        said = f"the store was last read back as a whole more than {SCRUB_PERIOD_S / 86400:.0f} days ago"
        yield Finding(Area.STORE, "scrub", Verdict.HINT, said, "the disk is too slow, or too busy, for so many images")


def _guests(directories: Sequence[Path]) -> Finding:
    """In a thread. An image that the disk of a guest stands on is only kept where that disk is seen."""
    wrong = [f"{directory} ({why})" for directory in directories if (why := _why_unread(directory))]
    unread = guests_on(directories).unread
    to_do = "mend store.guest_directories, or let the daemon's user read what is there; until then pin what guests use"
    if wrong:
        said = f"images that guests stand on may be removed: {', '.join(wrong)} cannot be read"
        return Finding(Area.STORE, "guests", Verdict.WRONG, said, to_do)
    if unread:
        path, why = next(iter(unread.items()))
        said = f"images that guests stand on may be removed: {len(unread)} of their files are not seen: {path} ({why})"
        return Finding(Area.STORE, "guests", Verdict.HINT, said, to_do)
    return Finding(Area.STORE, "guests", Verdict.GOOD, "what guests stand on is seen, and stays")


def _why_unread(directory: Path) -> str:
    try:
        listdir(directory)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _descriptors() -> Finding:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(listdir("/proc/self/fd"))
    is_few = in_use > 0.8 * most
    said = f"{in_use} of {most} descriptors are open"
    return Finding(Area.HOST, "descriptors", Verdict.WRONG if is_few else Verdict.GOOD, said, "raise LimitNOFILE")


def _clock(parts: Parts) -> Iterator[Finding]:
    """The daemon's clock does not follow the host's: that is seen where the two have come apart."""
    step_s = time.time() - parts.clock()
    if abs(step_s) > DOCTOR_CLOCK_STEP_MAX_S:
        said = f"this host's clock was set by {step_s:+.0f} s while the daemon ran, which goes by what it was"
        to_do = "see to the clock (chronyc tracking), then restart enticed"
        yield Finding(Area.TIME, "clock", Verdict.WRONG, said, to_do)
    else:
        yield Finding(Area.TIME, "clock", Verdict.GOOD, "it runs evenly since the daemon was started")


def _trust(parts: Parts) -> Iterator[Finding]:
    credential, trust, newer = parts.identity.credential, parts.identity.trust, parts.overlay.newer_trust
    if parts.standing.disowned and health.is_member(parts):  # else that check has failed
        yield Finding(Area.TRUST, "disowned", Verdict.WRONG, parts.standing.disowned, health.SEE_WHO_LIES)
    left_s = credential.not_after - parts.clock()
    if 0 < left_s < CERTIFICATE_WARNING_S:
        said = f"this host's certificate is good for only {left_s / 86400:.0f} days"
        renews = health.RENEW_OWN if parts.authority is not None else _FOUNDER_RENEWS
        to_do = f"it is not renewed: {parts.trust.renewing.trouble or 'not asked for yet'}; {renews}"
        yield Finding(Area.TRUST, "certificate_expires", Verdict.HINT, said, to_do)
    publishers = len({one.name for one in trust.publishers})
    if 0 < publishers < trust.threshold:
        said = f"{trust.threshold} publishers have to sign, and {publishers} of them can: nothing is pulled"
        to_do = f"on the founding host: entice grant publisher, or entice trust threshold {publishers}"
        yield Finding(Area.TRUST, "publishers", Verdict.WRONG, said, to_do)
    if not trust.trusted_publishers:
        yield Finding(
            Area.TRUST, "publishers", Verdict.WRONG, "no publisher is trusted: nothing can be pulled", "entice join"
        )
    if newer:
        claims = ", ".join(f"host {node.short} of serial {serial}" for serial, node in newer)
        said = f"newer trust bundles are said to be had, by {claims}; this host has that of {trust.serial}"
        to_do = "it is fetched within a minute: if not, TCP to other hosts is closed, or who says so lies"
        yield Finding(Area.TRUST, "trust_bundle", Verdict.HINT, said, to_do)
    else:
        said = f"its serial is {trust.serial}, the newest that is known"
        yield Finding(Area.TRUST, "trust_bundle", Verdict.GOOD, said)


def _advertised(parts: Parts) -> Finding:
    network = parts.network
    hosts = [ip_address(split_address(address)[0]) for address in network.advertised]
    others = [ip_address(split_address(one, any_port=True)[0]) for one in parts.store.remembered_addresses()]
    is_local = all(host.is_loopback for host in hosts) and any(not other.is_loopback for other in others)
    said = f"others are told to dial {', '.join(network.advertised) or 'nothing'}"
    to_do = "set `advertise` to an address that other hosts reach, and restart enticed"
    return Finding(Area.NETWORK, "advertise", Verdict.WRONG if is_local or not hosts else Verdict.GOOD, said, to_do)


async def _reached(parts: Parts) -> AsyncIterator[Finding]:
    """Whether hosts that answered over UDP take connections over TCP."""
    addresses = [one for one in parts.store.remembered_addresses() if one not in parts.network.advertised][
        :DOCTOR_ADDRESSES_MAX_COUNT
    ]
    if not addresses:
        return
    answers = await asyncio.gather(*(_connects(address) for address in addresses))
    silent = [f"{address} ({why})" for address, why in zip(addresses, answers, strict=True) if why]
    said = f"{len(addresses) - len(silent)} of {len(addresses)} hosts that were seen last take connections"
    if silent:
        said += f"; not {', '.join(silent[:3])}"
    verdict = Verdict.WRONG if len(silent) == len(addresses) else Verdict.HINT if silent else Verdict.GOOD
    yield Finding(Area.NETWORK, "tcp", verdict, said, "are these hosts up, is TCP of their `listen` open from here?")


async def _connects(address: str) -> str:
    """Empty, or why it does not."""
    try:
        host, port = split_address(address)
        async with asyncio.timeout(DOCTOR_CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except TimeoutError:
        return "no answer"
    except (OSError, EnticedError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    return ""
