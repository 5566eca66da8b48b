"""Real daemons as processes on loopback: one harness for the demo, the tests of the daemon, and the benchmarks.

Each daemon has an address of its own in 127.0.0.0/8 and the usual ports, as on a host of its own. Clusters are founded
and joined, and images published and pulled, by the commands that people use.

    with Testbed() as testbed:
        founder = testbed.found()
        others = testbed.join(4)
        founder.json("publish", disk, "debian:12")
        others[0].json("pull", "debian:12")
"""

from simnet.testbed.cluster import Testbed, temporary_directory
from simnet.testbed.control import Control, ControlError
from simnet.testbed.daemon import DEFAULT_SETTINGS, ENTICE, Call, Daemon, Done
from simnet.testbed.processes import TestbedError

__all__ = [
    "DEFAULT_SETTINGS",
    "ENTICE",
    "Call",
    "Control",
    "ControlError",
    "Daemon",
    "Done",
    "Testbed",
    "TestbedError",
    "temporary_directory",
]
