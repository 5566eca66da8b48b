"""One machine for torture: a store over the twins of its ports, a seeded life on it, and what it has acknowledged.

The life of a seed is always the same: pulls, imports, evictions, pins, floors, restarts, rot and its repair, over a few
images that share content. What `Told` holds is what the store said was so; `check` holds the store to it, after
whatever happened.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from enticed.core.campaigns.campaign import Campaign
from enticed.core.orders import Order, OrderState
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.notes import Pin
from enticed.store.power import BeforeCall
from enticed.store.store import Store
from protocol.errors import AbsentError
from protocol.identifiers import ImageId
from protocol.limits import WINDOW_MIN_SIZE_BYTES
from tests.store.making import Made, made_of, make_image, store_over

FIRST, SECOND, THIRD = make_image(1, 3, 2, 2), make_image(2, 4, 2, 2), make_image(3, 2, 1, 2)
_SHARED = [(at, data) for at, data in zip(SECOND.fragments.offsets_bytes.tolist(), SECOND.contents, strict=True)]
RELATIVE = made_of([*_SHARED[:4], (5 * WINDOW_MIN_SIZE_BYTES, b"new" * 1500)], 5 * WINDOW_MIN_SIZE_BYTES + 4500)
IMAGES = {made.image: made for made in (FIRST, SECOND, THIRD, RELATIVE)}
STEPS = 14
"""Of a life, after the first pull."""


@dataclass
class Told:
    """What the store has acknowledged, less what it has been asked to change since."""

    durable: dict[ImageId, set[int]] = field(default_factory=dict)
    ready: set[ImageId] = field(default_factory=set)
    gone: set[ImageId] = field(default_factory=set)
    rotten: dict[ImageId, set[int]] = field(default_factory=dict)
    """What the disk, not the store, has spoiled: found and taken back by the next `verify`."""
    statements: dict[ImageId, set[bytes]] = field(default_factory=dict)
    name_version: int = 0
    orders: dict[str, Order] = field(default_factory=dict)
    campaigns: set[str] = field(default_factory=set)
    addresses: tuple[str, ...] = ()
    pins: dict[ImageId, Pin | None] = field(default_factory=dict)
    """None: it has been taken back."""
    floors: dict[ImageId, bytes] = field(default_factory=dict)

    def disown(self, image: ImageId) -> None:
        """From here on anything may be so of this image."""
        for kept in (self.durable, self.statements):
            kept.pop(image, None)
        self.ready.discard(image)
        self.gone.discard(image)


@dataclass
class Machine:
    """Every method is a step of a life; before a call that changes what was acknowledged, `told` gives that up."""

    files: MemoryFiles
    catalogue: MemoryCatalogue
    told: Told = field(default_factory=Told)
    can_read: bool = True
    """False while calls fail: what cannot be read then counts as rotten, and is fetched again."""
    store: Store = field(init=False)

    @classmethod
    def new(cls, before: BeforeCall = lambda name: None) -> Machine:
        return cls(MemoryFiles(before), MemoryCatalogue(before))

    @property
    def is_started(self) -> bool:
        return hasattr(self, "store")

    def start(self) -> None:
        self.store = store_over(self.files, self.catalogue)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.store.close()
        del self.store

    def after_cut(self, dice: random.Random, before: BeforeCall = lambda name: None) -> None:
        """Power is back; the store is not started."""
        if self.is_started:
            self.stop()
        self.files = self.files.after_cut(dice, before)
        self.catalogue = self.catalogue.after_cut(dice, before)

    def after_kill(self) -> None:
        """Its process ended, and everything else went on; the store is not started."""
        if self.is_started:
            self.stop()
        self.files, self.catalogue = self.files.after_kill(), self.catalogue.after_kill()

    def note(self) -> None:
        """What the store shows after a start it has said as well as anything before; all but statements, of which one
        that was being added may go again."""
        for stored in self.store.images():
            made = IMAGES[stored.image]
            self.told.gone.discard(made.image)
            self._mark(made, np.flatnonzero(stored.durable).tolist())
            if stored.ready:
                self.told.ready.add(made.image)
        names = self.store.names()
        self.told.name_version = names[0].version if names else 0
        self.told.pins |= {image: self.store.pin_book.of(image, 0.0) for image in IMAGES}
        self.told.floors |= self.store.floor_book.all()

    # --- pulling ---

    def begin(self, made: Made) -> None:
        self.told.gone.discard(made.image)
        self.store.begin_pull(made.root.encoded, made.pages, (b"said",))
        self.told.durable.setdefault(made.image, set())
        self.told.statements.setdefault(made.image, set()).add(b"said")

    def pull(self, made: Made, pieces: Sequence[int]) -> None:
        """Write pieces and have them made durable; what was durable before is written again only if it is not now."""
        self.begin(made)
        stored = self.store.image(made.image)
        lacking = [piece for piece in pieces if not stored.durable[piece]]
        made.write(self.files, stored.raw_fd, lacking)
        if lacking:
            self.store.mark_durable(made.image, np.array(lacking))
            self._mark(made, lacking)

    def write_only(self, made: Made, piece: int) -> None:
        """Written, and nobody says that it is durable: `vouch` has to find out."""
        self.begin(made)
        stored = self.store.image(made.image)
        if not stored.durable[piece]:
            made.write(self.files, stored.raw_fd, [piece])

    def clone(self, made: Made) -> None:
        """Take from other images what they have of this one."""
        self.begin(made)
        others = [stored.image for stored in self.store.images() if stored.image != made.image]
        on_hand = self.store.find_on_hand(made.fragments, others)
        right = self.store.clone_in(made.image, made.fragments, on_hand)
        whole = np.flatnonzero(np.logical_and.reduceat(right, made.root.first_fragments[:-1]))
        if len(whole):
            self.store.mark_durable(made.image, whole)
            self._mark(made, whole.tolist())

    def vouch(self, made: Made) -> None:
        self.begin(made)
        stored = self.store.vouch(made.image)
        self._mark(made, np.flatnonzero(stored.durable).tolist())
        if stored.ready:
            self.told.ready.add(made.image)

    def complete(self, made: Made) -> None:
        self.pull(made, range(made.root.pieces))
        self.store.finish(made.image)
        self.told.ready.add(made.image)

    # --- publishing, evicting ---

    def publish(self, made: Made) -> None:
        self.told.gone.discard(made.image)
        with self.store.begin_import(1 << 20) as draft:
            made.write(self.files, draft.raw_fd, range(made.root.pieces))
            draft.commit(made.root, made.pages, (b"said",))
        self._mark(made, list(range(made.root.pieces)))
        self.told.ready.add(made.image)

    def evict(self, made: Made) -> None:
        if made.image in {stored.image for stored in self.store.images()}:
            self.told.disown(made.image)
            self.store.forget(made.image)
            self.told.rotten.pop(made.image, None)
            self.told.gone.add(made.image)

    # --- what the disk does, and what is done about it ---

    def rot(self, made: Made, piece: int) -> None:
        """A byte of a durable piece changes on the disk, and `verify` is asked."""
        stored = next((stored for stored in self.store.images() if stored.image == made.image), None)
        if stored is not None and stored.durable[piece]:
            self.told.rotten.setdefault(made.image, set()).add(piece)
            self.told.durable.get(made.image, set()).discard(piece)
            self.told.ready.discard(made.image)
            self.files.flip(f"{stored.directory}/raw", int(made.fragments.offsets_bytes[made.indices([piece])[0]]))
            self.verify(made)

    def verify(self, made: Made) -> None:
        wrong = np.flatnonzero(self.store.image(made.image).durable & ~self.store.audit(made.image))
        rotten = self.told.rotten.get(made.image, set())
        if self.can_read:
            assert set(wrong.tolist()) <= rotten, "vouches for what nobody but the store has spoiled"
        if len(wrong):
            self.told.durable.get(made.image, set()).difference_update(wrong.tolist())
            self.told.ready.discard(made.image)
            self.store.retract(made.image, wrong)
        self.told.rotten.pop(made.image, None)

    def spoil(self, made: Made) -> None:
        """The root of an image is damaged, which the next start finds."""
        path = f"images/{made.image}/root"
        if made.image in {stored.image for stored in self.store.images()}:
            self.told.disown(made.image)
            self.stop()
            self.files.flip(path, 0)
            self.start()

    # --- the rest of the catalogue, names ---

    def save_name(self) -> None:
        version = self.told.name_version + 1
        self.store.save_name("name", version, SECOND.image, 1000 + version, b"envelope")
        self.told.name_version = version

    def save_order(self, key: str) -> None:
        for state in (OrderState.QUEUED, OrderState.RESOLVING):
            order = replace(Order(key, "name", 1.0), state=state)
            self.told.orders.pop(key, None)
            self.store.save_order(order)
            self.told.orders[key] = order

    def delete_order(self, key: str) -> None:
        self.told.orders.pop(key, None)
        self.store.delete_order(key)

    def save_campaign(self) -> None:
        self.store.save_campaign(Campaign("campaign", "name", SECOND.image, 1.0, hosts=(("a", None),)))
        self.told.campaigns.add("campaign")

    def remember(self, address: str) -> None:
        self.told.addresses = ()
        self.store.remember_addresses((address,))
        self.told.addresses = (address,)

    def pin(self, made: Made, until: float) -> None:
        self.told.pins.pop(made.image, None)
        self.store.pin_book.put(made.image, Pin(until))
        self.told.pins[made.image] = Pin(until)

    def unpin(self, made: Made) -> None:
        self.told.pins.pop(made.image, None)
        self.store.pin_book.drop(made.image)
        self.told.pins[made.image] = None

    def keep(self, made: Made, replicas: int) -> None:
        """As a publisher's floor comes in, in place of one before."""
        self.told.floors.pop(made.image, None)
        envelope = b"%d copies" % replicas
        self.store.floor_book.save(made.image, envelope)
        self.told.floors[made.image] = envelope

    def add_statement(self, made: Made, envelope: bytes) -> None:
        self.begin(made)
        self.store.add_statement(made.image, envelope)
        self.told.statements[made.image].add(envelope)

    def touch(self, made: Made) -> None:
        self.begin(made)
        self.store.touch(made.image)

    def _mark(self, made: Made, pieces: Sequence[int]) -> None:
        self.told.durable.setdefault(made.image, set()).update(pieces)


def life(machine: Machine, seed: int) -> list[Callable[[], None]]:
    """The steps of a seed, after `start`."""
    dice = random.Random(seed)
    begun = dice.choice(list(IMAGES.values()))
    steps: list[Callable[[], None]] = [lambda: machine.pull(begun, [1, 0])]
    return steps + [_step(machine, dice) for _ in range(STEPS)]


def _step(machine: Machine, dice: random.Random) -> Callable[[], None]:
    made, piece = dice.choice(list(IMAGES.values())), dice.randrange(1 << 16)
    piece %= made.root.pieces
    name = str(piece)
    steps: dict[Callable[[], None], int] = {
        lambda: machine.pull(made, [piece]): 3,
        lambda: machine.write_only(made, piece): 1,
        lambda: machine.vouch(made): 2,
        lambda: machine.complete(made): 3,
        lambda: machine.clone(made): 2,
        lambda: machine.publish(made): 3,
        lambda: machine.evict(made): 3,
        lambda: machine.rot(made, piece): 2,
        lambda: machine.spoil(made): 1,
        machine.restart: 1,
        machine.save_name: 1,
        lambda: machine.save_order(name): 1,
        lambda: machine.delete_order(name): 1,
        machine.save_campaign: 1,
        lambda: machine.remember(name): 1,
        lambda: machine.add_statement(made, name.encode()): 1,
        lambda: machine.touch(made): 1,
        lambda: machine.pin(made, 1.0 + piece): 2,
        lambda: machine.unpin(made): 2,
        lambda: machine.keep(made, piece): 2,
    }
    return dice.choices(list(steps), list(steps.values()))[0]


def check(machine: Machine) -> None:
    """Nothing acknowledged is lost, nothing wrong is vouched for or read, nothing half-made is left."""
    store, told = machine.store, machine.told
    _check_files(machine)
    assert [record.image for record in machine.catalogue.images()] == [stored.image for stored in store.images()]
    for image, pieces in told.durable.items():
        durable = set(np.flatnonzero(store.image(image).durable).tolist())
        assert pieces <= durable, f"of image {image.short} pieces {pieces - durable} were durable, and are lost"
    for stored in store.images():
        machine.verify(IMAGES[stored.image])
        assert not stored.ready or stored.durable.all()
        assert machine.files.status(stored.raw_fd).mode == (0o440 if stored.ready else 0o600)
        read_all(machine, IMAGES[stored.image])
    for image in told.ready:
        assert store.image(image).ready, f"image {image.short} was ready"
    for image in told.gone:
        try:
            store.image(image)
        except AbsentError:
            continue
        raise AssertionError(f"image {image.short} is there again")
    for image, statements in told.statements.items():
        assert statements <= set(store.image(image).statements)
    assert not told.name_version or store.name("name").version >= told.name_version
    orders = {order.key: order for order in store.orders()}
    assert told.orders.items() <= orders.items()
    assert told.campaigns <= {campaign.key for campaign in store.campaigns()}
    assert not told.addresses or store.remembered_addresses() == told.addresses
    assert told.pins.items() <= {image: store.pin_book.of(image, 0.0) for image in IMAGES}.items()
    assert told.floors.items() <= store.floor_book.all().items()
    assert (store.pin_book.troubles, store.floor_book.troubles) == ([], []), "a note is half-written"


def _check_files(machine: Machine) -> None:
    """Every file is one that docs/store.md names, and belongs to an image that is there; nothing else is left."""
    files, images = machine.files, {str(stored.image) for stored in machine.store.images()}
    assert set(files.list_dir(".")) == {"version", "images", "names", "recalls", "pins", "floors", "drafts"}
    broken = {name for name in files.list_dir("images") if name.startswith(".broken-")}
    assert set(files.list_dir("images")) - broken == images
    for image in images:
        assert {"raw", "root", "pages", "statements"} <= set(files.list_dir(f"images/{image}"))
        assert set(files.list_dir(f"images/{image}")) <= {"raw", "root", "pages", "statements", "index"}
        assert all(not name.startswith(".") for name in files.list_dir(f"images/{image}/statements"))
    assert all(not name.startswith(".") for where in ("names", "pins", "floors") for name in files.list_dir(where))


def read_all(machine: Machine, made: Made) -> None:
    """A reader gets the right bytes, or hears which fragments are not here."""
    offsets = dict(zip(made.fragments.offsets_bytes.tolist(), made.contents, strict=True))
    for at, content in offsets.items():
        excerpt = machine.store.read(made.image, at, len(content))
        assert excerpt.lacking or excerpt.data == content, f"a wrong byte was read of {made.image.short} at {at}"


def finish(machine: Machine) -> None:
    """What was left half-done can be finished and comes right; and when all is evicted, nothing is left of it."""
    store = machine.store
    for made in IMAGES.values():
        machine.vouch(made)
        machine.complete(made)
        stored = store.image(made.image)
        assert machine.files.status(stored.raw_fd).size_bytes == made.root.virtual_size_bytes
        for at, content in zip(made.fragments.offsets_bytes.tolist(), made.contents, strict=True):
            assert machine.files.pread(stored.raw_fd, len(content), at) == content
    assert store.space().promised_bytes == 0, "a reservation is left over"
    check(machine)
    for made in IMAGES.values():
        machine.unpin(made)
        machine.keep(made, 0)
        machine.evict(made)
    assert machine.files.list_dir("pins") == (), "a pin is left over"
    assert store.space().used_bytes == 0, "a reservation is left over"
    assert machine.files.list_dir("images") == (), "files are left over"
    store.close()
    assert machine.files.open_count == 0, "a descriptor is left over"
