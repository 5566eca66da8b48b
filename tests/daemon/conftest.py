"""What the daemons wrote stands in the report of a test that failed."""

from collections.abc import Generator

import pytest

from simnet.testbed import Testbed

LOG_MAX_CHARS = 3000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        fixtures = getattr(item, "funcargs", {}).values()
        for testbed in (one for one in fixtures if isinstance(one, Testbed)):
            for daemon in testbed.daemons:
                report.sections.append((f"log of host {daemon.number}", daemon.log[-LOG_MAX_CHARS:]))
    return report
