"""A skipped test fails where UDPB_NO_SKIP says that none may be skipped, whichever way it was skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent

SKIPPED = {
    "call": "import pytest\ndef test_it(): pytest.skip('needs it')\n",
    "fixture": "import pytest\n@pytest.fixture\ndef able(): pytest.skip('needs it')\ndef test_it(able): pass\n",
    "mark": "import pytest\n@pytest.mark.skip('needs it')\ndef test_it(): pass\n",
    "file": "import pytest\npytest.skip('needs it', allow_module_level=True)\n",
}
EXPECTED_TO_FAIL = "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n"


def outcome(tmp_path, text, **environment):
    """(exit status, what was printed) of pytest with our conftest.py over a file of this text."""
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    known = {name: value for name, value in os.environ.items() if not name.startswith(("UDPB_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "conftest", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env=known | {"PYTHONPATH": str(TESTS)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("way", SKIPPED)
def test_a_skipped_test_fails_with_its_reason(tmp_path, way):
    status, printed = outcome(tmp_path, SKIPPED[way], UDPB_NO_SKIP="1")
    assert status in (1, 2), printed  # 2: nothing could be collected
    assert "no test may be skipped" in printed
    assert "needs it" in printed


def test_without_that_it_is_skipped_loudly(tmp_path):
    status, printed = outcome(tmp_path, SKIPPED["call"])
    assert status == 0, printed
    assert "SKIPPED [1] test_it.py" in printed
    assert "needs it" in printed


def test_what_is_expected_to_fail_is_not_skipped(tmp_path):
    status, printed = outcome(tmp_path, EXPECTED_TO_FAIL, UDPB_NO_SKIP="1")
    assert status == 0, printed
