"""The finding desk: which hosts may have an image, and whom of them to dial."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, inf

from enticed.core.books import Books
from enticed.core.effects import Dial, FindProviders, Say
from enticed.core.peers import Peer
from enticed.core.pulls import AskedAnew, Pull
from enticed.core.vocabulary import Contact
from protocol.identifiers import NodeId
from protocol.messages import Subscribe


class FindingDesk:
    def __init__(self, books: Books) -> None:
        self._books = books

    def seek(self, pull: Pull, now: float) -> None:
        """Look providers up when it is time: after ever longer pauses, but often before orders fail for want of any."""
        if pull.dial_at is not None and now >= pull.dial_at:
            self._dial_more(pull, now)
        if pull.finding:
            return
        is_again = pull.find_again_at is not None and now >= pull.find_again_at
        if is_again:
            pull.find_again_at = None
        if now >= pull.find_at:
            self._plan_next(pull, now)
            self._find(pull)
            if pull.nobody_since is not None:
                self._ask_anew(pull, now - pull.nobody_since, now)
        elif is_again and _knows_nobody(pull):
            self._find(pull)

    def _find(self, pull: Pull) -> None:
        pull.finding = True
        self._books.do(FindProviders(pull.image))

    def _plan_next(self, pull: Pull, now: float) -> None:
        policy = self._books.policy
        pull.find_pause_s = min(policy.find_last_s, max(policy.find_first_s, 2 * pull.find_pause_s))
        if pull.nobody_since is not None and now < pull.nobody_since + policy.nobody_holds_s:
            pull.find_pause_s = policy.find_first_s
        if pull.origin.needed_since is not None:  # who does not know the others fetches from the origin what they do
            pull.find_pause_s = min(pull.find_pause_s, policy.origin_find_s)
        pull.find_at = now + pull.find_pause_s

    def _ask_anew(self, pull: Pull, for_s: float, now: float) -> None:
        """Nobody has what is missing for so long. Who refused some of it may have it after all.

        The last time is kept for when orders are about to fail. Those that wait for longer have it tried now and then.
        """
        policy = self._books.policy
        most = policy.ask_anew_max if for_s >= policy.nobody_holds_s / 2 else policy.ask_anew_max - 1
        for node, anew in list(pull.refused_by.items()):
            if node in pull.availability and (anew.times < most or now >= anew.at + policy.find_last_s):
                pull.refused_by[node] = AskedAnew(anew.times + 1, now)
                self._books.do(Say(node, Subscribe(pull.image)))

    def hurry(self, pull: Pull, now: float) -> None:
        """A host that was of use is gone, or nobody has what is missing: do not sit out a long pause."""
        pull.find_pause_s = min(pull.find_pause_s, self._books.policy.find_first_s)
        pull.find_at = min(pull.find_at, now + pull.find_pause_s)

    def found(self, pull: Pull, providers: Iterable[Contact], mates: Iterable[Contact], now: float) -> None:
        """Hosts that may have the image: dial as many as are worth knowing, ask those that are known already."""
        providers = tuple(providers)
        for contact in (*providers, *mates):
            known = pull.contacts.get(contact.node)
            if contact.node == self._books.me.node or (known is not None and known.rack and not contact.rack):
                continue
            if known is not None or len(pull.contacts) < self._books.policy.contacts_max:
                pull.contacts[contact.node] = contact
                pull.hearsay.pop(contact.node, None)
        pull.named.update(contact.node for contact in providers if contact.node in pull.contacts)
        if not providers and pull.nobody_since is not None:
            self._recall(pull)
        self._meet(pull, now)

    def remember(self, contact: Contact) -> None:
        """There is a session with this host: it may be asked again when nobody can be found."""
        acquaintances = self._books.acquaintances
        acquaintances.pop(contact.node, None)
        acquaintances[contact.node] = contact
        if len(acquaintances) > self._books.policy.acquaintances_max:
            del acquaintances[next(iter(acquaintances))]

    def _recall(self, pull: Pull) -> None:
        """Lookups find nobody, perhaps because there is no DHT any more: hosts that we knew may have the image."""
        for contact in self._books.acquaintances.values():
            if len(pull.hearsay) < self._books.policy.hearsay_max and contact.node not in pull.contacts:
                pull.contacts[contact.node] = contact
                pull.hearsay[contact.node] = None

    def heard_of(self, pull: Pull, contacts: Iterable[Contact], by: NodeId, now: float) -> None:
        """Hosts that another peer names: it may be wrong, so it displaces nobody whom this host knows of otherwise, and
        is heard no more once too many of them could not be reached."""
        if pull.hearsay_in_vain[by] >= self._books.policy.hearsay_in_vain_max:
            return
        for contact in contacts:
            room = len(pull.hearsay) < self._books.policy.hearsay_max
            if room and contact.node != self._books.me.node and contact.node not in pull.contacts:
                pull.contacts[contact.node] = contact
                pull.hearsay[contact.node] = by
                pull.named.add(contact.node)
        self._meet(pull, now)

    def _meet(self, pull: Pull, now: float) -> None:
        for contact in list(pull.contacts.values()):
            known_to_have = contact.node in pull.availability or contact.node not in self._books.peers
            if not known_to_have and self._is_due(pull, contact.node, now):  # it had nothing once, and may have by now
                self.ask(pull, contact.node, now)
        self._dial_more(pull, now)

    def ask(self, pull: Pull, node: NodeId, now: float) -> None:
        """Ask a host with a session what it has of the image, now and from now on; unless it is not to hear of it."""
        if not self._books.may_hear(node, pull.image):
            return
        pull.asked.add(node)
        pull.dialled_at[node] = now
        self._books.do(Say(node, Subscribe(pull.image)))

    def met(self, contact: Contact) -> None:
        """There is a session with this host, and so it is known where it is: a mate takes no place outside the rack."""
        is_one_more = len(self._books.peers) >= self._books.policy.degree
        if is_one_more and contact.node in self._books.dialling and self._is_near(contact):
            for pull in self._books.pulls.values():
                dialled = pull.contacts.get(contact.node)
                pull.outside_in_vain += dialled is not None and not dialled.rack
        self.reached(contact.node)

    def reached(self, node: NodeId) -> None:
        self._books.dialling.discard(node)

    def unreachable(self, node: NodeId, reason: str, now: float) -> None:
        """Forget the host until somebody names it again, and dial another in its place."""
        self._books.dialling.discard(node)
        self._books.acquaintances.pop(node, None)
        for pull in self._books.pulls.values():
            if node in pull.asked:
                pull.answers[node] = f"cannot be reached: {reason}"
            if pull.contacts.pop(node, None) is not None:
                by = pull.hearsay.pop(node, None)
                if by is not None:
                    pull.hearsay_in_vain[by] += 1
                pull.named.discard(node)
                self._dial_more(pull, now)

    def answered(self, pull: Pull, peer: Peer, now: float) -> None:
        """A peer has said for the first time what it has of the image: it may be the turn of the next stranger."""
        is_supplied = self._is_mate(peer.contact) and peer.node in pull.availability
        if pull.dial_at is not None and not is_supplied:
            self._dial_more(pull, now)

    def _dial_more(self, pull: Pull, now: float) -> None:
        for contact in self._to_dial(pull, now):
            pull.dialled_at[contact.node] = now
            pull.asked.add(contact.node)
            self._books.dialling.add(contact.node)
            self._books.do(Dial(contact))
        if pull.find_again_at is None and _knows_nobody(pull) and not all(map(self._is_mate, pull.contacts.values())):
            self._plan_another(pull, now)

    def _plan_another(self, pull: Pull, now: float) -> None:
        """Strangers were found, and nobody is known yet: look again before it is time, now and then less often."""
        pull.find_again_pause_s = max(self._books.policy.find_again_s, 2 * pull.find_again_pause_s)
        again_at = now + pull.find_again_pause_s * float(self._books.dice.uniform(0.5, 1.5))
        if again_at < pull.find_at:
            pull.find_again_at = again_at

    def _to_dial(self, pull: Pull, now: float) -> list[Contact]:
        """Whom to dial now: mates, then strangers whose turn it is, then hosts of whom only a peer has told; and notes
        when it is the turn of other strangers."""
        policy, books = self._books.policy, self._books
        under_way = [contact for node, contact in pull.contacts.items() if node in books.dialling]
        by_hearsay = sum(contact.node in pull.hearsay for contact in under_way)
        dials_left = max(0, policy.dials_at_once - (len(under_way) - by_hearsay))
        hearsay_left = max(0, min(policy.degree, policy.dials_at_once) // 2 - by_hearsay)
        room, kept = self._room(pull, under_way, now)
        places = max(0, min(max(room, kept), policy.dialled_max - books.peers.dialled - len(books.dialling)))

        waiting = [contact for node, contact in pull.contacts.items() if self._may_dial(pull, node, now)]
        books.dice.shuffle(waiting)
        named = [contact for contact in waiting if contact.node in pull.hearsay]
        known = [contact for contact in waiting if contact.node not in pull.hearsay]
        mates = [contact for contact in known if self._is_mate(contact)]
        strangers = [contact for contact in known if not self._is_mate(contact)]
        strangers.sort(key=lambda contact: pull.dialled_at.get(contact.node, -inf))

        mates = mates[: max(0, room - min(kept, len(strangers)))][:dials_left]
        turns, next_at = self._turns_of_strangers(pull, len(strangers), under_way, now)
        turns = min(turns, max(0, min(dials_left, places) - len(mates)))
        pull.dial_at = next_at if turns < len(strangers) else None
        # Strangers whose turn is yet to come keep their places.
        hearsay_left = min(hearsay_left, max(0, places - len(mates) - len(strangers)))
        return [*mates, *strangers[:turns], *named[:hearsay_left]][:places]

    def _room(self, pull: Pull, under_way: list[Contact], now: float) -> tuple[int, int]:
        """How many more hosts are wanted for the image, up to `degree`, and how many places are kept for those outside
        the rack, however many mates have dialled. Once nobody has what is missing for long, nobody known counts.
        """
        policy, books = self._books.policy, self._books
        useful = [peer for peer in books.peers if self._is_useful(pull, peer)]
        if pull.nobody_since is not None and now >= pull.nobody_since + policy.wider_after_s:
            useful = []
        near = sum(peer.same_rack for peer in useful) + sum(map(self._is_near, under_way))
        far = len(useful) + len(under_way) - near
        kept = max(0, min(policy.degree, policy.degree_outside_rack) - far)
        if not books.me.rack or pull.outside_in_vain >= policy.outside_in_vain_max:
            kept = 0
        return max(0, policy.degree - near - far), kept

    def _turns_of_strangers(self, pull: Pull, waiting: int, under_way: list[Contact], now: float) -> tuple[int, float]:
        """How many strangers may be dialled now, and when others: one that does not answer is not waited for for long,
        and once nobody has what is missing for a while all are dialled."""
        policy = self._books.policy
        patience_s = policy.stranger_patience_s
        if pull.nobody_since is not None and now >= pull.nobody_since + policy.strangers_all_after_s:
            return waiting, now + patience_s
        dialled = [one.node for one in under_way if not self._is_mate(one) and one.node not in pull.hearsay]
        waited_for = [at for node in dialled if now < (at := pull.dialled_at.get(node, -inf)) + patience_s]
        turns = max(0, ceil(policy.strangers_share * (waiting + len(dialled))) - len(waited_for))
        return turns, min(waited_for, default=now) + patience_s

    def _is_useful(self, pull: Pull, peer: Peer) -> bool:
        """Whether a peer has or wants some of the image, or was asked and has not answered yet."""
        if peer.node in pull.availability or pull.image in peer.subscriptions:
            return True
        return peer.node in pull.asked and peer.node not in pull.answers

    def _may_dial(self, pull: Pull, node: NodeId, now: float) -> bool:
        books = self._books
        return node not in books.peers and node not in books.dialling and self._is_due(pull, node, now)

    def _is_due(self, pull: Pull, node: NodeId, now: float) -> bool:
        last = pull.dialled_at.get(node)
        return node not in pull.charged and (last is None or now >= last + self._books.policy.dial_retry_s)

    def _is_mate(self, contact: Contact) -> bool:
        """Whether it is known to be in the same rack."""
        return bool(contact.rack) and self._is_near(contact)

    def _is_near(self, contact: Contact) -> bool:
        return (contact.zone, contact.rack) == (self._books.me.zone, self._books.me.rack)


def _knows_nobody(pull: Pull) -> bool:
    """Whether no peer has said what it has of the image, be it nothing yet: whoever has the manifest says something."""
    return next(iter(pull.availability), None) is None
