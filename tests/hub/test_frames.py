"""Tests of hub/frames.py: the examples of RFC 6455, what each rule refuses, any split of any bytes."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    Message,
    close_frame,
    frame,
    read_close,
)

KEY = bytes.fromhex("37fa213d")  # the masking key of the examples in 5.7
EURO = "€".encode()  # three bytes


def client_frame(opcode: int, payload: bytes = b"", *, final: bool = True, key: bytes = KEY) -> bytes:
    """Build a frame as a client sends it, masked byte by byte as 5.3 describes."""
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    plain = bytearray(frame(opcode, payload)[: -len(payload) or None])
    plain[0] &= 0xFF if final else 0x7F
    plain[1] |= 0x80
    return bytes(plain) + key + masked


def raw(first: int, second: int, rest: bytes = b"") -> bytes:
    """Build a frame of exactly these first two bytes."""
    return bytes((first, second)) + rest


def outcome(pieces: list[bytes], limit: int = 65536) -> tuple[list[Message], int | None]:
    """Feed the pieces; return all messages, and the code of the error if there was one."""
    reader, messages, code = FrameReader(limit), list[Message](), None
    for piece in pieces:
        try:
            messages += reader.feed(piece)
        except FrameError as error:
            assert code is None, "a reader fails once"
            messages += error.messages
            code = error.code
    return messages, code


def refusal(data: bytes, limit: int = 65536) -> FrameError:
    """Feed bytes that must be refused, and return the error."""
    with pytest.raises(FrameError) as caught:
        FrameReader(limit).feed(data)
    return caught.value


def close_body(code: int, reason: bytes = b"") -> bytes:
    """Build the payload of a close frame."""
    return code.to_bytes(2, "big") + reason


# ---- what the server sends


@pytest.mark.parametrize(
    ("opcode", "payload", "header"),
    [
        (TEXT, b"Hello", "8105"),
        (PING, b"Hello", "8905"),
        (BINARY, b"", "8200"),
        (BINARY, bytes(125), "827d"),
        (BINARY, bytes(126), "827e007e"),
        (BINARY, bytes(256), "827e0100"),
        (BINARY, bytes(65535), "827effff"),
        (BINARY, bytes(65536), "827f0000000000010000"),
    ],
)
def test_server_frames_are_the_bytes_of_the_rfc(opcode: int, payload: bytes, header: str) -> None:
    """A server's frame is final, unmasked, and gives its length in the shortest form (5.2, 5.7)."""
    assert frame(opcode, payload) == bytes.fromhex(header) + payload


def test_close_frame_holds_code_and_reason() -> None:
    """A close frame carries the code in network order and then the reason (5.5.1)."""
    assert close_frame(1001, "going away") == b"\x88\x0c\x03\xe9going away"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("x" * 123, 123), ("x" * 124, 123), ("€" * 41, 123), ("x" + "€" * 41, 121), ("\ud800", 1), ("", 0)],
)
def test_close_reason_is_cut_between_characters(reason: str, kept: int) -> None:
    """A reason too long for a control frame loses whole characters, and what is left is UTF-8."""
    sent = close_frame(1008, reason)[4:]
    assert len(sent) == kept
    assert sent.decode() is not None


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_close_frame_refuses_codes_that_may_not_be_sent(code: int) -> None:
    """Sending a reserved close code is our own mistake (7.4)."""
    with pytest.raises(AssertionError, match=f"close code {code} may not be sent"):
        close_frame(code, "")


# ---- what the server reads


def test_examples_of_the_rfc_are_read() -> None:
    """The masked examples of 5.7 give "Hello" as a text and as a pong."""
    text = bytes.fromhex("818537fa213d7f9f4d5158")
    pong = bytes.fromhex("8a8537fa213d7f9f4d5158")
    assert outcome([text + pong]) == ([Message(TEXT, b"Hello"), Message(PONG, b"Hello")], None)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 125, 126, 127, 128, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_of_every_length_form_is_read(opcode: int, size: int) -> None:
    """Messages up to the limit come back whole, in each of the three forms of length."""
    payload = bytes(index % 128 for index in range(size))
    assert outcome([client_frame(opcode, payload)]) == ([Message(opcode, payload)], None)


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("size", [0, 125])
def test_pings_and_pongs_are_read(opcode: int, size: int) -> None:
    """Control frames hold up to 125 bytes of anything (5.5.2, 5.5.3)."""
    payload = bytes(range(128, 128 + size))
    assert outcome([client_frame(opcode, payload)]) == ([Message(opcode, payload)], None)


def test_fragments_are_joined_around_control_frames() -> None:
    """Control frames between fragments come at once, the message with its last fragment (5.4)."""
    stream = (
        client_frame(TEXT, b"Hel", final=False)
        + client_frame(PING, b"1")
        + client_frame(CONTINUATION, b"", final=False)
        + client_frame(PONG, b"2")
        + client_frame(CONTINUATION, b"lo")
        + client_frame(BINARY, b"next")
    )
    expected = [Message(PING, b"1"), Message(PONG, b"2"), Message(TEXT, b"Hello"), Message(BINARY, b"next")]
    assert outcome([stream]) == (expected, None)


def test_text_is_checked_over_all_its_fragments() -> None:
    """A character may be cut in two by a fragment (5.6); only the whole message must be UTF-8."""
    good = client_frame(TEXT, EURO[:1], final=False) + client_frame(CONTINUATION, EURO[1:])
    bad = client_frame(TEXT, EURO[:1], final=False) + client_frame(CONTINUATION, EURO[1:2])
    assert outcome([good]) == ([Message(TEXT, EURO)], None)
    assert outcome([bad]) == ([], 1007)


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xe2\x82"])
def test_text_that_is_not_utf8_is_1007(text: bytes) -> None:
    """Stray, overlong, surrogate, too high and cut characters are no text; as binary they pass."""
    assert outcome([client_frame(TEXT, text)]) == ([], 1007)
    assert outcome([client_frame(BINARY, text)]) == ([Message(BINARY, text)], None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (raw(0x81, 0x05, b"Hello"), "must be masked"),
        (raw(0xC1, 0x80, KEY), "reserved bits"),
        (raw(0xA1, 0x80, KEY), "reserved bits"),
        (raw(0x91, 0x80, KEY), "reserved bits"),
        (raw(0x83, 0x80, KEY), "unknown opcode 3"),
        (raw(0x87, 0x80, KEY), "unknown opcode 7"),
        (raw(0x8B, 0x80, KEY), "unknown opcode 11"),
        (raw(0x8F, 0x80, KEY), "unknown opcode 15"),
        (raw(0x09, 0x80, KEY), "may not be fragmented"),
        (raw(0x08, 0x80, KEY), "may not be fragmented"),
        (raw(0x89, 0xFE), "at most 125 bytes"),
        (raw(0x88, 0xFF), "at most 125 bytes"),
        (raw(0x82, 0xFE, b"\x00\x7d"), "length 125 is not in its shortest form"),
        (raw(0x82, 0xFF, (65535).to_bytes(8, "big")), "length 65535 is not in its shortest form"),
        (raw(0x82, 0xFF, (1 << 63).to_bytes(8, "big")), "less than 2 to the power of 63"),
        (client_frame(CONTINUATION, b"lo"), "expected the beginning of a message"),
        (client_frame(TEXT, b"a", final=False) + client_frame(TEXT, b"b"), "expected a continuation"),
        (client_frame(TEXT, b"a", final=False) + client_frame(BINARY, b"b", final=False), "got opcode 2"),
        (
            client_frame(TEXT, final=False) + client_frame(CONTINUATION) + client_frame(CONTINUATION),
            "expected the beginning of a message",
        ),
    ],
)
def test_broken_framing_is_1002(data: bytes, reason: str) -> None:
    """Every rule of section 5 that a client breaks is named in a protocol error."""
    error = refusal(data)
    assert error.code == 1002
    assert reason in error.reason
    assert str(error) == f"1002: {error.reason}"


# ---- close frames


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4999])
def test_close_with_a_good_code_is_read(code: int) -> None:
    """Registered and private codes are accepted, with a reason of up to 123 bytes (7.4)."""
    payload = close_body(code, EURO * 41)
    assert outcome([client_frame(CLOSE, payload)]) == ([Message(CLOSE, payload)], None)
    assert read_close(payload) == (code, "€" * 41)


def test_close_without_a_body_has_no_code() -> None:
    """An empty close frame is good, and is read as 1005 (7.1.5)."""
    assert outcome([client_frame(CLOSE)]) == ([Message(CLOSE, b"")], None)
    assert read_close(b"") == (1005, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_with_a_bad_code_is_1002(code: int) -> None:
    """Codes that are reserved, unassigned or out of range are protocol errors (7.4)."""
    assert outcome([client_frame(CLOSE, close_body(code))]) == ([], 1002)


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (close_body(1000, b"\xff"), 1007)])
def test_close_with_a_bad_body_is_refused(payload: bytes, code: int) -> None:
    """Half a code is a protocol error, a reason that is no UTF-8 invalid data (5.5.1)."""
    assert outcome([client_frame(CLOSE, payload)]) == ([], code)


def test_whatever_follows_a_close_frame_is_thrown_away() -> None:
    """After the client's close frame nothing counts any more, good or bad, in this piece or later (5.5.1)."""
    reader = FrameReader()
    close = client_frame(CLOSE, close_body(1000))
    assert reader.feed(close + client_frame(TEXT, b"late")) == [Message(CLOSE, close_body(1000))]
    assert reader.feed(b"\xff" * 100) == []


def test_messages_before_an_error_are_on_it() -> None:
    """Messages completed before the error are not lost, and nothing is read after it (7.1.7)."""
    reader = FrameReader()
    with pytest.raises(FrameError) as caught:
        reader.feed(client_frame(TEXT, b"1") + client_frame(PING) + client_frame(3) + client_frame(PONG))
    assert caught.value.messages == [Message(TEXT, b"1"), Message(PING, b"")]
    assert reader.feed(client_frame(TEXT, b"3")) == []


# ---- limits


def test_message_over_the_limit_is_refused_by_its_header() -> None:
    """One byte too many is 1009, naming the limit, before any of the payload has come (T5)."""
    assert outcome([client_frame(BINARY, bytes(10))], limit=10) == ([Message(BINARY, bytes(10))], None)
    error = refusal(client_frame(BINARY, bytes(11))[:2], limit=10)
    assert (error.code, error.reason) == (1009, "a message may have at most 10 bytes")
    assert refusal(raw(0x82, 0xFF, (65537).to_bytes(8, "big"))).code == 1009


def test_limit_holds_over_all_fragments() -> None:
    """Small fragments are refused when together they are too big; control frames do not count."""
    begin = client_frame(BINARY, bytes(6), final=False) + client_frame(PING, bytes(100))
    good = begin + client_frame(CONTINUATION, bytes(4), final=False) + client_frame(CONTINUATION)
    assert outcome([good], limit=10) == ([Message(PING, bytes(100)), Message(BINARY, bytes(10))], None)
    too_big = client_frame(CONTINUATION, bytes(5))[:2]
    assert outcome([begin, too_big], limit=10) == ([Message(PING, bytes(100))], 1009)


def test_message_of_endless_empty_fragments_is_refused() -> None:
    """Empty fragments are counted, so that a message of nothing ends too."""
    error = refusal(
        client_frame(TEXT, final=False) + client_frame(CONTINUATION, final=False) * 100,
        limit=50,
    )
    assert (error.code, error.reason) == (1009, "a message may have at most 50 fragments")


def test_count_of_fragments_begins_anew_with_each_message() -> None:
    """Many messages of few fragments never meet the limit of one message."""
    pair = client_frame(TEXT, b"a", final=False) + client_frame(CONTINUATION, b"b")
    assert outcome([pair * 20], limit=4) == ([Message(TEXT, b"ab")] * 20, None)


def test_idle_reader_is_small() -> None:
    """Between messages a reader is one object of less than 150 bytes: nothing of a message stays behind."""
    reader = FrameReader()
    data = client_frame(BINARY, bytes(1000), final=False) + client_frame(CONTINUATION, bytes(1000))
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])
    kept = [getattr(reader, name) for name in FrameReader.__slots__]
    assert [value for value in kept if isinstance(value, (bytes, bytearray))] == []
    assert sys.getsizeof(reader) < 150


# ---- any bytes

PAYLOADS = st.binary(max_size=300)
CLOSE_BODIES = st.builds(close_body, st.integers(990, 1020), st.binary(max_size=9))
FRAMES = st.one_of(
    st.builds(
        client_frame,
        st.sampled_from([CONTINUATION, TEXT, BINARY]),
        PAYLOADS | st.text(max_size=80).map(str.encode),
        final=st.booleans(),
        key=st.binary(min_size=4, max_size=4),
    ),
    st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    CLOSE_BODIES.map(lambda body: client_frame(CLOSE, body)),
    st.binary(max_size=4),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut the bytes at these places."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(st.lists(FRAMES, max_size=8).map(b"".join), st.lists(st.integers(0, 4000), max_size=12))
def test_any_split_gives_the_same(stream: bytes, cuts: list[int]) -> None:
    """How the network cuts the bytes into pieces changes neither the messages nor the error."""
    assert outcome(split(stream, cuts), limit=400) == outcome([stream], limit=400)


@given(st.lists(FRAMES, max_size=4).map(b"".join))
@example(client_frame(BINARY, bytes(70_000)))
@example(client_frame(TEXT, b"Hel", final=False) + client_frame(PING) + client_frame(CONTINUATION, b"lo"))
def test_byte_by_byte_gives_the_same(stream: bytes) -> None:
    """A client that sends one byte at a time is read as any other."""
    assert outcome([stream[at : at + 1] for at in range(len(stream))]) == outcome([stream])


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_random_bytes_raise_nothing_but_a_frame_error(pieces: list[bytes]) -> None:
    """Garbage is refused with a code that may be sent, and never anything else."""
    _, code = outcome(pieces, limit=1000)
    assert code in (None, 1002, 1007, 1009)
