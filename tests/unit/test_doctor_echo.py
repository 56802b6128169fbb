"""The bytes of an echo request and of its reply."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from udpbackend.doctor.echo import ECHO_REPLY, Answer, checksum, reply, request

SERIALS = st.integers(0, 0xFFFF)
RAW_HEADER = bytes([0x46]) + bytes(23)
"""An IPv4 header with four bytes of options."""


def as_reply(message):
    return bytes([ECHO_REPLY]) + message[1:]


@given(SERIALS, SERIALS, st.binary(max_size=64))
def test_a_request_has_a_right_checksum_and_its_reply_is_known_again(identifier, serial, payload):
    message = request(identifier, serial, payload)
    assert checksum(message) == 0, "over a message that bears its checksum"
    assert message[8:] == payload
    assert reply(message, None) is None, "a request is no reply"
    assert reply(as_reply(message), None) == serial
    assert reply(RAW_HEADER + as_reply(message), identifier) == serial
    assert reply(RAW_HEADER + as_reply(message), identifier ^ 1) is None


@given(st.binary(max_size=64), st.one_of(st.none(), SERIALS))
def test_any_bytes_are_a_reply_or_not(message, identifier):
    found = reply(message, identifier)
    assert found is None or 0 <= found <= 0xFFFF


def test_the_checksum_of_rfc_1071():
    assert checksum(struct.pack("!4H", 0x0001, 0xF203, 0xF4F5, 0xF6F7)) == 0x220D
    assert checksum(b"\x01") == 0xFEFF, "an odd byte is the high one"


def test_answers_in_words():
    assert str(Answer(0.0012)) == "answers in 1.2 ms"
    assert str(Answer()) == "no answer"
    assert str(Answer(error="Network is unreachable")) == "Network is unreachable"
    assert Answer(0.0).came
