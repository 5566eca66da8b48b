"""What a simulated host does with its disk: the effects that reserve, open, sync, seal, check and probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure
from simnet.faults import Trouble

if TYPE_CHECKING:
    from simnet.host import SimHost
    from simnet.images import SimImage

PAGE_READ_S = 0.0005
SYNC_S = 0.02

StockEffect = ef.Reserve | ef.OpenPiece | ef.MakeDurable | ef.Seal | ef.Recheck | ef.ProbeStore


def keep_stock(host: SimHost, effect: StockEffect) -> None:
    """Do it now, or what the disk does, when it is done; the host is told."""
    if isinstance(effect, ef.ProbeStore):
        host.after(SYNC_S * host.condition.factor(Trouble.SLOW_DISK), lambda: _probe(host))
        return
    image, failure = host.world.images[effect.image], host.condition.disk_failure
    file, on_hand = host.disk.file(image), host.disk.on_hand(image)
    match effect:
        case ef.Reserve() if failure is not None:
            _tell_later(host, PAGE_READ_S, ev.SpaceRefused(image.image, failure, f"disk: {failure}"))
        case ef.Reserve():
            slowness = host.condition.factor(Trouble.SLOW_DISK)
            host.after(PAGE_READ_S * slowness, lambda: _tell_reserved(host, image))
        case ef.OpenPiece(_, piece) if failure is Failure.DISK:
            _tell_later(host, PAGE_READ_S, ev.PieceUnopened(image.image, piece, failure, "the disk failed"))
        case ef.OpenPiece(_, piece):
            sizes_bytes, before = image.fragment_sizes_bytes, file.landed[piece].copy()
            in_place_bytes = int(sizes_bytes[before].sum())
            file.landed[piece] |= on_hand[piece]
            opened = ev.PieceOpened(image.image, piece, sizes_bytes, ~file.landed[piece], in_place_bytes)
            _tell_later(host, PAGE_READ_S, opened)
        case ef.MakeDurable(_, pieces):
            host.after(SYNC_S * host.condition.factor(Trouble.SLOW_DISK), lambda: _sync(host, image, pieces))
        case ef.Seal() if failure is not None:
            _tell_later(host, SYNC_S, ev.SyncFailed(image.image, (), failure, f"disk: {failure}"))
        case ef.Seal():
            file.sealed = True
            _tell_later(host, SYNC_S, ev.Sealed(image.image))
        case ef.Recheck(_, piece):
            if host.condition.spoils:
                _tell_later(host, PAGE_READ_S, ev.PieceRotten(image.image, piece))


def _tell_later(host: SimHost, seconds: float, event: ev.Event) -> None:
    host.later(seconds * host.condition.factor(Trouble.SLOW_DISK), event)


def _tell_reserved(host: SimHost, image: SimImage) -> None:
    """Of what is durable now: a piece may have rotted since stock was taken."""
    missing_bytes = np.where(host.disk.on_hand(image), 0, image.data_bytes)
    relatives = () if image.relative is None else (image.relative.image,)
    durable = host.disk.file(image).durable.copy()
    host.tell(ev.SpaceReserved(image.image, durable, missing_bytes, relatives))


def _probe(host: SimHost) -> None:
    failure = host.condition.disk_failure
    host.tell(ev.StoreProbed("" if failure is None else f"disk: {failure}"))


def _sync(host: SimHost, image: SimImage, pieces: tuple[int, ...]) -> None:
    file, failure = host.disk.file(image), host.condition.disk_failure
    if failure is not None:
        file.landed[~file.durable] = False
        host.tell(ev.SyncFailed(image.image, pieces, failure, f"disk: {failure}"))
    else:
        file.durable[list(pieces)] = True
        host.tell(ev.Synced(image.image, pieces))
