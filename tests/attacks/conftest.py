"""One cluster for all of these: enrolling takes longer than most attacks."""

import pytest

from enticed.identity.host import HostIdentity
from tests.clusters import make_cluster

HOSTS = 12


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> list[HostIdentity]:
    """The state of the founder, the first, is the parent of its `directory`."""
    return make_cluster(tmp_path_factory.mktemp("cluster"), HOSTS)
