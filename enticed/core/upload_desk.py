"""The upload desk: who is sent what, when; what others are told when there is no slot."""

from __future__ import annotations

from math import inf

from enticed.core.books import Books
from enticed.core.effects import DeferUpload, GrantUpload, RefuseUpload
from enticed.core.events import UploadAsked
from enticed.core.image_book import ImageBook
from enticed.core.uploads import Given, Piece, Waiting
from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId, NodeId
from protocol.limits import ALTERNATIVES_MAX_COUNT
from protocol.messages import Alternative, FragmentsRequest, Request


class UploadDesk:
    def __init__(self, books: Books) -> None:
        self._books = books

    def asked(self, event: UploadAsked, now: float) -> None:
        policy, uploads = self._books.policy, self._books.uploads
        if not self._holds(event.request, event.node):
            self._books.do(RefuseUpload(event.ticket))
            return
        piece = self._piece(event)
        if piece is not None and (given := self._given_to_another(piece, event, now)) is not None:
            passed_s = now - max(given.since, given.sent_at)
            retry_s = min(policy.second_copy_retry_last_s, max(policy.second_copy_retry_s, passed_s))
            self._books.do(DeferUpload(event.ticket, retry_s, self._named(given.node)))
            return
        is_first = piece is not None and self._is_first(piece, event.node, now)
        if uploads.ask(Waiting(event.ticket, event.node, event.request, event.size_bytes, piece, is_first), now):
            if piece is not None:
                self._books.images[event.request.image].asked_for |= 1 << piece[1]
            self._grant(now)
        else:
            others = tuple(self.others_after(event.request.image, event.node))
            self._books.do(DeferUpload(event.ticket, policy.upload_retry_s, others))

    def _piece(self, event: UploadAsked) -> Piece | None:
        """The piece of which it is asked for a good part. Readers ask for little, and neither wait until others could
        pass that on nor keep anybody waiting."""
        request = event.request
        if not isinstance(request, FragmentsRequest):
            return None
        half_bytes = int(self._books.images[request.image].data_bytes[request.piece]) // 2
        is_good_part = event.size_bytes >= min(self._books.policy.good_part_bytes, half_bytes)
        return (request.image, request.piece) if is_good_part else None

    def _given_to_another(self, piece: Piece, event: UploadAsked, now: float) -> Given | None:
        """Where others wait for a seed: who else is being sent the piece that it is asked for, or was a moment ago. Who
        else is sent its first copy, where it could yet be asked for others."""
        uploads, book = self._books.uploads, self._books.images[event.request.image]
        if not book.sealed or not (uploads.is_full or self._has_firsts_left(book)):
            return None
        given = uploads.given(piece, now)
        if given is None or given.node == event.node or not (uploads.is_full or given.is_first):
            return None
        return given

    def _has_firsts_left(self, book: ImageBook) -> bool:
        """Whether some of the image was not asked for yet, of a seed that sends to several as it is."""
        is_in_use = self._books.uploads.peers >= self._books.policy.first_copies_go_first_peers
        return is_in_use and book.was_here and not book.all_asked_for

    def _is_first(self, piece: Piece, node: NodeId, now: float) -> bool:
        """Whether this host was a seed from the start, and nobody else was given a place for this piece before."""
        image, number = piece
        book = self._books.images[image]
        if not (book.sealed and book.was_here):
            return False
        return not book.asked_for & 1 << number or self._books.uploads.first_copies.is_going_on(piece, node, now)

    def _named(self, node: NodeId) -> tuple[Alternative, ...]:
        peer = self._books.peers.get(node)
        return () if peer is None else (Alternative(node, peer.contact.addresses),)

    def ended(self, ticket: int, sent_bytes: int, now: float) -> None:
        self._books.uploads.end(ticket, now, sent_bytes)
        self._grant(now)

    def limit(self, bytes_per_s: float | None, now: float) -> None:
        """No more than this can be sent; None: as much as can be."""
        self._books.uploads.limit(bytes_per_s)
        self._grant(now)

    def others_after(self, image: ImageId, node: NodeId) -> list[Alternative]:
        """Some of the hosts that are after the image, half of them in `node`'s rack where there are others: it finds
        its mates by itself, and may have nobody but us to tell it of hosts elsewhere."""
        asking = self._books.peers.get(node)
        place = (asking.contact.zone, asking.contact.rack) if asking else None
        near, far = list[Contact](), list[Contact]()
        for peer in self._books.peers:
            contact = peer.contact
            if image in peer.subscriptions and contact.addresses and contact.node != node:
                (near if (contact.zone, contact.rack) == place else far).append(contact)
        mates_most = max(ALTERNATIVES_MAX_COUNT // 2, ALTERNATIVES_MAX_COUNT - len(far))
        named = self._drawn(near, mates_most)
        named += self._drawn(far, ALTERNATIVES_MAX_COUNT - len(named))
        return [Alternative(contact.node, contact.addresses) for contact in named]

    def _drawn(self, contacts: list[Contact], count: int) -> list[Contact]:
        """So many of them at the most, by dice."""
        if count <= 0 or not contacts:
            return []
        return [contacts[at] for at in self._books.dice.permutation(len(contacts))[:count].tolist()]

    def _holds(self, request: Request, node: NodeId) -> bool:
        """Whether it is here, for this peer."""
        book = self._books.images.get(request.image)
        if book is None or not self._books.may_hear(node, request.image):
            return False
        if not isinstance(request, FragmentsRequest):
            return True
        return request.piece < book.pieces and book.is_held(request.piece)

    def _most_copies(self, image: ImageId) -> float:
        """How many are sent the same at once: few of an image that this host itself is after and has little under way,
        and others no more than it. Then all wait for the first copies of everything, and each that soon arrives can be
        passed on."""
        is_beginning = image in self._books.pulls and not self._books.requests.has_plenty
        return self._books.policy.copies_at_once if is_beginning else inf

    def _grant(self, now: float) -> None:
        while granted := self._books.uploads.grant(self._most_copies):
            for upload in granted:
                if self._holds(upload.request, upload.node):
                    self._books.do(GrantUpload(upload.ticket))
                else:  # lost while it waited
                    self._books.do(RefuseUpload(upload.ticket))
                    self._books.uploads.end(upload.ticket, now)
