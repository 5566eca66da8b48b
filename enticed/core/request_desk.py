"""The request desk: which host is asked for what, and what follows from its answer, or from none."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from enticed.core.books import Books
from enticed.core.disk_desk import DiskDesk
from enticed.core.effects import Abandon, Fetch, Say
from enticed.core.events import FetchFailed
from enticed.core.finding_desk import FindingDesk
from enticed.core.goods_desk import GoodsDesk
from enticed.core.image_book import PieceState, Supply
from enticed.core.kin_desk import KinDesk
from enticed.core.orders import Failure
from enticed.core.origin_desk import OriginDesk
from enticed.core.peers import Peer
from enticed.core.picker import pick_source
from enticed.core.pull_desk import PullDesk
from enticed.core.pulls import AskedAnew, Pull
from enticed.core.reach import Reach
from enticed.core.reader_desk import ReaderDesk
from enticed.core.requests import Asked, Run
from enticed.core.vocabulary import ORIGIN, Fault
from protocol.identifiers import NodeId
from protocol.messages import Charge, FragmentsRequest

RATE_INTERVAL_S = 0.5


class RequestDesk:
    def __init__(
        self,
        books: Books,
        disk: DiskDesk,
        finding: FindingDesk,
        pulls: PullDesk,
        goods: GoodsDesk,
        kin: KinDesk,
        origin: OriginDesk,
        readers: ReaderDesk,
    ) -> None:
        self._books = books
        self._kin = kin
        self._origin = origin
        self._disk = disk
        self._finding = finding
        self._pulls = pulls
        self._goods = goods
        self._readers = readers

    # --- asking ---

    def ask(self, pull: Pull, around: Reach, now: float) -> None:
        """Ask for every run that somebody has who can be asked now; the rest stays in line. Readers come first."""
        if pull.urgent or pull.foreseen:
            self._ask_for_readers(pull, around, now)
        if not pull.runs or not (around.able or around.from_origin):
            return
        policy, room_bytes = self._books.policy, self._room_beside_readers(pull, now)
        self._keep_to_sources(around)
        offered, has_spared = self._offered(pull, around)
        waiting, pull.runs = pull.runs, deque()
        for run in waiting:
            is_offered = offered >> run.piece & 1 or run.elsewhere is not None
            is_offered = is_offered or (has_spared and now >= run.since + policy.holder_patience_s)
            may_ask = is_offered and run.size_bytes <= room_bytes and not self._kin.is_to_locate(pull, run)
            if may_ask and self._ask_for(pull, run, around, now):
                pull.ahead_bytes -= run.size_bytes
                room_bytes -= run.size_bytes
                self._keep_to_sources(around)
            else:
                pull.runs.append(run)

    def _keep_to_sources(self, around: Reach) -> None:
        """Where as many are asked as may be, strike off all others; who is not worth waiting for does not count."""
        sources, most = self._books.requests.sources, self._books.policy.sources_max
        if len(sources) >= most and len(sources - around.unreliable) >= most:
            around.able = [peer for peer in around.able if peer.in_flight]

    def _offered(self, pull: Pull, around: Reach) -> tuple[int, bool]:
        """The pieces (bits) that somebody can be asked for at once, and whether some can be asked for more of them who
        are spared until those have waited: see `_source`."""
        has = pull.availability
        offered, has_seed = has.offered_by(around.able, around.near_only)
        if has_seed:
            offered |= ~around.theirs if around.spares_seeds else -1
        return offered | around.from_origin, has_seed or around.near_only != 0

    def _ask_for_readers(self, pull: Pull, around: Reach, now: float) -> None:
        """What readers wait for is asked of somebody even where all are at their limits; what they will want, within
        a small one."""
        for _ in range(len(pull.urgent)):
            run = pull.urgent.popleft()
            if self._ask_for(pull, run, self._widened(pull, run, around, now), now, urgent=True):
                self._readers.asked(pull)
            else:
                pull.urgent.append(run)
        under_way_bytes = self._under_way_bytes(pull)
        for _ in range(len(pull.foreseen)):
            if under_way_bytes >= self._books.policy.foreseen_bytes:
                return
            run = pull.foreseen.popleft()
            if self._ask_for(pull, run, around, now):
                under_way_bytes += run.size_bytes
            else:
                pull.foreseen.append(run)

    def _widened(self, pull: Pull, run: Run, around: Reach, now: float) -> Reach:
        if pull.availability.holders(around.able, run.piece):
            return around
        holders = pull.availability.holders(self._books.holders(pull), run.piece)
        return replace(around, able=[peer for peer in holders if now >= peer.backoff_until])

    def _room_beside_readers(self, pull: Pull, now: float) -> float:
        """While readers are about, little of the rest is under way: what they want waits behind it."""
        if not self._readers.are_about(pull, now):
            return math.inf
        under_way_bytes = self._under_way_bytes(pull)
        return self._books.policy.beside_readers_bytes - under_way_bytes if under_way_bytes else math.inf

    def _under_way_bytes(self, pull: Pull) -> int:
        return sum(one.run.size_bytes for one in self._books.requests.of_image(pull.image))

    def _ask_for(
        self, pull: Pull, run: Run, around: Reach, now: float, *, hedge: bool = False, urgent: bool = False
    ) -> bool:
        """Ask somebody for a run; who can take no more then is struck off."""
        policy, requests = self._books.policy, self._books.requests
        is_full = requests.in_flight_bytes + run.size_bytes > requests.most_bytes and len(requests) > 0
        if is_full and not urgent:
            return False
        wanted, source = self._source(pull, run, around, now, urgent=urgent)
        if source is None and not hedge and not self._is_in_relative(pull, run):
            wanted, source = run.request, self._origin.source(run, around, now)
        if source is None:
            return False
        asked = requests.ask(source.node, run, wanted, source.in_flight_bytes, now, hedge=hedge)
        source.asked(run.size_bytes, policy.stall_s if source.node == ORIGIN else requests.stalled_after_s, now)
        if source in around.able and not source.can_take(now, policy):
            around.able.remove(source)
        self._books.do(Fetch(asked.number, source.node, wanted, run.request))
        return True

    def _source(
        self, pull: Pull, run: Run, around: Reach, now: float, *, urgent: bool
    ) -> tuple[FragmentsRequest, Peer | None]:
        """What to ask of whom: a host with the image, else one with a relative.

        A seed is asked for what others have too only after `holder_patience_s`, as long as seeds are few: what they
        send is what the rest of the swarm waits for. So is a host outside the rack for what a mate has: what enters a
        rack waits at its uplink.
        """
        has, elsewhere = pull.availability, run.elsewhere
        relative = pull.kin[elsewhere.image].availability if elsewhere is not None else None
        others = bool(around.theirs >> run.piece & 1)
        if elsewhere is not None and relative is not None:
            others = others or relative.rarity[elsewhere.piece] > 0
        is_patient = not urgent and now < run.since + self._books.policy.holder_patience_s
        spare_seeds = is_patient and others and around.spares_seeds
        spare_far = is_patient and bool(around.near_only >> run.piece & 1)
        holders = has.holders(around.able, run.piece)
        source = pick_source(holders, has.seeds, run, spare_seeds=spare_seeds, spare_far=spare_far)
        if source is not None or elsewhere is None or relative is None:
            return run.request, source
        holders = relative.holders(around.able, elsewhere.piece)
        return elsewhere, pick_source(holders, relative.seeds, run)

    def _is_in_relative(self, pull: Pull, run: Run) -> bool:
        """Whether a host has the run in a relative, though it may be busy."""
        where = run.elsewhere
        return where is not None and bool(pull.kin[where.image].availability.rarity[where.piece] > 0)

    def hedge(self, pull: Pull, around: Reach, now: float) -> None:
        """Ask a second peer for what is slow.

        Where the first has never sent anything, at any time: it will hardly be sent twice. Else once there is nothing
        else to ask for, and within a small share of the image. Where two were asked and are slow, who has never sent
        anything is given up for a third who has.
        """
        self._hedge_for_readers(pull, around, now)
        is_all_asked = self._is_all_asked(pull)
        if not (is_all_asked or around.unreliable):
            return
        slow_after_s = self._books.requests.slow_after_s
        for twins in self._by_run(pull):
            if now < twins[-1].at + slow_after_s or (len(twins) > 1 and not self._give_up_silent(twins, around, now)):
                continue
            asked = twins[0]
            is_silent = self._is_silent(asked.node, around)
            may_ask = is_silent or (is_all_asked and self._may_come_twice(pull, asked.run))
            if may_ask and self._ask_a_second(pull, asked, around, now, anybody=is_all_asked) and not is_silent:
                pull.hedged_bytes += asked.run.size_bytes

    def _give_up_silent(self, twins: list[Asked], around: Reach, now: float) -> bool:
        """Take one who has never sent anything out of the two, if a third can be asked who has; whether that is so."""
        silent = next((asked for asked in twins if self._is_silent(asked.node, around)), None)
        peer = self._books.source(silent.node) if silent is not None else None
        if silent is None or peer is None:
            return False
        able = [one for one in around.able if one.bytes_per_s and all(one.node != asked.node for asked in twins)]
        if not self._books.pulls[silent.run.image].availability.holders(able, silent.run.piece):
            return False
        twins.remove(silent)
        self._abandon(silent, now)
        peer.failed(now, self._books.policy)
        return True

    def _may_come_twice(self, pull: Pull, run: Run) -> bool:
        policy, total_bytes = self._books.policy, self._books.images[pull.image].total_bytes
        return pull.hedged_bytes + run.size_bytes <= policy.hedge_share * total_bytes + policy.request_bytes

    def _ask_a_second(self, pull: Pull, asked: Asked, around: Reach, now: float, *, anybody: bool) -> bool:
        """Ask one who has sent something before, since two who are silent would be as good as one; or else anybody."""
        others = [peer for peer in around.able if peer.node != asked.node and peer.can_take(now, self._books.policy)]
        proven = [peer for peer in others if peer.bytes_per_s]
        return self._ask_besides(pull, asked.run, around, proven, now) or (
            anybody and self._ask_besides(pull, asked.run, around, others, now)
        )

    def _ask_besides(
        self, pull: Pull, run: Run, around: Reach, able: list[Peer], now: float, *, urgent: bool = False
    ) -> bool:
        """Ask one of `able` for a run that another was asked for; who can take no more then is struck off."""
        if not self._ask_for(pull, run, replace(around, able=able), now, hedge=True, urgent=urgent):
            return False
        around.able = [peer for peer in around.able if peer.can_take(now, self._books.policy)]
        return True

    def _is_silent(self, node: NodeId, around: Reach) -> bool:
        peer = self._books.source(node)
        return peer is not None and not peer.bytes_per_s and node in around.unreliable

    def _hedge_for_readers(self, pull: Pull, around: Reach, now: float) -> None:
        if pull.quiet_at is None:
            return  # no reader has ever waited for any of it
        for asked in self._unhedged(pull):
            if asked.run.for_reader and now >= asked.at + self._books.policy.reader_hedge_s:
                able = [peer for peer in around.able if peer.node != asked.node]
                self._ask_besides(pull, asked.run, around, able, now, urgent=True)

    def next_hedge_for_reader(self, pull: Pull, now: float) -> float | None:
        """When the next request for a reader becomes slow."""
        slow_after_s = self._books.policy.reader_hedge_s
        times = (asked.at + slow_after_s for asked in self._unhedged(pull) if asked.run.for_reader)
        return min((time for time in times if time > now), default=None)

    def _by_run(self, pull: Pull) -> list[list[Asked]]:
        """The requests for each run: one, or two where it was hedged, the later one last."""
        by_run: dict[int, list[Asked]] = {}
        for asked in self._books.requests.of_image(pull.image):
            by_run.setdefault(id(asked.run), []).append(asked)
        return list(by_run.values())

    def _unhedged(self, pull: Pull) -> list[Asked]:
        return [twins[0] for twins in self._by_run(pull) if len(twins) == 1]

    def _is_all_asked(self, pull: Pull) -> bool:
        """Whether all that is still missing has been asked for, by this host or, as far as it knows, by others in its
        rack: all of them may wait for what one of them waits for."""
        book = self._books.images[pull.image]
        is_wanting = bool(book.counts[PieceState.WANTED]) and pull.starved_since is None
        return not (pull.runs or pull.opening or is_wanting) and bool(pull.outstanding)

    def next_hedge(self, pull: Pull, now: float) -> float | None:
        """When the next run is slow to come from all who were asked for it; None while there is more to ask for."""
        if not self._is_all_asked(pull):
            return None
        slow_after_s = self._books.requests.slow_after_s
        times = (twins[-1].at + slow_after_s for twins in self._by_run(pull))
        return min((time for time in times if time > now), default=None)

    # --- answers ---

    def fetched(self, number: int, now: float) -> None:
        if (asked := self._books.close(number, now)) is None:
            return
        run = asked.run
        self._books.requests.timed(asked, now)
        peer = self._books.source(asked.node)
        if peer is not None:
            peer.delivered(run.size_bytes, now - asked.at, self._books.policy)
        for other in self._books.requests.twins(asked):  # a hedge that lost, or was overtaken by the first
            self._abandon(other, now)
            loser = self._books.source(other.node)
            if loser is not None and not loser.bytes_per_s and now >= other.at + self._books.policy.stall_s / 2:
                loser.failed(now, self._books.policy)
        pull = self._books.pulls[run.image]
        supply = Supply.ORIGIN if asked.node == ORIGIN else Supply.PEERS
        self._books.images[run.image].bytes_from[supply] += run.size_bytes
        pull.got(run.piece, asked.node)
        if pull.refused_by:
            pull.refused_by = dict.fromkeys(pull.refused_by, AskedAnew())
        pull.answers.pop(asked.node, None)
        self._measure(pull, run.size_bytes, now)
        self._readers.arrived(run.image, run.piece, run.indices)
        if run.for_reader:
            pull.was_read(run.piece, run.size_bytes)
            return
        pull.outstanding[run.piece] -= 1
        if pull.outstanding[run.piece] == 0:
            del pull.outstanding[run.piece]
            self._goods.written(pull, run.piece, now)

    def failed(self, event: FetchFailed, now: float) -> None:
        asked = self._books.close(event.request, now)
        if asked is None:
            return
        pull = self._books.pulls[asked.run.image]
        if event.fault is Fault.LOCAL:
            self._disk.hinder(pull.image, event.failure or Failure.DISK, event.reason, now)
            return
        peer = self._books.source(asked.node)
        if peer is not None:
            self._blame(peer, asked, event, pull, now)
        self._ask_again(pull, asked, last=event.fault is Fault.BUSY)
        if asked.wanted.image == pull.image:
            self._finding.heard_of(pull, event.alternatives, asked.node, now)
        else:
            self._kin.meet(pull.kin[asked.wanted.image], event.alternatives)
        if event.fault not in (Fault.BUSY, Fault.REFUSED) or asked.node == ORIGIN:
            self._pulls.note_trouble(pull, asked.node, event.reason)

    def _blame(self, peer: Peer, asked: Asked, event: FetchFailed, pull: Pull, now: float) -> None:
        wanted = asked.wanted
        ledger = pull if wanted.image == pull.image else pull.kin[wanted.image]
        match event.fault:
            case Fault.BUSY:
                pull.answers[peer.node] = "is busy"
                peer.is_busy(now, event.retry_after_s, self._books.policy)
            case Fault.REFUSED:
                pull.answers[peer.node] = event.reason
                ledger.availability.change(peer.node, (), (wanted.piece,))
                peer.failed(now, self._books.policy)
                pull.refused_by.setdefault(peer.node, AskedAnew())
                if peer.node == ORIGIN:
                    pull.origin.shut_until = now + self._books.policy.origin_shut_s
            case Fault.CORRUPT:
                ledger.charged.add(peer.node)
                ledger.availability.drop(peer.node)
                if peer.node != ORIGIN:  # which cannot be told
                    self._books.do(Say(peer.node, Charge(wanted.image, wanted.piece, event.fragment or 0)))
                for other in self._books.requests.of_node(peer.node):
                    # What else it was asked for may be no better.
                    if other.run.image == pull.image and other.wanted.image == wanted.image:
                        self._abandon(other, now)
                        self._ask_again(pull, other)
            case _ if peer.node == ORIGIN and now < peer.backoff_until:
                pass  # of the same moment as the fault before: all that it was asked fails at once
            case _:
                peer.failed(now, self._books.policy)

    def expire(self, now: float) -> None:
        """Requests that took too long are abandoned and asked elsewhere; their peers pause."""
        for asked in self._books.requests.overdue(now):
            self._books.do(Abandon(asked.number))
            self.failed(FetchFailed(asked.number, Fault.SILENT, "did not answer in time"), now)

    def peer_lost(self, node: NodeId, reason: str, now: float) -> None:
        """A session ended, and with it every request of it."""
        self._finding.reached(node)
        self._books.peers.remove(node)
        self._books.uploads.forget(node)
        for asked in self._books.requests.of_node(node):
            self._abandon(asked, now)
            self._ask_again(self._books.pulls[asked.run.image], asked)
        for pull in self._books.pulls.values():
            if node in pull.asked:
                pull.answers[node] = reason
            if pull.availability.drop(node):
                self._finding.hurry(pull, now)
            if pull.manifest_from == node:
                pull.manifest_from = None
        self._kin.peer_lost(node, now)

    def _abandon(self, asked: Asked, now: float) -> None:
        self._books.close(asked.number, now)
        self._books.do(Abandon(asked.number))

    def _ask_again(self, pull: Pull, asked: Asked, *, last: bool = False) -> None:
        """Put it back in line; last, where whoever was asked is busy: others may be asked for the rest."""
        if self._books.requests.twins(asked):
            return  # its twin may yet bring it
        if asked.run.for_reader:
            if self._readers.is_waited_for(asked.run):
                pull.urgent.appendleft(asked.run)
        else:
            (pull.runs.append if last else pull.runs.appendleft)(asked.run)
            pull.ahead_bytes += asked.run.size_bytes

    def _measure(self, pull: Pull, size_bytes: int, now: float) -> None:
        pull.rate_bytes += size_bytes
        passed_s = now - pull.rate_since
        if passed_s >= RATE_INTERVAL_S:
            rate = pull.rate_bytes / passed_s
            pull.bytes_per_s = rate if pull.bytes_per_s == 0 else 0.7 * pull.bytes_per_s + 0.3 * rate
            pull.rate_bytes, pull.rate_since = 0, now
            self._books.requests.comes_at(sum(one.bytes_per_s for one in self._books.pulls.values()))
