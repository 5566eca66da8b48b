"""A real daemon's APIs against their own documents: generated requests, good and bad, by schemathesis."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from requests.adapters import HTTPAdapter
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from simnet.testbed import Daemon, Testbed
from tests.daemon.pulls import new_disk

pytestmark = pytest.mark.slow

BASE = "http://localhost"
API_PORT = 7401
ENDLESS = {"/v1/events", "/v1/images/{target}/content"}
"""Streams that do not end by themselves, and reading, which waits for what nobody has; tests/control."""
NEED_MORE = {
    "POST /v1/images",
    "POST /v1/grants",
    "PUT /v1/campaigns/{campaign}",
    "POST /v1/images/{target}/recall",
}
"""What a schema cannot say: a ticket is for a file that was handed over, a certificate request is signed, a campaign
has hosts or labels and not both, a reason is printable."""
LENIENT: list[Any] = [positive_data_acceptance]
CERTIFIED: list[Any] = [ignored_auth]
"""A certificate is no part of a request, so that none could leave it out; tests/gateway."""
TOO_LARGE = "413"
"""So may be what is wrong in another way: it is not read then."""
PROFILE = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""So many requests of each kind, good and bad, for each operation, and the same every time."""
WHAT_TO_DO = (
    "the daemon answered what its document does not say. Correct the row in OPERATIONS (enticed/control/openapi.py), "
    "the record in enticed/control/schemas.py, or the route; see 'Where to add what' in docs/architecture.md."
)


class UnixAdapter(HTTPAdapter):
    """Has requests talk to a unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        super().__init__()

    def get_connection_with_tls_context(self, *arguments: Any, **more: Any) -> Any:
        return _Pool(self._path)


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def _new_conn(self) -> Any:
        return _Connection(self._path)


class _Connection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


@pytest.fixture(scope="module")
def founder() -> Iterator[Daemon]:
    with Testbed() as testbed:
        founder = testbed.found()
        founder.json("publish", new_disk(testbed, "a.raw", 4, seed=41), "a")
        yield founder


@pytest.mark.timeout(300)
def test_the_daemon_answers_as_its_document_says(founder: Daemon) -> None:
    with requests.Session() as session:
        session.mount(BASE, UnixAdapter(founder.socket))
        hold_all(session, BASE)


@pytest.mark.timeout(300)
def test_what_schedulers_are_answered_is_as_its_document_says(founder: Daemon) -> None:
    founder.must("grant", "scheduler", "nova", "--output", founder.directory)
    with requests.Session() as session:
        session.trust_env = False  # a CA that the environment names would count instead
        session.verify = str(founder.directory / "ca.crt")
        session.cert = (str(founder.directory / "nova.crt"), str(founder.directory / "nova.key"))
        hold_all(session, f"https://{founder.address.rpartition(':')[0]}:{API_PORT}")


def hold_all(session: requests.Session, base: str) -> None:
    api = schemathesis.openapi.from_dict(session.get(f"{base}/v1/openapi.json").json())
    refused = api.config.checks.negative_data_rejection
    refused.expected_statuses = [*refused.expected_statuses, TOO_LARGE]
    operations = [found.ok() for found in api.get_all_operations() if isinstance(found, Ok)]
    assert {operation.path for operation in operations} & ENDLESS
    for operation in operations:
        if operation.path not in ENDLESS:
            for mode in GenerationMode:
                hold(session, base, operation, mode)


def hold(session: requests.Session, base: str, operation: Any, mode: GenerationMode) -> None:
    """Requests of one kind for one operation; what comes back is as the document says."""

    @PROFILE
    @given(operation.as_strategy(mode))
    def ask(case: Any) -> None:
        response = case.call(base_url=base, session=session, verify=session.verify)
        lenient = LENIENT if operation.label in NEED_MORE else []
        case.validate_response(response, excluded_checks=[*lenient, *CERTIFIED])

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # what takes nothing cannot be asked wrongly
    except FailureGroup as error:
        pytest.fail(f"{operation.label}: {WHAT_TO_DO}\n{error}\n" + "\n".join(map(str, error.exceptions)))
