"""Versions that hand over in different ways: one stops, the other one starts, and both say so.

What a version says before it knows the other one's format is fixed for ever. So its bytes stand here, as the version
with format 1 wrote them: the request, and the words around a stop and a start.
"""

import json
import os
import shlex
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
from probe import probing
from running import Log
from test_handover import WAITS, answering

from bench.lab.daemon import program
from bench.lab.wait import until
from udpbackend import __version__
from udpbackend.flags import parse
from udpbackend.settings import Settings

PATIENCE_S = 20.0
OTHER = (sys.executable, str(Path(__file__).with_name("other_version.py")))
STOPS = "stops without a handover, packets are lost for a moment"
FOREIGN = "does not understand the handover of version"

REQUEST = b'{"format":1,"version":"0.0.9","settings":%s,"address":"%s","replace":false}'
POST = b"POST /handover HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
DOES = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nit does"
YIELD = '{"say":"yield","why":"version %s does not understand the handover of version %s"}'
LEFT = b'{"say":"left"}'
LEAVE = b'{"say":"leave","exit":true}'


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "downgrade"])
def test_the_other_version_starts_in_place_of_this_one(make_overlay, back):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(b)
    old = overlay.launch(a, under=OTHER if back else ())
    overlay.await_ready(a)
    log = Log(old)
    new = overlay.launch(a, under=() if back else OTHER)
    log.shows(WAITS, PATIENCE_S)
    overlay.await_ready(a)
    overlay.await_ready(b)
    said = new.stderr.read_text()
    assert (STOPS in said, FOREIGN in said) == (True, True), said
    with probing(a.pod, b.pod, b.pod_address) as probe:
        assert old.stop() == 0
        assert probe.lost() == 0


def test_a_reload_to_the_other_version_leaves_one_daemon(make_overlay, tmp_path):
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    old = overlay.process(a)
    words = (*OTHER, program(), "reload", *flags(old))
    a.namespace.run("sh", "-c", f"{shlex.join(words)} 2>{tmp_path / 'log'} </dev/null")
    new = answering(overlay.run_directory(a) / "subnet.sock")
    try:
        assert old.wait(PATIENCE_S) == 0
        assert new != old.pid
        assert STOPS in (tmp_path / "log").read_text()
    finally:
        os.kill(new, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{new}").exists(), PATIENCE_S, "it does not end")
    overlay.launch(a)
    overlay.await_ready(a)


@pytest.mark.parametrize("word", [LEAVE, b""], ids=["goes on", "ends"])
def test_an_older_version_asks(make_overlay, word):
    overlay = make_overlay()
    a, _ = overlay.lab.hosts
    old, log = overlay.process(a), Log(overlay.process(a))
    settings = parse(flags(old), {})
    assert isinstance(settings, Settings)
    listener, answer = a.namespace.call(lambda: ask(settings))
    assert answer.startswith(b"HTTP/1.1 200 ")
    with listener, listener.accept()[0] as conversation:
        conversation.settimeout(PATIENCE_S)
        assert conversation.recv(65536) == (YIELD % (__version__, "0.0.9")).encode()
        assert conversation.recv(65536) == LEFT
        log.shows(WAITS, PATIENCE_S)
        if word:
            conversation.send(word)
            assert old.wait(PATIENCE_S) == 0
    if word:
        overlay.launch(a)
    else:
        log.shows("ready: subnet", PATIENCE_S)
    overlay.await_ready(a)


def test_an_older_version_is_asked(make_overlay):
    overlay = make_overlay(start=False)
    a, b = overlay.lab.hosts
    overlay.launch(b)
    path = overlay.run_directory(a) / "subnet.sock"
    path.parent.mkdir(exist_ok=True)
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(PATIENCE_S)
        listener.bind(str(path))
        listener.listen(1)
        older = threading.Thread(target=lambda: a.namespace.call(lambda: heard.append(yield_to(listener))))
        older.start()
        new = overlay.launch(a)
        older.join()
    Log(new, whole=True).shows("ready: subnet", PATIENCE_S)
    overlay.await_ready(a)
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /handover HTTP/1.1\r\n")
    request = json.loads(body)
    assert {name: type(value) for name, value in request.items()} == {
        "format": int,
        "version": str,
        "settings": dict,
        "address": str,
        "replace": bool,
    }
    assert f"{STOPS}: version 0.0.9 {FOREIGN} {__version__}" in new.stderr.read_text()


def flags(process):
    """What a daemon was started with."""
    return process.argv[process.argv.index(program()) + 1 :]


def ask(settings):
    """What an older version with these settings says to the running daemon: where it listens, and the answer."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.settimeout(PATIENCE_S)
    listener.bind("")
    listener.listen(1)
    identity = json.dumps(settings.identity()).encode()
    body = REQUEST % (identity, listener.getsockname()[1:].hex().encode())
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(PATIENCE_S)
        asked.connect(str(settings.status_socket))
        asked.sendall(POST % (len(body), body))
        answer = b""
        while data := asked.recv(65536):
            answer += data
    return listener, answer


def yield_to(listener):
    """What an older daemon that runs answers; the request."""
    listener.accept()[0].close()  # before it loads all that it needs, it looks whether anybody is there
    asked, _ = listener.accept()
    with asked, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as conversation:
        asked.settimeout(PATIENCE_S)
        heard = asked.recv(65536)
        request = json.loads(heard.partition(b"\r\n\r\n")[2])
        conversation.connect(b"\0" + bytes.fromhex(request["address"]))
        asked.sendall(DOES)
        asked.close()
        conversation.send((YIELD % ("0.0.9", __version__)).encode())
        Path(listener.getsockname()).unlink()
        listener.close()  # as a daemon does whose run has ended; what comes after it may listen there at once
        conversation.send(LEFT)
    return heard
