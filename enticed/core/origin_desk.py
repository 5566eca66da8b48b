"""The origin desk: what nobody has is fetched from the origin, near once for a whole swarm.

For each piece one host is its owner, by rendezvous among all that are known to pull the image; the others wait until it
has the piece, and get it from there. While nobody gets anything, fewer are counted on: an owner may be gone, or may not
reach the origin. (Cooperative caching with a designated fetcher; as `picker` has it for racks.)
"""

from __future__ import annotations

from enticed.core.bitmaps import bits_of
from enticed.core.books import Books
from enticed.core.kin_desk import KinDesk
from enticed.core.peers import Peer
from enticed.core.pulls import Circle, Pull
from enticed.core.reach import Reach
from enticed.core.requests import Run
from enticed.core.vocabulary import ORIGIN
from protocol.identifiers import NodeId


class OriginDesk:
    def __init__(self, books: Books, kin: KinDesk) -> None:
        self._books = books
        self._kin = kin

    # --- what to fetch from it ---

    def may_have_manifest(self, pull: Pull, now: float) -> bool:
        """Whether it is to be asked for the manifest, which no host has that was found and reached."""
        if not self.can_be_counted_on(pull, now) or ORIGIN in pull.manifest_refused_by or pull.manifest_from:
            return False
        assert self._books.origin is not None
        looked = not self._books.awaits_answers(pull)
        return (looked or now >= pull.started_at + self._books.policy.origin_after_s) and (
            now >= self._books.origin.backoff_until
        )

    def look(self, pull: Pull, around: Reach, now: float) -> None:
        """Enter into `around` what this host is to fetch from the origin now, and what of it stands in line."""
        if not self._books.may_use_origin(pull.image):
            return
        nobodys = self._held_by_nobody(pull, around)
        in_line = [run for run in pull.runs if nobodys >> run.piece & 1]
        around.in_line_bytes = sum(run.size_bytes for run in in_line)
        around.from_origin = self._share(pull, around, bits_of({run.piece for run in in_line}), nobodys, now)

    def _share(self, pull: Pull, around: Reach, at_work: int, nobodys: int, now: float) -> int:
        """The pieces (bits) that nobody has, and that this host is to fetch.

        Those at work here are among them, whoever owns them: they were opened for somebody who is gone.
        """
        lacking, use = (pull.wanted & nobodys) | at_work, pull.origin
        if not lacking:
            use.needed_since = use.waits_since = None
            return 0
        if use.needed_since is None:
            use.needed_since = now
        opens_at = max(self._opens_at(pull, use.needed_since), use.shut_until)
        if now < opens_at or ORIGIN in pull.charged:
            return 0
        use.gained_at = max(use.gained_at, opens_at)
        if use.gains != pull.availability.gains:
            use.longest_gap_s = max(use.longest_gap_s, now - use.gained_at)
            use.gains, use.gained_at = pull.availability.gains, now
        mine = lacking & (at_work | self._owned(pull, around))
        if mine or pull.opening or self._books.requests.has_any_of(pull.image):
            use.waits_since = None
            return mine
        return self._wait(pull, around, lacking, now)

    def source(self, run: Run, around: Reach, now: float) -> Peer | None:
        """The origin, where it is to be asked for this run and can be asked for more."""
        origin = self._books.origin
        is_due = around.from_origin >> run.piece & 1
        return origin if origin is not None and is_due and origin.can_take(now, self._books.policy) else None

    def can_be_counted_on(self, pull: Pull, now: float) -> bool:
        """Whether an order waits for what the origin may yet bring."""
        origin, use = self._books.origin, pull.origin
        if origin is None or not self._books.may_use_origin(pull.image) or ORIGIN in pull.charged:
            return False
        return now >= use.shut_until and origin.strikes < self._books.policy.origin_strikes_max

    def moments(self, pull: Pull) -> list[float]:
        """Times at which something about it may change by itself."""
        origin, use = self._books.origin, pull.origin
        if origin is None or ORIGIN in pull.charged:
            return []
        times = [origin.backoff_until, use.shut_until, pull.started_at + self._books.policy.origin_after_s]
        if use.needed_since is not None:
            times.append(self._opens_at(pull, use.needed_since))
        if use.waits_since is not None:
            times.append(self._waits_until(pull, use.waits_since))
        return [*times, origin.stalls_at]

    def _opens_at(self, pull: Pull, needed_since: float) -> float:
        """Hosts with a relative come first: they are given the time that it takes to find them."""
        policy = self._books.policy
        return needed_since + policy.origin_after_s + (policy.kin_after_s if pull.relatives else 0.0)

    def _held_by_nobody(self, pull: Pull, around: Reach) -> int:
        """The pieces that no host has, here or in a relative, who is worth waiting for."""
        has = pull.availability
        return ~(has.held_by_any(node for node in has if node not in around.unreliable) | self._kin.covered(pull))

    # --- who fetches what ---

    def _owned(self, pull: Pull, around: Reach) -> int:
        """What this host owns in its circle, and what a reader here waits for."""
        use, book = pull.origin, self._books.images[pull.image]
        demands = self._books.demands.get(pull.image, {}).values()
        nodes = self._circle(pull, around)
        owned = use.owned.bring_to(self._books.me.node, nodes, book.pieces).pieces
        return owned | bits_of({piece for demand in demands for piece, _ in demand.lacking})

    def _circle(self, pull: Pull, around: Reach) -> frozenset[NodeId]:
        match pull.origin.circle:
            case Circle.SWARM:
                heard_of = {node for node in pull.named if node not in self._books.peers}
                return frozenset(heard_of.union(pull.availability) - around.unreliable - {self._books.me.node})
            case Circle.RACK:
                return around.mates
            case Circle.ALONE:
                return frozenset()

    def _wait(self, pull: Pull, around: Reach, lacking: int, now: float) -> int:
        """All that is left is others' to fetch: wait while they get anything, then count on fewer of them."""
        use = pull.origin
        if use.waits_since is None:
            use.waits_since = now
        if use.circle is Circle.ALONE or now < self._waits_until(pull, use.waits_since):
            return 0
        use.circle, use.waits_since, use.gained_at = Circle(use.circle + 1), now, now
        return lacking & self._owned(pull, around)

    def _waits_until(self, pull: Pull, since: float) -> float:
        """Not for ever, whatever others say that they get."""
        got_nothing_since = max(since, pull.origin.gained_at)
        return min(got_nothing_since + self._patience_s(pull), since + self._books.policy.origin_patience_most_s)

    def _patience_s(self, pull: Pull) -> float:
        """A slow origin keeps its owners waiting, too: nobody is overtaken who is not slow for what is usual."""
        patience_s = self._books.policy.origin_patience_s
        usual_s = max(self._books.requests.slow_after_s, 2 * pull.origin.longest_gap_s)
        return max(patience_s, min(usual_s, 4 * patience_s))
