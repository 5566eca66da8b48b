"""The kin desk: hosts that have a relative of an image, when those that have the image itself are too few or too busy.

Nothing happens until something that is wanted could be asked of nobody for a while. Then hosts with a relative are
looked for, the relative is learned from one of them, and runs that stand in line are looked for in it: who has the
relative is asked for the same fragments under the relative's own numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from enticed.core.availability import Availability
from enticed.core.bitmaps import bits_of_mask
from enticed.core.books import Books
from enticed.core.effects import Dial, FindProviders, ForgetRelatives, LearnRelative, LocateRun, Say
from enticed.core.events import RelativeLearned, RelativeUnlearned, RunLocated
from enticed.core.peers import Peer
from enticed.core.pulls import Kin, Pull
from enticed.core.requests import Run
from enticed.core.vocabulary import Contact, Mask
from protocol.identifiers import ImageId, NodeId
from protocol.messages import Subscribe

LEARN_TRIES = 2
"""Hosts from which learning a relative may fail: an order waits for it."""


class KinDesk:
    def __init__(self, books: Books) -> None:
        self._books = books

    # --- step by step ---

    def go_on(self, pull: Pull, now: float) -> None:
        """Do what is possible now to have a pull supplied by hosts with a relative, if it needs them."""
        if not pull.relatives:
            return
        if not pull.kin:
            since = self._starved_since(pull)
            if since is None or now < since + self._books.policy.kin_after_s:
                return
            for image in pull.relatives:
                pull.kin[image] = Kin(image)
                for peer in self._books.peers:
                    if self._books.may_hear(peer.node, image):
                        self._books.do(Say(peer.node, Subscribe(image)))
        for kin in pull.kin.values():
            self._seek(kin, now)
            self._learn(pull, kin, now)
        for run in pull.runs:
            if self.is_to_locate(pull, run) and run.request not in pull.locating:
                pull.locating[run.request] = pull.kin_learned
                self._books.do(LocateRun(run.request))

    def moments(self, pull: Pull) -> list[float]:
        """Times at which `go_on` may have something new to do."""
        if pull.kin:
            seeking = [kin.find_at for kin in pull.kin.values() if not kin.finding and self._room(kin) > 0]
            learning = [kin.learning_since for kin in pull.kin.values() if kin.learning_from is not None]
            return [*seeking, *(since + self._books.policy.kin_learn_s for since in learning)]
        since = self._starved_since(pull) if pull.relatives else None
        return [] if since is None else [since + self._books.policy.kin_after_s]

    def _starved_since(self, pull: Pull) -> float | None:
        """Since when there has been something that could be asked of nobody."""
        times = [run.since for run in pull.runs]
        times += [since for since in (pull.nobody_since, pull.origin.needed_since) if since is not None]
        return min(times, default=None)

    def end(self, pull: Pull) -> None:
        if pull.kin:
            self._books.do(ForgetRelatives(pull.image))

    # --- finding hosts ---

    def _seek(self, kin: Kin, now: float) -> None:
        if kin.finding or now < kin.find_at or self._room(kin) <= 0:
            return
        policy = self._books.policy
        kin.finding = True
        kin.find_pause_s = min(policy.find_last_s, max(policy.find_first_s, 2 * kin.find_pause_s))
        kin.find_at = now + kin.find_pause_s
        self._books.do(FindProviders(kin.image))

    def _room(self, kin: Kin) -> int:
        """How many more hosts to get to know."""
        return self._books.policy.kin_degree - sum(1 for _ in kin.availability)

    def found(self, image: ImageId, contacts: Iterable[Contact]) -> None:
        """Hosts that may have what is a relative of some image being pulled."""
        for pull in self._books.pulls.values():
            kin = pull.kin.get(image)
            if kin is not None:
                kin.finding = False
                self.meet(kin, contacts)

    def meet(self, kin: Kin, contacts: Iterable[Contact]) -> None:
        """Dial as many of these hosts as are worth knowing; those with a session have been asked already."""
        books = self._books
        known = {books.me.node, *books.dialling, *kin.charged}
        new = [contact for contact in contacts if contact.node not in known and contact.node not in books.peers]
        books.dice.shuffle(new)
        room = min(self._room(kin), books.policy.dialled_max - books.peers.dialled - len(books.dialling))
        for contact in new[: max(0, room)]:
            books.dialling.add(contact.node)
            books.do(Dial(contact))

    def peer_lost(self, node: NodeId, now: float) -> None:
        for pull in self._books.pulls.values():
            for kin in pull.kin.values():
                if kin.availability.drop(node):
                    kin.find_pause_s = 0.0
                    kin.find_at = min(kin.find_at, now + self._books.policy.find_first_s)

    # --- what they have of the image ---

    def _learn(self, pull: Pull, kin: Kin, now: float) -> None:
        if kin.learning_from is not None and now >= kin.learning_since + self._books.policy.kin_learn_s:
            self._give_up(kin, kin.learning_from)  # what it may still send is taken all the same
        if kin.learned or kin.learning_from is not None or len(kin.unlearned_from) >= LEARN_TRIES:
            return
        peers = self._books.peers.known(kin.availability)
        able = [peer for peer in peers if peer.node not in kin.unlearned_from and now >= peer.backoff_until]
        if able:
            nearest = min(able, key=lambda peer: (not peer.same_rack, not peer.same_zone))
            kin.learning_from, kin.learning_since = nearest.node, now
            self._books.do(LearnRelative(pull.image, kin.image, nearest.node))

    def learned(self, pull: Pull, event: RelativeLearned) -> None:
        kin = pull.kin.get(event.relative)
        if kin is None or kin.learned:
            return
        kin.learned, kin.learning_from = True, None
        kin.availability.settle(event.pieces)
        pull.shared_bytes = pull.shared_bytes + event.shared_bytes
        pull.kin_learned += 1

    def unlearned(self, pull: Pull, event: RelativeUnlearned) -> None:
        kin = pull.kin.get(event.relative)
        if kin is not None and kin.learning_from == event.node:
            self._give_up(kin, event.node)

    def _give_up(self, kin: Kin, node: NodeId) -> None:
        kin.learning_from = None
        kin.unlearned_from.add(node)

    def is_to_locate(self, pull: Pull, run: Run) -> bool:
        """Whether a run is to be looked for in the relatives before it is asked for: soon, since this takes no time."""
        is_new = run.elsewhere is None and run.located < pull.kin_learned
        return is_new and bool(pull.shared_bytes[run.piece] > 0)

    def located(self, pull: Pull, event: RunLocated, now: float) -> None:
        """Put what the run consists of in its place; what lies in a relative has time anew to be asked for there."""
        learned = pull.locating.pop(event.run, None)
        if learned is None:
            return
        line: deque[Run] = deque()
        for run in pull.runs:
            if run.request != event.run or run.elsewhere is not None:
                line.append(run)
                continue
            for span in event.spans:
                since = run.since if span.elsewhere is None else now
                part = replace(run, first=span.first, count=span.count, size_bytes=span.size_bytes, since=since)
                line.append(replace(part, located=learned, elsewhere=span.elsewhere))
            pull.outstanding[run.piece] += len(event.spans) - 1
        pull.runs = line

    # --- what that comes to ---

    def supplies(self, pull: Pull) -> list[Availability]:
        """Who has what of the relatives that were learned."""
        return [kin.availability for kin in pull.kin.values() if kin.learned] if pull.kin_learned else []

    def rarity(self, pull: Pull) -> NDArray[np.int32]:
        """Per piece: how many hosts have it; hosts that have all of a relative that holds it count as one."""
        rarity = pull.availability.rarity
        return rarity + self._covered(pull) if pull.kin_learned else rarity

    def covered(self, pull: Pull) -> int:
        """Pieces (bits) of which hosts with all of a relative have what is missing."""
        return bits_of_mask(self._covered(pull)) if pull.kin_learned else 0

    def has_able(self, pull: Pull, able: list[Peer]) -> bool:
        """Whether one of the `able` has all of a relative."""
        wholes = self._wholes(pull)
        return any(peer.node in wholes for peer in able)

    def _covered(self, pull: Pull) -> Mask:
        if not self._wholes(pull):
            return np.zeros(len(pull.shared_bytes), np.bool_)
        covered: Mask = (pull.shared_bytes > 0) & (pull.shared_bytes >= pull.missing_bytes)
        return covered

    def _wholes(self, pull: Pull) -> set[NodeId]:
        """Partial holders are used, but not counted on: whether they have the right pieces shows run by run."""
        return {node for kin in pull.kin.values() if kin.learned for node in kin.availability.seeds}
