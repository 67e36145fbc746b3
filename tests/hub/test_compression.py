"""Tests of hub/compression.py: streams made of shared pieces are whole gzip members, and small ones."""

from __future__ import annotations

import gc
import gzip
import json
import zlib
from collections.abc import Collection
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import demo
from channels.families import CATALOGUE, EVENT_TYPES
from hub import compression
from hub.compression import (
    LEAST_HISTORY_BYTES,
    MAX_HISTORIES,
    MOST_HISTORY_BYTES,
    REPEATED_BYTES,
    SHORT_BYTES,
    TABLES_PAY_BYTES,
    GzipStream,
    Shared,
)
from hub.formats import chunk, sse_event
from tests.hub.decoding import read_chunks
from tests.hub.fakes import CODEC, FIRST_MS


class Client:
    """A client that reads what it is sent at once, and remembers what it should have read."""

    def __init__(self) -> None:
        self.stream = GzipStream()
        self.owed = b""
        self.sent = b""  # without the framing of chunks
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def alone(self, body: bytes) -> None:
        self.take(body, self.stream.pack(body))

    def end(self, body: bytes) -> None:
        self.take(body, self.stream.end(body), last=True)

    def take(self, body: bytes, data: bytes, *, last: bool = False) -> None:
        content, ended = read_chunks(data)
        self.owed += body
        self.sent += content
        assert self._inflater.decompress(content) == body, "everything that was sent is there at once"
        assert (self._inflater.eof, ended, self._inflater.unused_data) == (last, last, b"")


def share(body: bytes, *clients: Client) -> Shared:
    """Send several clients the same."""
    shared = Shared(body, [one.stream for one in clients])
    for one in clients:
        one.take(body, shared.pack(one.stream))
    return shared


def text(random: Random, size: int) -> bytes:
    """Return some text of this size, with repetitions."""
    words = [b"order", b"price", b"update", b"12.50", b'"id":', b"\n", random.randbytes(4).hex().encode()]
    made = b" ".join(random.choice(words) for _ in range(size // 3 + 1))
    return made[:size]


def price(number: int) -> bytes:
    """Return an event as it is sent."""
    data = {"symbol": "AAPL", "price": f"{180 + number % 7}.25", "bid": "180.10", "ask": "180.30", "timestamp": "2026-01-05T14:30:00Z"}
    return sse_event("price:update", json.dumps(data), CODEC.encode(number, FIRST_MS + number))


def test_stream_is_one_gzip_member() -> None:
    """Header, what was sent in the order of sending, and a trailer that any reader of gzip accepts (RFC 1952)."""
    client, other = Client(), Client()
    client.alone(b"welcome" * 20)
    share(b"together" * 20, client, other)
    client.alone(b":heartbeat\n\n")
    share(b"again" * 30, client, other)
    client.end(b"closing" * 20)
    assert gzip.decompress(client.sent) == client.owed


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 12), st.integers(1, 40))
def test_whatever_is_sent_to_whom_each_client_reads_exactly_that(seed: int, count: int, steps: int) -> None:
    """Alone or together, long or short, in any order, at once; and each stream ends as a valid member (L9, T7)."""
    random = Random(seed)
    patches = pytest.MonkeyPatch()
    patches.setattr(compression, "TABLES_PAY_BYTES", random.choice([1, 10_000, TABLES_PAY_BYTES]))
    clients = [Client() for _ in range(count)]
    try:
        for _ in range(steps):
            size = random.choice([1, 20, SHORT_BYTES, SHORT_BYTES + 1, 300, 300, 300, REPEATED_BYTES, 5000, 20_000, 70_000])
            body = text(random, size)
            if random.random() < 0.3:
                random.choice(clients).alone(body)
            else:
                share(body, *random.sample(clients, random.randint(1, count)))
    finally:
        patches.undo()
    for one in clients:
        one.end(text(random, 120))
        assert gzip.decompress(one.sent) == one.owed


def test_clients_with_the_same_history_get_the_same_bytes() -> None:
    """Who came at another time, or got something alone, shares again at once what all get (one compression for all)."""
    old, new = Client(), Client()
    for number in range(20):
        share(price(number), old)
    new.alone(b"w" * 500)
    share(price(20), old, new)
    assert old.stream.history is not new.stream.history
    for number in range(21, 100):
        share(price(number), old, new)
    assert old.stream.history is new.stream.history
    shared = Shared(price(100), [old.stream, new.stream])
    assert shared.pack(old.stream) == shared.pack(new.stream)


def test_a_body_is_compressed_for_few_histories_only() -> None:
    """Of many different ones the commonest are used, and the rest of the clients have one in common afterwards."""
    clients = [Client() for _ in range(3 * MAX_HISTORIES)]
    for number, one in enumerate(clients):
        share(price(number // 2), one)
    twins = [(one.stream.history, other.stream.history) for one, other in zip(clients[::2], clients[1::2], strict=True)]
    assert all(one == other for one, other in twins)
    share(price(100), *clients)
    histories = [one.stream.history for one in clients]
    assert len(set(histories)) == MAX_HISTORIES + 1
    assert histories.count(price(100)) == len(clients) - 2 * MAX_HISTORIES


def test_history_is_bounded() -> None:
    """A client costs no more than the last few kilobytes it had."""
    client = Client()
    for size in (300, MOST_HISTORY_BYTES - 1, MOST_HISTORY_BYTES, MOST_HISTORY_BYTES + 1, 100_000):
        share(text(Random(size), size), client)
        assert len(client.stream.history) <= MOST_HISTORY_BYTES
        assert client.owed.endswith(client.stream.history)


def test_histories_are_shorter_where_there_are_many_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """All together take no more than they may, even if each client has had something else; but each has a useful rest (T7)."""
    gc.collect()  # others that nobody refers to any more, and which may go at any moment
    living = GzipStream.living
    client = Client()
    assert GzipStream.living == living + 1
    for budget, expected in ((10**9, MOST_HISTORY_BYTES), (5000 * (living + 1), 5000), (0, LEAST_HISTORY_BYTES)):
        monkeypatch.setattr(compression, "HISTORIES_BYTES", budget)
        share(bytes(20_000), client)
        assert len(client.stream.history) == expected
        client.alone(b":heartbeat\n\n")
        assert len(client.stream.history) == expected
    del client
    assert GzipStream.living == living


def test_what_is_for_one_alone_is_not_referred_to_later() -> None:
    """What is secret in a `welcome` cannot be guessed from the sizes of what comes after it, nor of itself."""
    client = Client()
    share(price(1), client)
    client.alone(b"resumeToken" * 20)
    assert client.stream.history == b""


def test_heartbeat_leaves_the_history_as_it_was_and_is_shared() -> None:
    """A client that gets an event a minute has them compressed all the same; those that beat together stay together."""
    one, other = Client(), Client()
    share(price(1), one, other)
    for client in (one, other):
        client.alone(b":heartbeat\n\n")
    assert one.stream.history is other.stream.history
    assert one.stream.history == price(1) + b":heartbeat\n\n"


def test_what_many_come_back_to_is_compressed_once() -> None:
    """A thousand clients that return at once get the same chunks."""
    compression._deflate_once.cache_clear()
    for client in (Client(), Client(), Client()):
        client.alone(b"".join(map(price, range(200))))
    assert compression._deflate_once.cache_info()[:2] == (2, 1)


def test_size_beyond_four_gigabytes_is_written_modulo() -> None:
    """RFC 1952, 2.3.1: ISIZE is the size modulo 2^32."""
    stream = GzipStream()
    stream.size = (5 << 32) - 3
    assert stream.end(b"abcdefg")[-11:-7] == (4).to_bytes(4, "little")


def one_by_one(types: Collection[str], count: int) -> float:
    """Return by which part events of these types get smaller, sent one by one after a `welcome`, chunk framing included."""
    client = Client()
    client.alone(b"w" * 500)
    plain = packed = 0
    events = islice((one for one in demo.events(lambda: FIRST_MS / 1000) if one.type in types), count)
    for number, one in enumerate(events):
        body = sse_event(one.type, one.data, CODEC.encode(number, FIRST_MS + 137 * number))
        sent = len(client.sent)
        share(body, client)
        plain += len(chunk(body))
        packed += len(chunk(client.sent[sent:]))
    return 1 - packed / plain


@pytest.mark.parametrize("name", [channel.name for channel in CATALOGUE.channels.values() if channel.events])
def test_a_familys_events_are_60_percent_smaller(name: str) -> None:
    """The first of them included, sent one by one as in the demo feed, ids and all (T7)."""
    assert one_by_one({type.name for type in CATALOGUE.channels[name].events}, 100) > 0.6


def test_events_of_all_types_in_turn_are_60_percent_smaller() -> None:
    """What somebody gets who listens to everything (T7)."""
    assert one_by_one(EVENT_TYPES, 400) > 0.6
