"""What holds for every test."""

import os
import signal
from collections.abc import Generator

import hypothesis
import pytest

from tests import secrets

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
