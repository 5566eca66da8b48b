"""A process that pulls is killed; the next one goes on with no more than the last batch to fetch again."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.store.making import make_image, open_store

PULL = """
import sys
from pathlib import Path
import numpy as np
from tests.store.making import make_image, open_store
made = make_image(11, pieces=40)
store = open_store(Path(sys.argv[1]))
stored = store.begin_pull(made.root.encoded, made.pages, ())
print("begun", flush=True)
for first in range(0, 40, 2):
    made.write_fd(stored.raw_fd, [first, first + 1])
    store.mark_durable(made.image, np.array([first, first + 1]))
    print(first, flush=True)
    made.write_fd(stored.raw_fd, [first, first + 1])
store.finish(made.image)
print("ready", flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 9, 21])
def test_killed_at_any_time(tmp_path: Path, lines: int) -> None:
    made = make_image(11, pieces=40)
    arguments = [sys.executable, "-c", PULL, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as puller:
        assert puller.stdout is not None
        said = [puller.stdout.readline().strip() for _ in range(lines)]
        puller.send_signal(signal.SIGKILL)
        said += puller.stdout.read().split()
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        acknowledged = [int(line) for line in said if line.isdigit()]
        for first in acknowledged:
            assert stored.durable[first : first + 2].all()
        assert not stored.durable[2 * len(acknowledged) + 2 :].any()
        assert "ready" not in said or stored.ready
        assert (store.audit(made.image) >= stored.durable).all()
        store.vouch(made.image)
        lacking = np.flatnonzero(~stored.durable)
        made.write_fd(stored.raw_fd, lacking.tolist())
        if len(lacking):
            store.mark_durable(made.image, lacking)
            store.finish(made.image)
        assert stored.ready
        assert stored.path.read_bytes() == made.raw
