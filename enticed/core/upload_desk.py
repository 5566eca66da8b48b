"""The upload desk: who is sent what, when; what others are told when there is no slot."""

from __future__ import annotations

from enticed.core.books import Books
from enticed.core.effects import DeferUpload, GrantUpload, RefuseUpload
from enticed.core.events import UploadAsked
from enticed.core.uploads import Waiting
from protocol.identifiers import ImageId, NodeId
from protocol.limits import ALTERNATIVES_MAX_COUNT
from protocol.messages import Alternative, FragmentsRequest, Request


class UploadDesk:
    def __init__(self, books: Books) -> None:
        self._books = books

    def asked(self, event: UploadAsked) -> None:
        if not self._holds(event.request, event.node):
            self._books.do(RefuseUpload(event.ticket))
            return
        if not self._books.uploads.ask(Waiting(event.ticket, event.node, event.request, event.size_bytes)):
            others = tuple(self.others_after(event.request.image, event.node))
            self._books.do(DeferUpload(event.ticket, self._books.policy.upload_retry_s, others))
            return
        self._grant()

    def ended(self, ticket: int) -> None:
        self._books.uploads.end(ticket)
        self._grant()

    def limit(self, bytes_per_s: float | None) -> None:
        """No more than this can be sent; None: as much as can be."""
        self._books.uploads.limit(bytes_per_s)
        self._grant()

    def others_after(self, image: ImageId, node: NodeId) -> list[Alternative]:
        """Some of the hosts that are after the image, those in `node`'s rack first."""
        asking = self._books.peers.get(node)
        place = (asking.contact.zone, asking.contact.rack) if asking else None
        others = [
            peer
            for peer in self._books.peers
            if image in peer.subscriptions and peer.node != node and peer.contact.addresses
        ]
        self._books.dice.shuffle(others)
        others.sort(key=lambda peer: (peer.contact.zone, peer.contact.rack) != place)
        return [Alternative(peer.node, peer.contact.addresses) for peer in others[:ALTERNATIVES_MAX_COUNT]]

    def _holds(self, request: Request, node: NodeId) -> bool:
        """Whether it is here, for this peer."""
        book = self._books.images.get(request.image)
        if book is None or not self._books.may_hear(node, request.image):
            return False
        if not isinstance(request, FragmentsRequest):
            return True
        return request.piece < book.pieces and book.is_held(request.piece)

    def _grant(self) -> None:
        while granted := self._books.uploads.grant():
            for upload in granted:
                if self._holds(upload.request, upload.node):
                    self._books.do(GrantUpload(upload.ticket))
                else:  # lost while it waited
                    self._books.do(RefuseUpload(upload.ticket))
                    self._books.uploads.end(upload.ticket)
