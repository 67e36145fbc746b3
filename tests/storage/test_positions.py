"""Event ids: what was issued opens again, and nothing else does."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import UnknownPosition
from storage.positions import MAX_ID_LENGTH, RECREATED, UNKNOWN, Position, PositionCodec

CODEC = PositionCodec(b"\x01\x02\x03\x04", bytes(range(16)))
SEQ, MS = 41, 1_700_000_000_000
ID = CODEC.encode(SEQ, MS)

numbers = st.integers(0, 2**64 - 1)


def reason(text: str, codec: PositionCodec = CODEC) -> str:
    """Decode what was never issued, and return what is said of it."""
    with pytest.raises(UnknownPosition) as caught:
        codec.decode(text)
    return caught.value.reason


def sealed(id: str) -> bytes:
    """Return the suffix of an id but for its epoch."""
    return urlsafe_b64decode(id.partition("-")[2] + "=")[4:]


@given(numbers, numbers)
def test_an_id_opens_to_its_own_number_and_time(seq: int, ms: int) -> None:
    """For every 64-bit number and time."""
    assert CODEC.decode(CODEC.encode(seq, ms)) == Position(seq, ms)


@given(numbers, numbers)
def test_an_id_begins_with_its_time_and_fits_the_longest_that_is_read(seq: int, ms: int) -> None:
    """Its form is `<milliseconds since 1970>-<suffix>`, of characters that are safe in a URL."""
    id = CODEC.encode(seq, ms)
    assert id.startswith(f"{ms}-")
    assert len(id) <= MAX_ID_LENGTH
    assert set(id) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-")


def test_two_codecs_of_the_same_log_issue_the_same_ids() -> None:
    """An id is stable over processes and restarts."""
    assert PositionCodec(CODEC.epoch, bytes(range(16))).encode(SEQ, MS) == ID


def test_an_id_does_not_tell_how_many_events_lie_between_two() -> None:
    """Beyond the epoch, ids of neighbours agree in half of their bits, as chance would have it, and never in a whole suffix."""
    pairs = [(sealed(CODEC.encode(seq, MS)), sealed(CODEC.encode(seq + 1, MS))) for seq in range(500)]
    differing = [(int.from_bytes(one) ^ int.from_bytes(other)).bit_count() for one, other in pairs]
    assert min(differing) > 30  # of 128; chance makes it smaller once in 10^9
    assert 62 < sum(differing) / len(differing) < 66
    for bit in range(128):  # no bit stays, and none always changes
        assert 0 < sum(((int.from_bytes(one) ^ int.from_bytes(other)) >> bit) & 1 for one, other in pairs) < 500


def test_no_number_is_seen_in_its_id() -> None:
    """The number's own bytes do not occur in the suffix."""
    assert (7).to_bytes(8) not in sealed(CODEC.encode(7, 7))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "--",
        "0",
        "earliest",
        f"{MS}",
        f"{MS}-",
        f"{MS}-!!!!",
        f"{MS}-" + "A" * 26,
        f"{MS}-" + "A" * 28,
        ID + "A",
        ID + " ",
        " " + ID,
        ID + "\n",
        ID + "=",
        ID[:-1],
        ID * 100_000,
        "9" * 1_000_000,
        "é",
        f"{MS}-ünïcödé",
        "\ud800",
        f"\ud800{ID}",
        "\x00" * 40,
        ID.replace("1", "\u0661", 1),
    ],
)
def test_garbage_is_an_unknown_position(text: str) -> None:
    """Whatever its length and characters."""
    assert reason(text) == UNKNOWN


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    """Not as a whole, not as a time and not as a suffix."""
    for id in (text, f"{MS}-{text}", f"{text}-{ID.partition('-')[2]}"):
        if id != ID:
            assert reason(id) == UNKNOWN


@pytest.mark.parametrize("time", [MS + 1, MS - 1, 0, -MS, 2**64, 2**64 + MS, 10**4000, f"0{MS}", f"+{MS}", f"{MS}.0", "²", "-1", ""])
def test_an_altered_time_is_an_unknown_position(time: object) -> None:
    """The suffix opens to its own time part only, in its one spelling."""
    assert reason(f"{time}-{ID.partition('-')[2]}") == UNKNOWN


@given(st.integers(0, 15), st.integers(1, 255))
def test_an_altered_suffix_is_an_unknown_position(place: int, change: int) -> None:
    """Whichever byte beyond the epoch it is."""
    raw = bytearray(CODEC.epoch + sealed(ID))
    raw[4 + place] ^= change
    assert reason(f"{MS}-{urlsafe_b64encode(bytes(raw))[:-1].decode()}") == UNKNOWN


def test_another_spelling_of_the_same_suffix_is_an_unknown_position() -> None:
    """Base64 leaves two bits of the last character unused: only the spelling that was issued is known."""
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = ID[:-1] + last[last.index(ID[-1]) + 1]
    assert sealed(other) == sealed(ID)
    assert reason(other) == UNKNOWN


@given(numbers, numbers)
def test_an_id_of_another_epoch_is_of_a_log_that_was_recreated(seq: int, ms: int) -> None:
    """The key is another one too."""
    other = PositionCodec(b"\x01\x02\x03\x05", bytes(16))
    assert reason(other.encode(seq, ms)) == RECREATED
    assert reason(CODEC.encode(seq, ms), other) == RECREATED


@pytest.mark.parametrize("time", ["", "-5", "soon", "²", " 1"])
def test_another_epoch_without_a_time_is_garbage(time: str) -> None:
    """No log ever issued it."""
    suffix = PositionCodec(b"abcd", bytes(16)).encode(SEQ, MS).partition("-")[2]
    assert reason(f"{time}-{suffix}") == UNKNOWN


def test_the_same_epoch_with_another_key_is_unknown() -> None:
    """Nobody can make ids up from the epoch, which everyone sees."""
    assert reason(PositionCodec(CODEC.epoch, b"guessed guessed!").encode(SEQ, MS)) == UNKNOWN
