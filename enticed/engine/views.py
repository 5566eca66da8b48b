"""Views: the records that control shows, made from what core and store know."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from enticed.core.host import Host
from enticed.core.image_book import Supply
from enticed.core.orders import Order, OrderState, Promise, owner_text
from enticed.core.progress import Progress
from enticed.core.promise_desk import Forecast
from enticed.engine.names.naming import Naming
from enticed.engine.port import BytesFrom, ImageView, OrderView, PeerView
from enticed.engine.stock.stockroom import Stockroom
from enticed.store.images import StoredImage
from enticed.store.store import Store
from protocol.errors import AbsentError
from protocol.identifiers import ImageId
from protocol.statement import Statement


class Views:
    """replicas: how many hosts are to hold an image."""

    def __init__(
        self,
        host: Host,
        store: Store,
        stockroom: Stockroom,
        naming: Naming,
        replicas: Callable[[ImageId], int] = lambda image: 0,
    ) -> None:
        self._host = host
        self._store = store
        self._stockroom = stockroom
        self._naming = naming
        self._replicas = replicas

    def order(self, order: Order, now: float, forecasts: Mapping[ImageId, Forecast] | None = None) -> OrderView:
        """forecasts: those of now, where they have been made already."""
        if forecasts is None:
            forecasts = {} if order.ended else self._host.forecasts()
        forecast = forecasts.get(order.image) if order.image is not None else None
        stored = self._stored(order)
        progress = self._host.progress(order.image) if order.image is not None else None
        virtual_size = stored.root.virtual_size_bytes if stored is not None else 0
        data_bytes = stored.root.total_data_bytes if stored is not None else 0
        is_ready = order.state is OrderState.READY
        done = data_bytes if is_ready else progress.done_bytes if progress is not None else 0
        remaining_s = 0.0 if is_ready else _remaining_s(order, progress, forecast)
        return OrderView(
            key=order.key,
            target=order.target,
            image=order.image,
            state=order.state,
            failure=order.failure,
            reason=order.reason or _why(order, forecast, now),
            priority=order.priority,
            created_at=order.created_at,
            due_at=order.due_at,
            keep_until=order.keep_until,
            ready_at=order.ready_at,
            late=_is_late(order, remaining_s, now),
            percent=100.0 if is_ready else round(100 * done / data_bytes, 1) if data_bytes else 0.0,
            virtual_size_bytes=virtual_size,
            data_bytes=data_bytes,
            done_bytes=done,
            fragments=stored.root.fragments if stored is not None else 0,
            bytes_from=self._bytes_from(order, progress, virtual_size, data_bytes),
            bytes_per_s=progress.bytes_per_s if progress is not None else 0.0,
            estimate_s=remaining_s,
            path=str(stored.path) if stored is not None and is_ready else None,
            copies=progress.copies if progress is not None else None,
            promise=order.promise,
            owner=owner_text(order.owner) if order.owner else "",
        )

    def image(self, stored: StoredImage, now: float) -> ImageView:
        try:
            said: Statement | None = self._stockroom.statement(stored.image)
        except AbsentError:
            said = None
        progress = self._host.progress(stored.image)
        pin = self._store.pin_book.of(stored.image, now)
        return ImageView(
            image=stored.image,
            names=self._naming.names_of(stored.image),
            virtual_size_bytes=stored.root.virtual_size_bytes,
            data_bytes=stored.root.total_data_bytes,
            fragments=stored.root.fragments,
            pieces=stored.root.pieces,
            pieces_held=progress.pieces_done if progress is not None else int(stored.durable.sum()),
            ready=stored.ready,
            leased=self._host.is_leased(stored.image, now),
            created_at=stored.created_at,
            source_format=said.source_format if said is not None else "",
            relatives=said.relatives if said is not None else (),
            digests=_digests(said),
            private=self._stockroom.group(stored.image) is not None,
            last_used_at=stored.last_used_at,
            pinned=pin is not None,
            pinned_until=None if pin is None else pin.until,
            replicas=self._replicas(stored.image),
        )

    def peers(self) -> tuple[PeerView, ...]:
        return tuple(
            PeerView(
                peer.node,
                peer.contact.addresses,
                peer.contact.zone,
                peer.contact.rack,
                peer.in_flight_bytes,
                peer.bytes_per_s,
                peer.strikes,
                len(peer.subscriptions),
            )
            for peer in self._host.peers()
        )

    def _bytes_from(
        self, order: Order, progress: Progress | None, virtual_size_bytes: int, data_bytes: int
    ) -> BytesFrom:
        if order.state is OrderState.READY:
            supply = self._host.supplied(order.key) or {Supply.ON_HAND: data_bytes}
        else:
            supply = progress.bytes_from if progress is not None else {}
        return BytesFrom(
            zero=virtual_size_bytes - data_bytes,
            on_hand=supply.get(Supply.ON_HAND, 0),
            relatives=supply.get(Supply.RELATIVES, 0),
            peers=supply.get(Supply.PEERS, 0),
            origin=supply.get(Supply.ORIGIN, 0),
        )

    def _stored(self, order: Order) -> StoredImage | None:
        try:
            return self._store.image(order.image) if order.image is not None else None
        except AbsentError:
            return None


def _remaining_s(order: Order, progress: Progress | None, forecast: Forecast | None) -> float | None:
    """By the promise's arithmetic where there is a promise, else by the pull's own rate."""
    if order.due_at is not None and forecast is not None and not order.ended:
        return forecast.remaining_s
    return progress.remaining_s if progress is not None else None


def _why(order: Order, forecast: Forecast | None, now: float) -> str:
    """Why a due date will not be met, where nothing has gone wrong: there is too much to do."""
    if forecast is None or order.due_at is None or order.ended or now >= order.due_at:
        return ""
    left_s = order.due_at - now
    if order.promise is Promise.INFEASIBLE:
        return f"it takes {forecast.alone_s:.0f} s at the best rate seen here, and is due in {left_s:.0f} s"
    if order.promise is Promise.LATE:
        return f"with what goes before it, it takes {forecast.remaining_s:.0f} s, and is due in {left_s:.0f} s"
    return ""


def _is_late(order: Order, remaining_s: float | None, now: float) -> bool:
    if order.due_at is None:
        return False
    if order.ready_at is not None:
        return order.ready_at > order.due_at
    return now + (remaining_s or 0.0) > order.due_at


def _digests(said: Statement | None) -> dict[str, str]:
    if said is None or said.digests is None:
        return {}
    digests = said.digests
    named = {
        "raw_sha256": digests.raw_sha256,
        "raw_sha512": digests.raw_sha512,
        "source_sha256": digests.source_sha256,
        "source_sha512": digests.source_sha512,
    }
    return {name: str(digest) for name, digest in named.items() if digest is not None}
