"""The session desk: whom this host knows, what each side has, and what it tells them."""

from __future__ import annotations

import numpy as np

from enticed.core.bitmaps import pack_bitmap, unpack_bitmap
from enticed.core.books import Books, ImageBook, Offer, PieceState, Pull
from enticed.core.effects import Announce, Dial, FindProviders, HangUp, Recheck, Say, Withdraw
from enticed.core.events import Contact
from enticed.core.peers import Peer
from enticed.core.upload_desk import UploadDesk
from protocol.errors import MalformedError
from protocol.identifiers import ImageId, NodeId
from protocol.limits import HAVE_CHANGE_MAX_PIECES
from protocol.messages import (
    Acquaint,
    Charge,
    Control,
    HaveChange,
    HaveMap,
    NotHeld,
    Subscribe,
    Unsubscribe,
)


class SessionDesk:
    def __init__(self, books: Books, upload_desk: UploadDesk) -> None:
        self._books = books
        self._uploads = upload_desk

    # --- finding hosts ---

    def seek(self, pull: Pull, now: float) -> None:
        """Look providers up when it is time."""
        if now >= pull.find_at and not pull.finding:
            pull.finding = True
            policy = self._books.policy
            pull.find_pause_s = min(policy.find_last_s, max(policy.find_first_s, 2 * pull.find_pause_s))
            pull.find_at = now + pull.find_pause_s
            self._books.do(FindProviders(pull.image))

    def found(self, pull: Pull, providers: tuple[Contact, ...], now: float) -> None:
        """Hosts that may have the image: dial as many as are worth knowing."""
        for contact in providers:
            if contact.node != self._books.me.node:
                pull.contacts[contact.node] = contact
        self._dial_more(pull, now)

    def _dial_more(self, pull: Pull, now: float) -> None:
        policy, peers = self._books.policy, self._books.peers
        useful = [peer for peer in peers if peer.node in pull.availability or pull.image in peer.subscriptions]
        near = sum(1 for peer in useful if peer.same_rack)
        room_near = policy.degree - policy.degree_outside_rack - near
        room_far = max(policy.degree - len(useful), 0)
        waiting = [
            contact
            for contact in pull.contacts.values()
            if contact.node not in peers
            and now - pull.dialled_at.get(contact.node, -1e9) >= policy.dial_retry_s
            and len(peers) < policy.sessions_max
        ]
        self._books.dice.shuffle(waiting)
        for contact in sorted(waiting, key=lambda one: not self._is_near(one)):
            if self._is_near(contact) and room_near > 0:
                room_near -= 1
            elif room_far <= 0:
                break
            room_far -= 1
            pull.dialled_at[contact.node] = now
            pull.asked.add(contact.node)
            self._books.do(Dial(contact))

    def _is_near(self, contact: Contact) -> bool:
        return (contact.zone, contact.rack) == (self._books.me.zone, self._books.me.rack)

    # --- sessions ---

    def up(self, contact: Contact) -> None:
        peer = self._books.peers.get(contact.node) or self._books.peers.add(contact)
        for image in self._books.pulls:
            self._subscribe(peer, image)

    def start(self, pull: Pull) -> None:
        """Ask everybody we already know."""
        for peer in self._books.peers:
            self._subscribe(peer, pull.image)

    def end(self, pull: Pull) -> None:
        """The pull is over: nothing more about its image is news."""
        for peer in self._books.holders(pull):
            self._books.do(Say(peer.node, Unsubscribe(pull.image)))

    def hang_up_idle(self, now: float) -> None:
        for peer in self._books.peers:
            if peer.subscriptions or self._books.pulls:
                peer.idle_since = None
            elif peer.idle_since is None:
                peer.idle_since = now
            elif now - peer.idle_since >= self._books.policy.session_idle_s:
                peer.idle_since = None
                self._books.do(HangUp(peer.node, "idle"))

    def _subscribe(self, peer: Peer, image: ImageId) -> None:
        pull = self._books.pulls[image]
        pull.asked.add(peer.node)
        self._books.do(Say(peer.node, Subscribe(image)))

    # --- what peers say ---

    def heard(self, peer: Peer, message: Control, now: float) -> None:
        match message:
            case Subscribe(image):
                self._subscribed(peer, image)
            case Unsubscribe(image):
                peer.subscriptions.discard(image)
            case HaveMap(image, pieces, bitmap):
                self._have_map(peer, image, pieces, bitmap)
            case HaveChange(image, gained, lost):
                pull = self._books.pulls.get(image)
                if pull is not None and not pull.availability.change(peer.node, gained, lost):
                    self._books.do(HangUp(peer.node, "a piece that the image does not have"))
            case NotHeld(image):
                pull = self._books.pulls.get(image)
                if pull is not None:
                    pull.availability.drop(peer.node)
            case Acquaint(image, hosts):
                pull = self._books.pulls.get(image)
                if pull is not None:
                    known = pull.contacts
                    new = (Contact(host.node, host.addresses) for host in hosts if host.node not in known)
                    self.found(pull, tuple(new), now)
            case Charge(image, piece, _):
                book = self._books.images.get(image)
                if book is not None and piece < book.pieces and book.held[piece]:
                    self._books.do(Recheck(image, piece))
            case _:
                pass

    def _subscribed(self, peer: Peer, image: ImageId) -> None:
        book, pull = self._books.images.get(image), self._books.pulls.get(image)
        if book is None and pull is None:
            self._books.do(Say(peer.node, NotHeld(image)))
            return
        others = tuple(self._uploads.others_after(image, peer.node))
        is_new = image not in peer.subscriptions
        peer.subscriptions.add(image)
        if book is not None:
            self._send_map(peer, book)
        if others:
            self._books.do(Say(peer.node, Acquaint(image, others)))
        if is_new and pull is not None and peer.node not in pull.availability:
            # It pulls what we pull: it will have pieces that we want.
            self._subscribe(peer, image)

    def _have_map(self, peer: Peer, image: ImageId, pieces: int, bitmap: bytes) -> None:
        pull = self._books.pulls.get(image)
        if pull is None or image in peer.charged:
            return
        try:
            held = unpack_bitmap(bitmap, pieces)
        except MalformedError as error:
            self._books.do(HangUp(peer.node, str(error)))
            return
        if not pull.availability.put(peer.node, held):
            self._books.do(HangUp(peer.node, "a have-map of another size than the image"))

    # --- what peers are told ---

    def opened(self, book: ImageBook) -> None:
        """The manifest is known: those who asked before get their have-map."""
        for peer in self._books.peers:
            if book.image in peer.subscriptions:
                self._send_map(peer, book)

    def gained(self, book: ImageBook, piece: int, now: float) -> None:
        """A piece is verified and written; subscribers hear of it within `have_batch_s`."""
        book.gained.append(piece)
        if book.tell_at is None:
            book.tell_at = now + self._books.policy.have_batch_s

    def lost(self, book: ImageBook, pieces: tuple[int, ...]) -> None:
        """Pieces turned out lost: retract them at once."""
        book.gained = [piece for piece in book.gained if piece not in set(pieces)]
        self._tell(book, gained=(), lost=pieces)

    def tell_gained(self, now: float) -> None:
        for book in self._books.images.values():
            if book.tell_at is not None and now >= book.tell_at:
                pieces, book.gained, book.tell_at = tuple(book.gained), [], None
                self._tell(book, gained=pieces, lost=())

    def offer(self, book: ImageBook) -> None:
        """Keep what the DHT says of an image in step with what is durable of it."""
        offer = Offer.WHOLE if book.sealed else Offer.PART if book.durable.any() else Offer.NONE
        if offer is book.offer:
            return
        book.offer = offer
        self._books.do(Withdraw(book.image) if offer is Offer.NONE else Announce(book.image, offer is Offer.WHOLE))

    def forgotten(self, book: ImageBook) -> None:
        if book.offer is not Offer.NONE:
            self._books.do(Withdraw(book.image))
        for peer in self._books.peers:
            if book.image in peer.subscriptions:
                peer.subscriptions.discard(book.image)
                self._books.do(Say(peer.node, NotHeld(book.image)))

    def _send_map(self, peer: Peer, book: ImageBook) -> None:
        self._books.do(Say(peer.node, HaveMap(book.image, book.pieces, pack_bitmap(book.held))))

    def _tell(self, book: ImageBook, gained: tuple[int, ...], lost: tuple[int, ...]) -> None:
        for start in range(0, max(len(gained), len(lost)), HAVE_CHANGE_MAX_PIECES):
            part = slice(start, start + HAVE_CHANGE_MAX_PIECES)
            change = HaveChange(book.image, gained[part], lost[part])
            for peer in self._books.peers:
                if book.image in peer.subscriptions:
                    self._books.do(Say(peer.node, change))


def held_by_nobody(books: Books, pull: Pull) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Pieces that this pull still needs from others and that no peer with a session has."""
    book = books.images[pull.image]
    needed = (book.state < PieceState.WRITTEN) & (pull.missing_bytes > 0)
    return np.flatnonzero(needed & (pull.availability.rarity == 0))


def names_of(nodes: set[NodeId]) -> str:
    """Nodes for people, a few of them."""
    listed = sorted(node.short for node in nodes)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "") or "nobody"
