"""Tests of handlers/sockets.py, with real sockets: what is sent, what is pending, how each socket ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from handlers.sockets import BATCH_EVENTS, FAILED, FINISHED, GONE, RESET, Poller, SocketSink
from tests.waiting import PATIENCE_SECONDS, wait_until

BIG = bytes(range(256)) * 4096 * 4  # 4 MiB: more than a loopback socket takes at once


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Owner:
    """Remembers what a sink told it, and does in each callback what a test wants."""

    def __init__(self, sink: SocketSink) -> None:
        self.sink = sink
        self.calls: list[str] = []
        self.data = b""
        self.on_call: Callable[[str], object] = lambda call: None
        sink.owner = self

    def on_drained(self) -> None:
        self._called("drained")

    def on_data(self, data: bytes) -> None:
        self.data += data
        self._called("data")

    def on_closed(self, reason: str) -> None:
        self._called(reason)

    def _called(self, call: str) -> None:
        self.calls.append(call)
        self.on_call(call)


class Room:
    """A poller and the connections of one test."""

    def __init__(self, poller: Poller, clock: Clock) -> None:
        self.poller = poller
        self.clock = clock
        self.clients: list[socket.socket] = []

    def connect(self, *, want_data: bool = False, family: int = socket.AF_INET) -> tuple[Owner, socket.socket]:
        """Return the owner of a sink, and the client's end of its connection."""
        ours, client = loopback() if family == socket.AF_INET else neighbours()
        client.setblocking(False)
        self.clients.append(client)
        return Owner(SocketSink(self.poller, ours, want_data=want_data)), client


def loopback() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection, the server's first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


def neighbours() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection that is not TCP."""
    return socket.socketpair()


@contextlib.asynccontextmanager
async def room() -> AsyncIterator[Room]:
    """Open a poller on the running loop; close it and all clients."""
    clock = Clock()
    poller = Poller(asyncio.get_running_loop(), clock=clock)
    opened = Room(poller, clock)
    try:
        yield opened
    finally:
        poller.close()
        for client in opened.clients:
            client.close()


def read(client: socket.socket) -> bytes:
    """Read what has arrived at a client."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := client.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


async def read_all(client: socket.socket, size: int) -> bytes:
    """Read at a client until it has this many bytes."""
    got = bytearray()

    def enough() -> bool:
        got.extend(read(client))
        return len(got) >= size

    await wait_until(enough, f"{size} bytes have arrived")
    return bytes(got)


async def at_end(client: socket.socket) -> None:
    """Wait until a client has come to the end of the stream, before which nothing more may come."""

    def ended() -> bool:
        try:
            piece = client.recv(1)
        except BlockingIOError:
            return False
        assert piece == b""
        return True

    await wait_until(ended, "the client has read the end")


def read_standing_still(client: socket.socket, size: int) -> bytes:
    """Read so many bytes, or up to the end, without a turn of the loop: they were sent before. The kernel may be slow."""
    client.settimeout(PATIENCE_SECONDS)
    try:
        got = b""
        while len(got) < size and (piece := client.recv(size - len(got))):
            got += piece
        return got
    finally:
        client.setblocking(False)


def reset(client: socket.socket) -> None:
    """Close a client's end with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def reset_arrives(owner: Owner, client: socket.socket) -> None:
    """Close a client's end with RST, and return once that has arrived at ours, without a turn of the loop."""
    ours = select.poll()
    ours.register(owner.sink._socket, 0)  # an error is always reported
    reset(client)
    assert ours.poll(PATIENCE_SECONDS * 1000)


async def turn() -> None:
    """Let the loop look at its sockets and make its callbacks, twice: some are scheduled by the first."""
    for _ in range(4):
        await asyncio.sleep(0)


async def called(owner: Owner, call: str) -> None:
    """Wait for a callback."""
    await wait_until(lambda: call in owner.calls, f"{call!r} was called")


# ---- sending


async def test_offer_sends_at_once() -> None:
    """What the kernel takes is with the client before `offer` returns, and nobody is called back."""
    async with room() as here:
        owner, client = here.connect()
        assert owner.sink.offer(b"event")
        assert read_standing_still(client, 5) == b"event"
        assert (owner.sink.pending, owner.sink.stalled_since) == (0, None)
        await turn()
        assert owner.calls == []


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_remainder_is_sent_when_the_client_reads(family: int) -> None:
    """A full socket leaves a remainder; it goes out as the client reads, and `on_drained` is called once."""
    async with room() as here:
        owner, client = here.connect(family=family)
        assert not owner.sink.offer(BIG)
        assert 0 < owner.sink.pending < len(BIG)
        await turn()
        assert owner.calls == []
        assert await read_all(client, len(BIG)) == BIG
        await called(owner, "drained")
        await turn()
        assert owner.calls == ["drained"]
        assert (owner.sink.pending, owner.sink.stalled_since) == (0, None)
        assert owner.sink.offer(b"more")
        assert await read_all(client, 4) == b"more"


async def test_epoll_waits_for_room_only_while_something_is_pending() -> None:
    """A socket with room, or a full one, does not wake the loop again and again."""
    async with room() as here:
        owner, client = here.connect()
        owner.sink.offer(BIG)
        # The kernel may still be moving bytes to the client's side; an epoll that wakes for what is always so never ends.
        await wait_until(lambda: here.poller._epoll.poll(0) == [], "nothing happens any more")
        await read_all(client, len(BIG))
        await called(owner, "drained")
        assert here.poller._epoll.poll(0) == []


async def test_stalled_since_is_the_time_of_the_last_progress() -> None:
    """The time begins with the remainder, moves with every byte that goes out, and stands still otherwise."""
    async with room() as here:
        owner, client = here.connect()
        sink = owner.sink
        sink.offer(BIG)
        assert sink.stalled_since == 100.0
        here.clock.now = 200.0
        await turn()
        before = sink.pending
        since = sink.stalled_since  # 200 if the kernel has meanwhile moved some bytes to the client's side
        here.clock.now = 300.0

        def progressed() -> bool:
            with contextlib.suppress(BlockingIOError):
                client.recv(1 << 16)
            return sink.pending < before

        await wait_until(progressed, "some of the remainder is out")
        assert since in (100.0, 200.0)
        assert sink.stalled_since == 300.0
        assert sink.pending > 0


async def test_stalled_client_holds_little_of_the_kernel() -> None:
    """The kernel takes some 200 KB for a client that does not read; left alone, it takes megabytes."""
    async with room() as here:
        owner, _ = here.connect()
        owner.sink.offer(BIG)
        await turn()
        assert len(BIG) - owner.sink.pending < 1_000_000


async def test_kernel_queue_can_be_left_to_the_system() -> None:
    """With no limit on unsent bytes the option is not touched; small events are never delayed."""
    poller = Poller(asyncio.get_running_loop(), unsent_bytes=0)
    ours, client = loopback()
    untouched = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    with client:
        SocketSink(poller, ours)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == untouched
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert ours.gettimeout() == 0
        poller.close()


async def test_offers_from_on_drained_go_on() -> None:
    """An owner that offers its next chunk when it is called back sends everything, in order."""
    async with room() as here:
        owner, client = here.connect()
        sent, got = bytearray(), bytearray()

        def go_on(call: str) -> None:
            """Offer until something is pending, which what the kernel takes at once is not; enough is what was called for three times."""
            taken = True
            while taken and owner.calls.count("drained") < 3:
                chunk = os.urandom(1_000_000)
                sent.extend(chunk)
                taken = owner.sink.offer(chunk)

        def all_arrived() -> bool:
            got.extend(read(client))
            return owner.calls.count("drained") == 3 and owner.sink.pending == 0 and len(got) == len(sent)

        owner.on_call = go_on
        go_on("")
        await wait_until(all_arrived, "everything has arrived")
        assert got == sent
        assert owner.calls == ["drained"] * 3


async def test_offer_while_pending_is_a_mistake_of_the_caller() -> None:
    """Offering again before `on_drained` would lose the order, and is refused loudly."""
    async with room() as here:
        owner, _ = here.connect()
        owner.sink.offer(BIG)
        with pytest.raises(AssertionError, match="an earlier offer is pending"):
            owner.sink.offer(b"more")


async def test_offer_to_a_full_socket_is_pending_as_a_whole() -> None:
    """When the kernel takes nothing, all that is offered waits; a false alarm changes nothing."""
    async with room() as here:
        owner, client = here.connect(want_data=True, family=socket.AF_UNIX)  # nothing leaves it before it is read
        already = 0
        same = socket.socket(fileno=os.dup(owner.sink._socket.fileno()))
        with same, contextlib.suppress(BlockingIOError):
            while True:
                already += same.send(BIG)
        assert not owner.sink.offer(b"event")
        owner.sink._handle(select.EPOLLIN | select.EPOLLOUT)
        assert owner.sink.pending == 5
        assert owner.calls == []
        assert (await read_all(client, already + 5))[-5:] == b"event"
        await called(owner, "drained")


async def test_one_that_does_not_read_delays_nobody() -> None:
    """While one socket is full, the others take every event at once."""
    async with room() as here:
        stalled, _ = here.connect()
        reading, client = here.connect()
        stalled.sink.offer(BIG)
        for _ in range(100):
            assert reading.sink.offer(b"event")
            await asyncio.sleep(0)  # let the epoll report what it has
        assert read_standing_still(client, 500) == b"event" * 100
        assert stalled.sink.pending > 0


# ---- receiving


async def test_data_goes_to_an_owner_that_wants_it() -> None:
    """What the client sends arrives in order, at most 64 KiB in one call."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        sizes: list[int] = []
        owner.on_call = lambda call: sizes.append(len(owner.data) - sum(sizes))
        sent = client.send(BIG)
        await wait_until(lambda: len(owner.data) == sent, "all sent bytes have arrived")
        assert owner.data == BIG[:sent]
        assert max(sizes) <= 65536
        assert set(owner.calls) == {"data"}


async def test_unwanted_data_is_read_and_thrown_away() -> None:
    """A client that sends on an event stream neither fills a buffer nor reaches the owner."""
    async with room() as here:
        owner, client = here.connect()
        total = 0

        def sent_much() -> bool:
            nonlocal total
            with contextlib.suppress(BlockingIOError):
                total += client.send(BIG)
            return total > 3 * len(BIG)

        await wait_until(sent_much, "more was sent than any buffer holds")
        assert owner.calls == []
        assert owner.sink.offer(b"still here")


# ---- the client ends the connection


@pytest.mark.parametrize("want_data", [False, True])
@pytest.mark.parametrize("half", [False, True])
async def test_client_that_closes_is_gone(want_data: bool, half: bool) -> None:
    """The end of the client's side, or a half-close, closes the socket and calls the owner once."""
    async with room() as here:
        owner, client = here.connect(want_data=want_data)
        if half:
            client.shutdown(socket.SHUT_WR)
        else:
            client.close()
        await called(owner, GONE)
        await turn()
        assert owner.calls == [GONE]
        assert owner.sink.closed
        assert len(here.poller) == 0


async def test_last_data_comes_before_the_end() -> None:
    """What a client sent just before it closed still reaches the owner, first."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        client.send(b"bye")
        client.close()
        await called(owner, GONE)
        assert owner.calls == ["data", GONE]
        assert owner.data == b"bye"


@pytest.mark.parametrize("want_data", [False, True])
@pytest.mark.parametrize("pending", [False, True])
async def test_client_that_resets_is_reset(want_data: bool, pending: bool) -> None:
    """A reset is told once, whether the connection is idle or has bytes pending; those are dropped."""
    async with room() as here:
        owner, client = here.connect(want_data=want_data)
        if pending:
            owner.sink.offer(BIG)
        reset_arrives(owner, client)
        await called(owner, RESET)
        await turn()
        assert owner.calls == [RESET]
        assert (owner.sink.pending, owner.sink.stalled_since) == (0, None)


async def test_offer_to_a_reset_socket_returns_before_it_tells() -> None:
    """An error found by `offer` reaches the owner later, and once: a fan-out is never entered again."""
    async with room() as here:
        owner, client = here.connect()
        reset_arrives(owner, client)
        assert not owner.sink.offer(b"1")
        assert not owner.sink.offer(b"2")
        assert owner.calls == []
        await called(owner, RESET)
        await turn()
        assert owner.calls == [RESET]


async def test_error_found_while_sending_the_rest_closes() -> None:
    """An end of our own side that somebody else made is found when the remainder should go out."""
    async with room() as here:
        owner, client = here.connect()
        owner.sink.offer(BIG)
        with socket.socket(fileno=os.dup(owner.sink._socket.fileno())) as same:
            same.shutdown(socket.SHUT_WR)
        await read_all(client, 1)
        await called(owner, RESET)
        assert owner.calls == [RESET]


# ---- we end the connection


@pytest.mark.parametrize("want_data", [False, True])
async def test_finish_sends_the_last_bytes_and_waits_for_the_client(want_data: bool) -> None:
    """The client gets the last bytes and the end of the stream; the sink goes when the client closes."""
    async with room() as here:
        owner, client = here.connect(want_data=want_data)
        owner.sink.finish(b"closing")
        owner.sink.finish(b"only once")
        assert await read_all(client, 7) == b"closing"
        await at_end(client)
        client.send(b"too late")
        await turn()
        assert owner.calls == []
        assert len(here.poller) == 1
        client.close()
        await called(owner, FINISHED)
        assert owner.calls == [FINISHED]
        assert len(here.poller) == 0


async def test_finish_sends_what_is_pending_first() -> None:
    """Nothing pending is lost by an orderly end, and `on_drained` does not invite to more."""
    async with room() as here:
        owner, client = here.connect()
        owner.sink.offer(BIG)
        owner.sink.finish(b"closing")
        assert not owner.sink.offer(b"refused")
        assert await read_all(client, len(BIG) + 7) == BIG + b"closing"
        await at_end(client)
        client.close()
        await called(owner, FINISHED)
        assert owner.calls == [FINISHED]


async def test_finish_with_more_than_the_socket_takes() -> None:
    """Last bytes that do not fit become pending, and the end of the stream follows them."""
    async with room() as here:
        owner, client = here.connect()
        owner.sink.finish(BIG)
        assert owner.sink.pending > 0
        assert await read_all(client, len(BIG)) == BIG
        await at_end(client)


async def test_client_that_leaves_before_it_has_read_the_end_is_gone() -> None:
    """A client that closes while the end of the stream is still pending has not finished."""
    async with room() as here:
        owner, client = here.connect()
        owner.sink.offer(BIG)
        owner.sink.finish()
        client.shutdown(socket.SHUT_WR)
        await called(owner, GONE)
        assert owner.calls == [GONE]


async def test_finish_without_last_bytes_ends_the_stream() -> None:
    """An orderly end needs no last bytes; `on_drained` may call for it."""
    async with room() as here:
        owner, client = here.connect()
        owner.on_call = lambda call: owner.sink.finish()
        owner.sink.offer(BIG)
        assert await read_all(client, len(BIG)) == BIG
        await at_end(client)
        assert owner.calls == ["drained"]


@pytest.mark.parametrize("last", [b"", b"closing"])
async def test_finish_of_a_reset_socket_tells_later(last: bytes) -> None:
    """Finishing a connection that is already lost tells so once, in a later turn."""
    async with room() as here:
        owner, client = here.connect()
        reset_arrives(owner, client)
        owner.sink.finish(last)
        assert owner.calls == []
        await wait_until(lambda: owner.calls, "the sink is closed")
        await turn()
        assert len(owner.calls) == 1
        assert owner.sink.closed


@pytest.mark.parametrize("with_reset", [False, True])
async def test_abort_is_silent_and_may_be_repeated(with_reset: bool) -> None:
    """Aborting closes at once, with FIN or RST, calls nobody back, and leaves every other call harmless."""
    async with room() as here:
        owner, client = here.connect()
        owner.sink.abort(reset=with_reset)
        owner.sink.abort(reset=with_reset)
        owner.sink.finish(b"closing")
        assert not owner.sink.offer(b"event")
        await turn()
        assert owner.calls == []
        assert len(here.poller) == 0
        if with_reset:
            with pytest.raises(ConnectionResetError):
                read_standing_still(client, 1)
        else:
            assert read_standing_still(client, 1) == b""


async def test_abort_after_a_failed_offer_is_silent() -> None:
    """An owner that aborts before it was told of an error is not told any more."""
    async with room() as here:
        owner, client = here.connect()
        reset_arrives(owner, client)
        assert not owner.sink.offer(b"event")
        owner.sink.abort()
        await turn()
        assert owner.calls == []


# ---- callbacks that end connections


async def test_owner_may_abort_itself_and_others_in_a_callback() -> None:
    """Sinks aborted by a callback get none of the events that were reported together with it."""
    async with room() as here:
        pairs = [here.connect(want_data=True) for _ in range(5)]
        owners = [owner for owner, _ in pairs]

        def abort_all(call: str) -> None:
            for owner in owners:
                owner.sink.abort()

        for owner, client in pairs:
            owner.on_call = abort_all
            client.send(b"x")
        await wait_until(lambda: any(owner.calls for owner in owners), "one owner was called")
        await turn()
        assert sorted(owner.calls for owner in owners) == [[], [], [], [], ["data"]]
        assert len(here.poller) == 0


async def test_new_sink_gets_no_event_of_an_old_descriptor() -> None:
    """A descriptor closed and given to a new connection within one batch leaves the old event behind."""
    async with room() as here:
        pairs = [here.connect() for _ in range(2)]
        numbers = {owner: owner.sink._socket.fileno() for owner, _ in pairs}
        waiting, late_client = loopback()
        late: list[Owner] = []

        def replace_the_other(call: str) -> None:
            other = next(owner for owner, _ in pairs if not owner.calls)
            other.sink.abort()
            os.dup2(waiting.fileno(), numbers[other])
            late.append(Owner(SocketSink(here.poller, socket.socket(fileno=numbers[other]))))

        for owner, client in pairs:
            owner.on_call = replace_the_other
            client.close()  # an old event would tell the new sink that its client is gone
        await wait_until(lambda: late, "one owner was called")
        waiting.close()
        await turn()
        assert sorted(owner.calls for owner, _ in pairs) == [[], [GONE]]
        assert late[0].calls == []
        with late_client:
            assert late[0].sink.offer(b"for the new one")
            assert late_client.recv(100) == b"for the new one"


async def test_abort_in_on_drained_and_in_on_closed_is_harmless() -> None:
    """The last of all callbacks may end the connection that is calling, or one that has ended."""
    async with room() as here:
        drained, reader = here.connect()
        closed, leaver = here.connect()
        for owner in (drained, closed):
            owner.on_call = lambda call, sink=owner.sink: sink.abort()  # type: ignore[misc]
        drained.sink.offer(BIG)
        leaver.close()
        await read_all(reader, len(BIG))
        await wait_until(lambda: len(here.poller) == 0, "both are closed")
        assert (drained.calls, closed.calls) == (["drained"], [GONE])


async def test_fault_of_one_owner_is_logged_and_ends_only_its_connection(
    expected_logs: list[str],
) -> None:
    """An exception in a callback closes that connection as failed; the others get their events."""
    async with room() as here:
        faulty, first = here.connect(want_data=True)
        sound, second = here.connect(want_data=True)
        faulty.on_call = lambda call: 1 / 0 if call == "data" else None
        expected_logs.append("the owner of a connection failed")
        first.send(b"x")
        second.send(b"y")
        await called(faulty, FAILED)
        await called(sound, "data")
        assert faulty.calls == ["data", FAILED]
        assert sound.calls == ["data"]
        assert len(here.poller) == 1


# ---- the poller


async def test_work_of_one_turn_is_bounded() -> None:
    """At most one batch of events is handled in a turn of the loop; the rest follows in the next ones."""
    async with room() as here:
        count = 2 * BATCH_EVENTS + 10
        owners = []
        for _ in range(count):
            owner, client = here.connect(want_data=True, family=socket.AF_UNIX)
            owners.append(owner)
            client.send(b"x")
        done = [0]
        while done[-1] < count:
            await asyncio.sleep(0)  # one turn
            done.append(sum(len(owner.calls) for owner in owners))
        steps = [after - before for before, after in pairwise(done)]
        assert max(steps) == BATCH_EVENTS
        assert [owner.calls for owner in owners] == [["data"]] * count


async def test_closing_the_poller_aborts_its_sinks() -> None:
    """Sinks that are open, full or finishing are closed without a call back; closing twice is harmless."""
    async with room() as here:
        pairs = [here.connect() for _ in range(3)]
        pairs[0][0].sink.offer(BIG)
        pairs[1][0].sink.finish()
        assert len(here.poller) == 3
        here.poller.close()
        here.poller.close()
        await turn()
        assert len(here.poller) == 0
        assert [owner.calls for owner, _ in pairs] == [[], [], []]
        assert all(owner.sink.closed for owner, _ in pairs)


async def test_poller_may_be_closed_in_a_callback() -> None:
    """Events reported together with the one that closed the poller reach nobody."""
    async with room() as here:
        pairs = [here.connect(want_data=True) for _ in range(3)]
        for owner, client in pairs:
            owner.on_call = lambda call: here.poller.close()
            client.send(b"x")
        await wait_until(lambda: len(here.poller) == 0, "the poller is closed")
        await turn()
        assert sorted(owner.calls for owner, _ in pairs) == [[], [], ["data"]]


async def test_closed_poller_takes_no_sink() -> None:
    """A sink made after the end is refused, and its socket stays the caller's to close."""
    async with room() as here:
        here.poller.close()
        ours, client = loopback()
        with ours, client:
            with pytest.raises(ValueError, match="closed epoll"):
                SocketSink(here.poller, ours)
            assert ours.fileno() >= 0


async def test_sink_without_an_owner_is_harmless() -> None:
    """Events before an owner is set, or after the end, reach nobody."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        same = socket.socket(fileno=os.dup(owner.sink._socket.fileno()))
        sink = SocketSink(here.poller, same, want_data=True)
        owner.sink.abort()
        sink.offer(BIG)
        client.send(b"x")
        await read_all(client, len(BIG))
        client.close()
        await wait_until(lambda: sink.closed, "the sink is closed")
        assert owner.calls == []


async def test_closed_connection_is_freed_at_once() -> None:
    """A sink and its owner know each other; closing parts them, so that no garbage collector is needed."""
    async with room() as here:
        owner, _ = here.connect()
        freed = weakref.ref(owner)
        owner.sink.abort()
        del owner
        assert freed() is None


async def test_sink_is_small() -> None:
    """A sink is one object of little more than a hundred bytes beside its socket."""
    async with room() as here:
        owner, _ = here.connect()
        assert sys.getsizeof(owner.sink) <= 120
        assert not hasattr(owner.sink, "__dict__")
