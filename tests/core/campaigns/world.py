"""A world for the campaign machine: hosts that are up or down, and orders on them that come along as they are told."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from enticed.core.campaigns import events as ev
from enticed.core.campaigns.campaign import Campaign, Placement, Stage
from enticed.core.campaigns.machine import Campaigns
from enticed.core.campaigns.policy import CampaignPolicy
from enticed.core.orders import Failure, OrderState, Promise
from protocol.identifiers import ImageId, NodeId

IMAGE, OTHER = ImageId(bytes(32)), ImageId(bytes([1] * 32))


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(2, "big") * 10)


def campaign(key: str = "c", hosts: int = 3, **terms: object) -> Campaign:
    named = tuple((f"h{number}", None) for number in range(hosts))
    return Campaign(key, "web:1", terms.pop("image", IMAGE), 0.0, named, **terms)  # type: ignore[arg-type]


@dataclass
class World:
    """Hosts `h0`, `h1`, ... A host in `down` cannot be reached, one in `deaf` never answers; a host in `failing` fails
    its orders. `finish` lets orders become ready."""

    policy: CampaignPolicy = field(default_factory=CampaignPolicy)
    now: float = 1000.0
    down: set[int] = field(default_factory=set)
    deaf: set[int] = field(default_factory=set)
    failing: dict[int, Failure] = field(default_factory=dict)
    orders: dict[tuple[int, str], OrderState] = field(default_factory=dict)
    """What each host has, by its number and the campaign's key."""
    sessions: set[int] = field(default_factory=set)
    done: list[ev.Effect] = field(default_factory=list)
    most_at_once: int = 0
    """Of orders that were under way at the same time."""

    def __post_init__(self) -> None:
        self.machine = Campaigns(self.policy)

    def tell(self, event: ev.Event) -> None:
        events = deque([event])
        while events:
            for effect in self.machine.handle(events.popleft(), self.now):
                self.done.append(effect)
                events += self._answers(effect)
        self.most_at_once = max(self.most_at_once, len(self.under_way()))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.machine.next_deadline(self.now)) is not None and deadline <= end:
            self.now = deadline
            self.tell(ev.Woken())
        self.now = end

    def finish(self, number: int, key: str = "c") -> None:
        self.orders[number, key] = OrderState.READY
        if number in self.sessions:
            self.tell(ev.Told(node(number), key, OrderState.READY, promise=Promise.ON_TIME, percent=100.0))

    def lose(self, number: int) -> None:
        """The host goes down; its order stays."""
        self.down.add(number)
        if number in self.sessions:
            self.sessions.discard(number)
            self.tell(ev.Lost(node(number), "gone"))

    def under_way(self) -> list[tuple[int, str]]:
        return [place for place, state in self.orders.items() if state is OrderState.FETCHING]

    def stages(self, key: str = "c") -> list[Stage]:
        run = self.machine.run(key)
        assert run is not None
        return [one.stage for one in run.placements.values()]

    def placement(self, number: int, key: str = "c") -> Placement:
        run = self.machine.run(key)
        assert run is not None
        return run.placements[f"h{number}"]

    def _answers(self, effect: ev.Effect) -> list[ev.Event]:
        match effect:
            case ev.Reach(key, host):
                number = int(host[1:])
                if number in self.down:
                    return [ev.Unreached(key, host, "connection refused")]
                self.sessions.add(number)
                return [ev.Reached(key, host, node(number))]
            case ev.Ask(asked, key):
                number = int.from_bytes(asked[:2], "big")
                return [] if number in self.deaf else [self._ordered(number, key)]
            case ev.Drop(asked, key):
                self.orders.pop((int.from_bytes(asked[:2], "big"), key), None)
        return []

    def _ordered(self, number: int, key: str) -> ev.Event:
        if number in self.failing:
            self.orders.pop((number, key), None)
            return ev.Told(node(number), key, OrderState.FAILED, self.failing[number], reason="no")
        state = self.orders.setdefault((number, key), OrderState.FETCHING)
        return ev.Told(node(number), key, state, promise=Promise.ON_TIME, percent=10.0)
