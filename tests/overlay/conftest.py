"""One cluster for all tests of this directory: enrolling takes longer than most of them."""

import pytest

from enticed.identity.host import HostIdentity
from enticed.identity.publisher import Publisher, load_publisher
from tests.clusters import make_cluster, state_dir

HOSTS = 6


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[HostIdentity], Publisher]:
    directory = tmp_path_factory.mktemp("cluster")
    identities = make_cluster(directory, HOSTS)
    publisher = load_publisher(state_dir(directory, 0))
    assert publisher is not None
    return identities, publisher


@pytest.fixture
def identities(_cluster: tuple[list[HostIdentity], Publisher]) -> list[HostIdentity]:
    return _cluster[0]


@pytest.fixture
def publisher(_cluster: tuple[list[HostIdentity], Publisher]) -> Publisher:
    return _cluster[1]
