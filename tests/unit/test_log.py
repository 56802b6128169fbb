"""klog's line form, the levels, and the limiter."""

import io
import logging
import re

import pytest

from udpbackend.log import REMEMBERED, KlogFormatter, OncePerInterval, setup

LINE = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} [ \d]{7} test_log\.py:\d+\] (.*)")


@pytest.fixture
def output():
    """Ours alone, and every logger as before afterwards."""
    ours, root = logging.getLogger("udpbackend"), logging.getLogger()
    before = (ours.level, root.level, list(root.handlers))
    stream = io.StringIO()
    yield stream
    ours.setLevel(before[0])
    root.setLevel(before[1])
    root.handlers[:] = before[2]


def record(text, *args, level=logging.INFO):
    return logging.LogRecord("udpbackend.x", level, __file__, 12, text, args, None)


@pytest.mark.parametrize(
    ("level", "letter"),
    [(logging.DEBUG, "I"), (logging.INFO, "I"), (logging.WARNING, "W"), (logging.ERROR, "E"), (logging.CRITICAL, "F")],
)
def test_a_line_has_klogs_form(level, letter):
    found = LINE.fullmatch(KlogFormatter().format(record("added %s", "10.5.1.0/24", level=level)))
    assert found.groups() == (letter, "added 10.5.1.0/24")


def test_the_fields_are_those_of_the_record():
    made = record("x")
    made.created, made.process = 1763890119.609837, 4711
    assert re.fullmatch(r"I112\d \d\d:\d\d:\d9\.60983\d    4711 test_log\.py:12\] x", KlogFormatter().format(made))


def test_a_traceback_stands_below_its_line(output):
    setup(0, output)
    try:
        divmod(1, 0)
    except ZeroDivisionError:
        logging.getLogger("udpbackend.x").exception("failed")
    lines = output.getvalue().splitlines()
    assert LINE.fullmatch(lines[0])[2] == "failed"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ZeroDivisionError: integer division or modulo by zero"


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [(0, ["i", "w"]), (1, ["d", "i", "w"]), (3, ["d", "i", "w"]), (4, ["d", "i", "lib i", "w"])],
)
def test_verbosity_says_who_may_speak(output, verbosity, expected):
    setup(verbosity, output)
    ours, library = logging.getLogger("udpbackend.x"), logging.getLogger("somelib")
    ours.debug("d")
    ours.info("i")
    library.info("lib i")
    library.warning("w")
    assert [LINE.fullmatch(line)[2] for line in output.getvalue().splitlines()] == expected


def test_a_second_setup_replaces_the_first(output):
    setup(0, io.StringIO())
    setup(0, output)
    logging.getLogger("udpbackend.x").warning("once")
    assert output.getvalue().count("once") == 1


def test_a_repeated_message_is_held_back_and_counted():
    now = 100.0
    limiter = OncePerInterval(10, clock=lambda: now)
    assert limiter.filter(record("full on %s", "q0"))
    assert not limiter.filter(record("full on %s", "q0"))
    assert limiter.filter(record("full on %s", "q1"))
    assert limiter.filter(record("full on %s", "q0", level=logging.ERROR))
    now = 109.9
    assert not limiter.filter(record("full on %s", "q0"))
    now = 112.0
    again = record("full on %s", "q0")
    assert limiter.filter(again)
    assert again.getMessage() == "full on q0 (repeated 2 times in the last 12 s)"
    now = 130.0
    quiet = record("full on %s", "q0")
    assert limiter.filter(quiet)
    assert quiet.getMessage() == "full on q0"


def test_the_limiter_forgets_the_oldest():
    limiter = OncePerInterval(10, clock=lambda: 0.0)
    for i in range(REMEMBERED + 1):
        assert limiter.filter(record("%d", i))
    assert not limiter.filter(record("%d", REMEMBERED))
    assert limiter.filter(record("0"))


def test_the_limiter_is_a_filter_of_a_logger(output):
    setup(0, output)
    logger = logging.getLogger("udpbackend.limited")
    limiter = OncePerInterval(60)
    logger.addFilter(limiter)
    try:
        logger.warning("100% again")
        logger.warning("100% again")
    finally:
        logger.removeFilter(limiter)
    assert output.getvalue().count("100% again") == 1
