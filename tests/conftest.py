"""What holds for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, cast

import hypothesis
import pytest

from tests import secrets
from tests.attacks import page

if TYPE_CHECKING:
    from tests.attacks.load import Witness

# The machine's load is no property of the code: no deadline per example. With CI=true the examples are the same in
# every run, so that a change is judged by what it changes.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)

# Shells start what runs in the background with SIGINT ignored, and processes hand that on to those that they start: the
# commands that tests interrupt would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

secrets.watch_logs()
NOTHING_IS_SKIPPED = os.environ.get("CI") == "true"
hypothesis.settings.load_profile("ci" if NOTHING_IS_SKIPPED else "here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a test that skips itself (a program is missing, no root) has failed: it has shown nothing."""
    report = yield
    if NOTHING_IS_SKIPPED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but with CI=true nothing may be: {call.excinfo and call.excinfo.value}"
    return report


@pytest.fixture(scope="session", autouse=True)
def witness(request: pytest.FixtureRequest) -> Iterator[Witness | None]:
    """None where nothing is attacked: seeing through it takes imports that other tests need not wait for."""
    if not any(page.is_attack(item) for item in request.session.items):
        yield None
        return
    from tests.attacks.load import witness

    with witness() as one:
        yield one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """No attack takes a host's memory, or holds its event loop up."""
    if not isinstance(item, pytest.Function) or not page.is_attack(item):
        return (yield)
    witness = cast("Witness", item.funcargs["witness"])
    with witness.watch():
        return (yield)
