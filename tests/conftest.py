"""What every test may rely on: the root of the checkout is importable, so that tests can use `bench.lab`.

Also owns what becomes of a skipped test where nothing may be skipped: with UDPB_NO_SKIP in the environment it fails
with its reason. So a test that lacks something says `pytest.skip` and nothing else.

And that no example of a property test is timed: on a busy machine one that is sound may take as long as it likes.
"""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test and its fixtures. What is expected to fail counts as skipped, and is not."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a file that skips itself as a whole."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("UDPB_NO_SKIP"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"with UDPB_NO_SKIP no test may be skipped. {reason}"
