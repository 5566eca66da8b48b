"""The layers of the design, read from the imports: arrows point down only, and the decisions stay pure.

`LAYERS` says for each part what it may import of ours; the longest name that fits a module decides. A part that is not
in the table fails: a new one has to be given its place here.
"""

import ast
import textwrap
from collections.abc import Iterator

import pytest

from tests.project.imports import PACKAGES, Import, Module, dotted, imports, our_modules

LEAVES = {"protocol", "enticed.limits"}
DECISIONS = LEAVES | {"enticed.core"}
PARTS = DECISIONS | {
    "enticed.identity", "enticed.config", "enticed.reflink", "enticed.image", "enticed.store", "enticed.transfer",
    "enticed.overlay", "enticed.landing", "enticed.pace", "enticed.origin", "enticed.origin.prefix",
    "enticed.errnos", "enticed.histogram", "enticed.patience", "enticed.readiness", "enticed.tally",
}  # fmt: skip

LAYERS: dict[str, set[str]] = {
    # What hosts say, and what they decide: below everything.
    "protocol": set(),
    "enticed": set(),  # the package itself: its version
    "enticed.limits": {"protocol"},
    "enticed.core": {"protocol"},
    # Leaves that several parts stand on.
    "enticed.notify": set(),
    "enticed.histogram": set(),
    "enticed.logs": {"enticed.limits"},
    "enticed.tally": {"enticed.limits"},  # log lines about what others cause
    "enticed.patience": LEAVES,  # with hosts that say what is of no use
    "enticed.reflink": set(),
    "enticed.errnos": {"protocol"},
    "enticed.host_address": set(),
    "enticed.pace": {"enticed.limits"},
    "enticed.landing": {"protocol", "enticed.pace"},  # peers and origins: fragments are verified and written in one way
    "enticed.identity": LEAVES,
    "enticed.origin.prefix": LEAVES,  # what may be configured as an origin
    "enticed.config": LEAVES | {"enticed.origin.prefix"},
    "enticed.config_sources": LEAVES | {"enticed.config"},
    "enticed.problems": LEAVES,
    "enticed.readiness": set(),
    "enticed.anteroom": {"enticed.limits"},  # handshakes of strangers, on both TLS ports
    "enticed.http_server": LEAVES | {"enticed.anteroom", "enticed.problems", "enticed.readiness"},
    # The world: disks and peers. These do not know each other; what one needs of another comes through a port.
    "enticed.image": DECISIONS | {"enticed.errnos", "enticed.reflink"},
    "enticed.store.version": LEAVES,  # what `entice doctor` looks at where no daemon runs
    "enticed.store": DECISIONS | {"enticed.errnos", "enticed.histogram", "enticed.reflink", "enticed.store.version"},
    "enticed.transfer": DECISIONS
    | {"enticed.anteroom", "enticed.errnos", "enticed.identity", "enticed.landing", "enticed.pace", "enticed.tally"}
    | {"enticed.readiness"},
    # Objects under a prefix, and nothing of hosts or decisions: `entice export` writes with its caller's rights.
    # An image is written into a directory as `entice pull --output` writes it.
    "enticed.origin": LEAVES | {"enticed.landing", "enticed.pace", "enticed.image", "enticed.origin.prefix"},
    "enticed.overlay": DECISIONS | {"enticed.histogram", "enticed.identity", "enticed.tally"},
    # What carries out the decisions with all of these, and says what may be asked of a daemon.
    "enticed.engine": PARTS | {"enticed"},
    # For people, schedulers and clouds.
    "enticed.operating": PARTS
    | {"enticed.config_sources", "enticed.engine", "enticed.http_server", "enticed.problems"},
    "enticed.control": PARTS | {"enticed.engine", "enticed.operating", "enticed.http_server", "enticed.problems"},
    # The same order calls for those far away as for those on the host.
    "enticed.gateway": PARTS | {"enticed.engine", "enticed.control", "enticed.http_server", "enticed.problems"},
    # The composition root, and the two commands. `entice` talks to the daemon through its socket, never by import.
    "enticed.daemon": PARTS
    | {
        "enticed.engine",
        "enticed.operating",
        "enticed.control",
        "enticed.gateway",
        "enticed.notify",
        "enticed.host_address",
    },
    "enticed.__main__": {
        "enticed",
        "enticed.daemon",
        "enticed.config",
        "enticed.config_sources",
        "enticed.logs",
        "enticed.notify",
        "enticed.operating",
        "protocol",
    },
    "enticed.cli": LEAVES
    | {
        "enticed.config",
        "enticed.config_sources",
        "enticed.host_address",
        "enticed.identity",
        "enticed.image",
        "enticed.origin",
        "enticed.origin.prefix",
        "enticed.store.version",
        "enticed.reflink",
    },
    # The demo is a throwaway swarm of real daemons: it stands on the testbed.
    "enticed.cli.demo": LEAVES | {"enticed.cli", "enticed.cli.demo_bars", "enticed.image", "simnet"},
    "enticed.cli.demo_bars": {"enticed.cli", "simnet"},
    "enticed.cli.simulate": {"enticed.cli", "enticed.limits", "simnet"},
    # The same decisions in a simulated world.
    "simnet": DECISIONS,
}

PURE = ("protocol", "enticed.core")
ASKING = {"enticed.operating", "enticed.control", "enticed.gateway"}

# What a pure module may import of others. An allow-list: nobody has to think of all the ways to a clock or a file.
PURE_IMPORTS = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "enum",
    "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "math", "operator", "re", "statistics", "string",
    "struct", "types", "typing", "unicodedata", "zlib",
    "blake3", "cryptography", "msgpack", "numpy",
}  # fmt: skip

# Exceptions, each with its reason.
PURE_EXCEPTIONS = {
    # The adapter that gives kademlia's routing table our clock and no pings. (The package's own module imports asyncio
    # and reads the time.)
    "enticed.core.dht.table": {"kademlia"},
}

# Names of a permitted module that reach a clock, dice or the world all the same. `Random` and `Generator` come seeded.
ONLY_NAMES = {"random": {"Random"}, "numpy.random": {"Generator"}}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
IMPURE_METHODS = {"now", "utcnow", "today", "fromfile", "tofile", "memmap", "urandom"}


def part_of(name: str, parts: set[str]) -> str | None:
    """The longest entry of `parts` that is `name` or a package around it."""
    fitting = [part for part in parts if name == part or name.startswith(part + ".")]
    return max(fitting, key=len, default=None)


def own_part(module: str) -> str | None:
    part = part_of(module, set(LAYERS))
    # `enticed` stands for the package's own __init__ only, not for whatever is put beside the other parts.
    return None if part == "enticed" and module != "enticed" else part


def target(imported: Import) -> str:
    """The module meant: `from enticed import core` is an import of `enticed.core`."""
    if imported.name is not None and f"{imported.module}.{imported.name}" in LAYERS:
        return f"{imported.module}.{imported.name}"
    return imported.module


def layer_faults(module: Module) -> Iterator[str]:
    part = own_part(module.name)
    if part is None:
        yield f"{module.name}: has no place in LAYERS"
        return
    for imported in imports(module):
        wanted = target(imported)
        if wanted.split(".")[0] not in PACKAGES:
            continue
        wanted_part = own_part(wanted)
        if wanted_part is None:
            yield f"{module.name}:{imported.line}: {wanted} has no place in LAYERS"
        elif wanted_part not in {part, "enticed", *LAYERS[part]}:
            yield f"{module.name}:{imported.line}: {part} may not import {wanted}"


def purity_faults(module: Module) -> Iterator[str]:
    if part_of(module.name, set(PURE)) is None:
        return
    allowed = PURE_IMPORTS | set(PACKAGES) | PURE_EXCEPTIONS.get(module.name, set())
    for imported in imports(module):
        names = ONLY_NAMES.get(imported.module)
        if names is not None:
            if imported.name not in names:
                yield f"{module.name}:{imported.line}: of {imported.module} only {', '.join(names)}"
        elif imported.module.split(".")[0] not in allowed:
            yield f"{module.name}:{imported.line}: imports {imported.module}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            chain = dotted(node)
            if (".random." in chain and node.attr not in ONLY_NAMES["numpy.random"]) or (
                node.attr == "generate" and "PrivateKey" in chain
            ):
                yield f"{module.name}:{node.lineno}: throws dice: {chain}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                yield f"{module.name}:{node.lineno}: calls {node.func.id}"
            elif isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_METHODS:
                yield f"{module.name}:{node.lineno}: calls {dotted(node.func)}"


def reaching_faults(module: Module) -> Iterator[str]:
    """Whoever asks the engine asks through its port; who is to look at the parts is handed them by `enticed.daemon`."""
    if part_of(module.name, ASKING) is None:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr == "parts":
            yield f"{module.name}:{node.lineno}: reaches into the engine: {dotted(node)}"


def test_nobody_reaches_into_the_engine() -> None:
    assert [fault for module in our_modules() for fault in reaching_faults(module)] == []


def test_reaching_into_the_engine_is_found() -> None:
    reaching = "def rotten(engine):\n    return engine.parts.stockroom.rotten_pieces"
    assert len(list(reaching_faults(module_of("enticed.operating.metrics", reaching)))) == 1
    assert list(reaching_faults(module_of("enticed.daemon", reaching))) == []


def test_arrows_point_down() -> None:
    assert [fault for module in our_modules() for fault in layer_faults(module)] == []


def test_protocol_and_core_have_no_clock_no_dice_no_sockets_no_files() -> None:
    assert [fault for module in our_modules() for fault in purity_faults(module)] == []


def test_the_table_has_no_circles() -> None:
    below: dict[str, set[str]] = {part: set() for part in LAYERS}
    while ready := {part for part in below if LAYERS[part].isdisjoint(below)}:
        for part in ready:
            del below[part]
    assert below == {}, "each of these is above itself"


def module_of(name: str, source: str) -> Module:
    return Module(name, is_package=False, tree=ast.parse(textwrap.dedent(source)))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("protocol.codec", "import enticed.limits"),
        ("enticed.core.picker", "from enticed.store import catalogue"),
        ("enticed.core.picker", "from enticed import store"),
        ("enticed.core.picker", "from ..store import catalogue"),
        ("enticed.store.files", "from enticed.transfer.session import Session"),
        ("enticed.transfer.session", "def later():\n    import enticed.daemon"),
        ("enticed.cli.main", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import enticed.daemon"),
        ("enticed.helpers", "import protocol"),
        ("enticed.cli.main", "import enticed.helpers"),
    ],
)
def test_an_arrow_that_points_up_is_found(name: str, source: str) -> None:
    assert len(list(layer_faults(module_of(name, source)))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("enticed.core.picker", "from protocol.limits import KIB\nfrom .pieces import Pieces\nimport enticed"),
        ("enticed.daemon", "from enticed.store import catalogue\nfrom enticed import __version__, core"),
        ("simnet.host", "from enticed.core import swarm"),
    ],
)
def test_an_arrow_that_points_down_passes(name: str, source: str) -> None:
    assert list(layer_faults(module_of(name, source))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "from time import monotonic",
        "import random",
        "from random import choice",
        "import os.path",
        "from pathlib import Path",
        "import kademlia.routing",
        "import numpy as np\nnp.random.default_rng(1)",
        "from numpy.random import default_rng",
        "import datetime\ndatetime.datetime.now()",
        "open('file')",
        "from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey as X25519PrivateKey\n"
        "X25519PrivateKey.generate()",
    ],
)
@pytest.mark.parametrize("name", ["protocol.codec", "enticed.core.dht.node"])
def test_an_impure_decision_is_found(name: str, source: str) -> None:
    assert len(list(purity_faults(module_of(name, source)))) == 1


def test_what_a_decision_is_given_passes() -> None:
    source = """
        from random import Random
        import numpy as np
        from numpy.random import Generator

        def handle(event: bytes, now: float, dice: Random, seeded: np.random.Generator) -> float:
            return now + dice.random() + seeded.random()
    """
    assert list(purity_faults(module_of("enticed.core.picker", source))) == []
    assert list(purity_faults(module_of("enticed.core.dht.table", "import kademlia.routing"))) == []
    assert list(purity_faults(module_of("enticed.store.files", "import os"))) == []
