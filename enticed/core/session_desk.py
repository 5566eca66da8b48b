"""The session desk: what each side of a session has of which image, and what peers are told of it."""

from __future__ import annotations

from enticed.core.bitmaps import pack_bitmap, unpack_bitmap
from enticed.core.books import Books
from enticed.core.effects import Announce, HangUp, Recheck, Say, Withdraw
from enticed.core.finding_desk import FindingDesk
from enticed.core.image_book import ImageBook, Offer, PieceState
from enticed.core.orders import OrderState
from enticed.core.peers import Peer
from enticed.core.pulls import Kin, Pull
from enticed.core.upload_desk import UploadDesk
from enticed.core.vocabulary import Contact
from protocol.errors import MalformedError
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId
from protocol.limits import ALTERNATIVES_MAX_COUNT, HAVE_CHANGE_MAX_PIECES
from protocol.messages import (
    Acquaint,
    Charge,
    Control,
    HaveChange,
    HaveMap,
    NotHeld,
    OrderNews,
    PlaceOrder,
    Subscribe,
    Unsubscribe,
)


class SessionDesk:
    def __init__(self, books: Books, finding: FindingDesk, uploads: UploadDesk) -> None:
        self._books = books
        self._finding = finding
        self._uploads = uploads
        self._sent_away: dict[NodeId, None] = {}
        """Who has been, and stays if it comes again: it may have found nobody else."""

    # --- sessions ---

    def up(self, contact: Contact, now: float, *, dialled_here: bool = False) -> None:
        self._finding.met(contact)
        self._books.peers.add(contact, dialled_here=dialled_here)
        self._finding.remember(contact)
        for pull in self._books.pulls.values():
            self._finding.ask(pull, contact.node, now)
            for image in pull.kin:
                if self._books.may_hear(contact.node, image):
                    self._books.do(Say(contact.node, Subscribe(image)))

    def learn(self, image: ImageId, group: GroupId | None) -> None:
        """Whose the image is, None for everybody's; what is private stays so. Who may not have it hears no more."""
        if self._books.privacy.get(image) is not None:
            return
        self._books.privacy[image] = group
        for peer in self._books.peers:
            if image in peer.subscriptions and not self._books.may_hear(peer.node, image):
                peer.subscriptions.discard(image)
                self._books.do(Say(peer.node, NotHeld(image)))

    def belongs(self, node: NodeId, groups: frozenset[GroupId], now: float) -> None:
        """A peer is a member of groups: it may hear of what is theirs."""
        peer = self._books.peers.get(node)
        if peer is None:
            return
        peer.groups |= groups
        for pull in self._books.pulls.values():
            if node not in pull.availability and node not in pull.charged:
                self._finding.ask(pull, node, now)

    def start(self, pull: Pull, now: float) -> None:
        """Ask everybody we already know."""
        for peer in self._books.peers:
            peer.idle_since = None
            self._finding.ask(pull, peer.node, now)

    def end(self, pull: Pull) -> None:
        """The pull is over: nothing more about its image is news; those who hoped for some of it here need not."""
        over = [image for image in (pull.image, *pull.kin) if not self._books.ledgers(image)]
        for peer in self._books.peers:
            for image in over:
                if self._books.may_hear(peer.node, image):
                    self._books.do(Say(peer.node, Unsubscribe(image)))
            if pull.image not in self._books.images and pull.image in peer.subscriptions:
                peer.subscriptions.discard(pull.image)
                self._books.do(Say(peer.node, NotHeld(pull.image)))

    def idle_until(self, peer: Peer) -> float | None:
        """When a session ends that neither side has a use for; sooner where there are many and the peer has dialled."""
        if peer.idle_since is None:
            return None
        policy, is_in_the_way = self._books.policy, self._excess > 0 and not peer.dialled_here
        return peer.idle_since + (policy.session_idle_crowded_s if is_in_the_way else policy.session_idle_s)

    def hang_up_idle(self, now: float) -> None:
        """Sessions are of no use once nothing is pulled and the peer wants no news; these are hung up after a while."""
        if self._books.pulls:
            return
        for peer in self._books.peers:
            if peer.subscriptions or peer.node in self._books.peers.leaving:
                peer.idle_since = None
            elif peer.idle_since is None:
                peer.idle_since = now
            elif (until := self.idle_until(peer)) is not None and now >= until:
                peer.idle_since = None
                self._hang_up(peer, "idle")

    @property
    def _excess(self) -> int:
        """How many sessions there are beyond those that are kept."""
        peers = self._books.peers
        return len(peers) - len(peers.leaving) - self._books.policy.sessions_kept

    def _hang_up(self, peer: Peer, reason: str) -> None:
        self._books.peers.leaving.add(peer.node)
        self._books.do(HangUp(peer.node, reason))

    # --- what peers say ---

    def heard(self, peer: Peer, message: Control, now: float) -> bool:
        """Take in what a peer says, but for changes to its have-map; False where nothing follows but what was done.

        A peer may say 2,000 things a second, and most of what a liar can think of is about images that are not here.
        """
        if peer.node in self._books.peers.leaving:
            return False
        match message:
            case Subscribe(image):
                return self._subscribed(peer, image, now)
            case Unsubscribe(image):
                if image not in peer.subscriptions:
                    return False
                peer.subscriptions.discard(image)
            case HaveMap(image, pieces, bitmap):
                return self._have_map(peer, image, pieces, bitmap, now)
            case NotHeld(image):
                return self._not_held(peer, image, now)
            case Acquaint(image, hosts):
                pull = self._books.pulls.get(image)
                if pull is None:
                    return False
                new = (Contact(host.node, host.addresses) for host in hosts)
                self._finding.heard_of(pull, new, peer.node, now)
            case Charge(image, piece, _):
                self._charged(peer, image, piece)
                return False
            case PlaceOrder() | OrderNews():  # campaigns decide about these; they are a use for the session
                if peer.idle_since is not None:
                    peer.idle_since = now
                return False
            case _:
                return False
        return True

    def _not_held(self, peer: Peer, image: ImageId, now: float) -> bool:
        ledgers, pull = self._books.ledgers(image), self._books.pulls.get(image)
        for ledger in ledgers:
            ledger.availability.drop(peer.node)
        if pull is not None and peer.node in pull.asked:
            is_first = peer.node not in pull.answers
            pull.answers[peer.node] = "has none of it"
            if is_first:
                self._finding.answered(pull, peer, now)
        return bool(ledgers)

    def _subscribed(self, peer: Peer, image: ImageId, now: float) -> bool:
        book, pull = self._books.images.get(image), self._books.pulls.get(image)
        if (book is None and pull is None) or not self._books.may_hear(peer.node, image):
            self._books.do(Say(peer.node, NotHeld(image)))
            return False
        others = tuple(self._uploads.others_after(image, peer.node))
        is_new = image not in peer.subscriptions
        if self._is_to_go(peer) and len(others) >= ALTERNATIVES_MAX_COUNT:
            self._send_away(peer, Acquaint(image, others))
            return False
        self._sent_away.pop(peer.node, None)
        if book is not None and not any(image in one.subscriptions for one in self._books.peers):
            book.meet_anew()
        peer.subscriptions.add(image)
        if book is not None:
            self._send_map(peer, book)
        if others:
            self._books.do(Say(peer.node, Acquaint(image, others)))
        if is_new and pull is not None and peer.node not in pull.availability and peer.node not in pull.charged:
            # It pulls what we pull: it will have pieces that we want.
            self._finding.ask(pull, peer.node, now)
        return True

    def _is_to_go(self, peer: Peer) -> bool:
        """Whether a peer that has dialled, and has no place yet, is to go to others: a seed has too many. Whoever pulls
        something itself may have its source in those that dial it."""
        has_place = peer.dialled_here or peer.subscriptions or peer.node in self._sent_away
        return self._excess > 0 and not has_place and not self._books.pulls

    def _send_away(self, peer: Peer, others: Acquaint) -> None:
        """Send a peer to others who are after the image: it would know nobody until it is time to dial again, were it
        just refused."""
        self._sent_away[peer.node] = None
        if len(self._sent_away) > self._books.policy.sent_away_max:
            del self._sent_away[next(iter(self._sent_away))]
        self._books.do(Say(peer.node, others))
        self._hang_up(peer, "many sessions are open; others that are after the image are named")

    def _charged(self, peer: Peer, image: ImageId, piece: int) -> None:
        book = self._books.images.get(image)
        if book is not None and piece < book.pieces and book.is_held(piece):
            peer.charges += 1
            if peer.charges <= self._books.policy.charges_max:
                self._books.do(Recheck(image, piece))

    def _have_map(self, peer: Peer, image: ImageId, pieces: int, bitmap: bytes, now: float) -> bool:
        pull = self._books.pulls.get(image)
        is_first = pull is not None and peer.node not in pull.availability
        ledgers = [ledger for ledger in self._books.ledgers(image) if peer.node not in ledger.charged]
        if not ledgers or not self._books.may_hear(peer.node, image):  # whoever is asked for it hears of it
            return False
        try:
            held = unpack_bitmap(bitmap, pieces)
        except MalformedError as error:
            self._hang_up(peer, str(error))
            return False
        for ledger in ledgers:
            if not ledger.availability.put(peer.node, held, near=peer.same_rack):
                self._hang_up(peer, "a have-map of another size than the image")
        if pull is not None and is_first:
            self._finding.answered(pull, peer, now)
        return True

    def have_change(self, peer: Peer, ledgers: list[Pull | Kin], change: HaveChange) -> bool:
        """Take in what a peer has come to have, or lost; False where nothing follows from it."""
        known = [ledger for ledger in ledgers if peer.node in ledger.availability]
        if not all(ledger.availability.change(peer.node, change.gained, change.lost) for ledger in known):
            self._hang_up(peer, "a piece that the image does not have")
            return False
        return bool(known)

    # --- what peers are told ---

    def opened(self, book: ImageBook) -> None:
        """The image is here, or its manifest is: those who asked before get their have-map."""
        for peer in self._books.peers:
            if book.image in peer.subscriptions:
                self._send_map(peer, book)

    def gained(self, book: ImageBook, piece: int, now: float) -> None:
        """A piece is verified and written; subscribers hear of it at once, or a while after the last news, less long
        where they wait for it."""
        policy = self._books.policy
        book.gained.append(piece)
        self._books.busy[book.image] = book
        batch_s = policy.scarce_batch_s if self._is_scarce(book, piece) else policy.have_batch_s
        tell_at = max(now, book.told_at + batch_s)
        book.tell_at = tell_at if book.tell_at is None else min(book.tell_at, tell_at)

    def _is_scarce(self, book: ImageBook, piece: int) -> bool:
        """Whether hardly any of many mates have it: then they wait for it."""
        pull = self._books.pulls.get(book.image)
        if pull is None:
            return False
        has = pull.availability
        return bool(has.at_mates[piece] < int(self._books.policy.scarce_share * len(has.mates)))

    def lost(self, book: ImageBook, pieces: tuple[int, ...]) -> None:
        """Pieces turned out lost: retract them at once."""
        are_lost = set(pieces)
        book.gained = [piece for piece in book.gained if piece not in are_lost]
        self._tell(book, gained=(), lost=pieces)

    def tell_gained(self, now: float) -> None:
        for book in self._books.busy.values():
            if book.tell_at is not None and now >= book.tell_at:
                pieces, book.gained, book.tell_at, book.told_at = tuple(book.gained), [], None, now
                self._tell(book, gained=pieces, lost=())

    def offer(self, book: ImageBook) -> None:
        """Keep what the DHT says of an image in step with what is durable of it."""
        # Who asks the origin is to be found by others who would, before it has anything.
        pull = self._books.pulls.get(book.image)
        is_fetched = pull is not None and pull.stage in (OrderState.FETCHING, OrderState.VERIFYING)
        asks_origin = is_fetched and self._books.may_use_origin(book.image)
        has_some = book.counts[PieceState.DURABLE] or asks_origin
        offer = Offer.WHOLE if book.sealed else Offer.PART if has_some else Offer.NONE
        if offer is book.offer:
            return
        book.offer = offer
        image, group = book.image, self._books.privacy.get(book.image)
        self._books.do(Withdraw(image, group) if offer is Offer.NONE else Announce(image, offer is Offer.WHOLE, group))

    def forgotten(self, image: ImageId) -> None:
        """The image is gone from this host: nobody is to ask for it here."""
        book = self._books.images.pop(image, None)
        self._books.busy.pop(image, None)
        if book is None:
            return
        if book.offer is not Offer.NONE:
            self._books.do(Withdraw(image, self._books.privacy.get(image)))
        for peer in self._books.peers:
            if image in peer.subscriptions:
                peer.subscriptions.discard(image)
                self._books.do(Say(peer.node, NotHeld(image)))

    def _send_map(self, peer: Peer, book: ImageBook) -> None:
        self._books.do(Say(peer.node, HaveMap(book.image, book.pieces, pack_bitmap(book.held))))

    def _tell(self, book: ImageBook, gained: tuple[int, ...], lost: tuple[int, ...]) -> None:
        for start in range(0, max(len(gained), len(lost)), HAVE_CHANGE_MAX_PIECES):
            part = slice(start, start + HAVE_CHANGE_MAX_PIECES)
            change = HaveChange(book.image, gained[part], lost[part])
            for peer in self._books.peers:
                if book.image in peer.subscriptions:
                    self._books.do(Say(peer.node, change))
