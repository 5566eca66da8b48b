"""The bugs that `python -m simnet mutants` plants, one at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `enticed.core.<part>`, `instead` stands where `text` stood, which it does once."""

    name: str
    part: str
    text: str
    instead: str

    @property
    def module(self) -> str:
        return f"enticed.core.{self.part}"


MUTANTS = (
    # What is offered, told and sent.
    Mutant(
        "offer what is being fetched",
        "image_book",
        "self.state >= PieceState.WRITTEN",
        "self.state >= PieceState.AT_WORK",
    ),
    Mutant(
        "announce as whole what is not durable",
        "session_desk",
        "Offer.WHOLE if book.sealed else",
        "Offer.WHOLE if book.all_written else",
    ),
    Mutant(
        "send without looking whether it is here",
        "upload_desk",
        "return request.piece < book.pieces and book.is_held(request.piece)",
        "return request.piece < book.pieces",
    ),
    Mutant(
        "send what was lost while it waited",
        "upload_desk",
        "if self._holds(upload.request, upload.node):",
        "if upload.request is not None:",
    ),
    Mutant(
        "never free an upload slot",
        "uploads",
        "upload = self._sending.pop(ticket, None)",
        "upload = self._sending.get(ticket)",
    ),
    Mutant(
        "have-maps with the first bit last",
        "bitmaps",
        "return np.packbits(held).tobytes()",
        'return np.packbits(held, bitorder="little").tobytes()',
    ),
    Mutant(
        "count a piece that a host lost as one more",
        "availability",
        "self._count(node, gone, -1)",
        "self._count(node, gone, 1)",
    ),
    Mutant(
        "take a host for a seed one piece too early",
        "availability",
        "is_whole = self._maps[node] == (1 << self._pieces[node]) - 1",
        "is_whole = self._maps[node] >= (1 << self._pieces[node] - 1) - 1",
    ),
    Mutant(
        "keep what all have together when one loses a piece",
        "availability",
        "if gone or node in self.seeds or held",
        "if node in self.seeds or held",
    ),
    Mutant("charge who was only silent", "request_desk", "case Fault.CORRUPT:", "case Fault.CORRUPT | Fault.SILENT:"),
    # What is written and becomes durable.
    Mutant(
        "call a piece written one run too early",
        "request_desk",
        "if pull.outstanding[run.piece] == 0:",
        "if pull.outstanding[run.piece] <= 1:",
    ),
    Mutant(
        "lose the last run of a piece that is one fragment long",
        "requests",
        "    if length:\n        runs.append(Run(image, piece, first, length, size_bytes, now))\n    return runs",
        "    if length > 1:\n        runs.append(Run(image, piece, first, length, size_bytes, now))\n    return runs",
    ),
    Mutant(
        "count as durable what was lost meanwhile",
        "goods_desk",
        "safe = book.syncing.intersection(pieces)",
        "safe = set(pieces)",
    ),
    Mutant(
        "seal while a sync is under way",
        "goods_desk",
        "elif all_written and pull is not None and not book.sealed and book.all_durable:",
        "elif pull is not None and not book.sealed:",
    ),
    Mutant(
        "never sync the last pieces",
        "goods_desk",
        "if all_written or pull is None or self._must_sync(book, now):",
        "if False:",
    ),
    Mutant(
        "take all of an image that is half here for durable",
        "goods_desk",
        "state = np.where(durable, PieceState.DURABLE, PieceState.WANTED)",
        "state = np.where(durable | True, PieceState.DURABLE, PieceState.WANTED)",
    ),
    Mutant("forget that a lost piece was being synced", "goods_desk", "        book.syncing -= are_lost\n", ""),
    Mutant(
        "call an image whole because it is known",
        "order_desk",
        "return book is not None and book.sealed",
        "return book is not None",
    ),
    Mutant(
        "begin an order anew whose image has lost pieces",
        "order_desk",
        "order.leases(image, now):\n                self._resolve(order, now)",
        "order.leases(image, now):\n                self._begin(order, now)",
    ),
    # What is asked for.
    Mutant("forget what is in flight", "requests", "            self.in_flight_bytes -= asked.run.size_bytes\n", ""),
    Mutant("never give a peer its room back", "peers", "        self.in_flight -= 1\n", ""),
    Mutant(
        "do not see that a peer has room again",
        "peers",
        "        self.stirred[self.node] = self\n        self.in_flight -= 1\n",
        "        self.in_flight -= 1\n",
    ),
    Mutant(
        "ask a peer for one thing too many",
        "peers",
        "if self.strikes or self.in_flight >= policy.peer_in_flight:",
        "if self.strikes or self.in_flight > policy.peer_in_flight:",
    ),
    Mutant("have more in flight than may be", "request_desk", "if is_full and not urgent:", "if is_full and hedge:"),
    Mutant(
        "do not ask again what failed",
        "request_desk",
        "        self._ask_again(pull, asked, last=event.fault is Fault.BUSY)\n",
        "",
    ),
    Mutant(
        "give up a request and not say so",
        "request_desk",
        "        self._books.close(asked.number, now)\n        self._books.do(Abandon(asked.number))\n",
        "        self._books.close(asked.number, now)\n",
    ),
    Mutant(
        "let requests of a pull that is over go on",
        "pull_desk",
        "for asked in self._books.requests.of_image(pull.image):",
        "for asked in ():",
    ),
    Mutant(
        "leave pieces at work when a pull ends",
        "pull_desk",
        "if book.is_in(piece, PieceState.AT_WORK)], PieceState.WANTED)",
        "if book.is_in(piece, PieceState.WRITTEN)], PieceState.WANTED)",
    ),
    Mutant("open a piece and want it still", "fetch_desk", "        pull.wanted &= ~(1 << piece)\n", ""),
    Mutant(
        "forget how much is ahead",
        "fetch_desk",
        "        pull.ahead_bytes -= int(pull.missing_bytes[event.piece])\n",
        "",
    ),
    # Hosts and sessions.
    Mutant(
        "remember what a host had whose session ended",
        "request_desk",
        "            if pull.availability.drop(node):\n",
        "            if node in pull.availability:\n",
    ),
    Mutant("dial for ever", "finding_desk", "        self._books.dialling.discard(node)\n\n", "        pass\n\n"),
    Mutant(
        "stay subscribed to what nobody wants",
        "session_desk",
        "                self._books.do(Say(peer.node, Unsubscribe(image)))\n",
        "                pass\n",
    ),
    Mutant("keep sessions of no use", "session_desk", '                self._hang_up(peer, "idle")\n', ""),
    # Orders and readers.
    Mutant(
        "wait for ever for what nobody has",
        "pull_desk",
        "if order.priority is Priority.READ:",
        "if order.priority is not None:",
    ),
    Mutant(
        "give up at once", "pull_desk", "soon = nobody_since + self._books.policy.nobody_holds_s", "soon = nobody_since"
    ),
    Mutant(
        "answer readers before it is here",
        "reader_desk",
        "if not demand.lacking and image in self._books.images:",
        "if image in self._books.images:",
    ),
    Mutant(
        "leave readers without an answer",
        "reader_desk",
        "elif now >= demand.deadline:",
        "elif now >= demand.deadline + 1e9:",
    ),
    # Time.
    Mutant(
        "wake for what is now",
        "host",
        "if time is not None and now < time < inf), default=None)\n\n    def _moments",
        "if time is not None and now <= time < inf), default=None)\n\n    def _moments",
    ),
)
