"""Tests of hub/roll.py: however connections are spread over processes, exactly the newest stay. Processes exchange through a board."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.connection import Connection
from hub.errors import REPLACED, TooMany
from hub.formats import SSE
from hub.hub import Hub
from storage.roll import Told
from tests.hub.fakes import ListLog, ManualClock, RecordingSink, connect, everything, make_entries, make_principal, place_of

ALL = 1000
TOO_MANY = "too many connections"


class Board:
    """What storage.roll does for processes, in a list; and the time, in seconds since all began."""

    def __init__(self) -> None:
        self.log: list[Told] = []
        self.told_at: dict[str, int] = {}
        self.processes: list[Process] = []
        self.seconds = 0.0

    def others(self, own: str) -> dict[str, int]:
        return {one.server: self.told_at.get(one.server, 0) for one in self.processes if one.server != own}

    def ask(self, own: str, names: list[str]) -> list[Told]:
        newest = {(one.server, one.name): one for one in self.log if one.name in names and one.server in self.others(own)}
        return list(newest.values())


class Process:
    """One server process: a hub whose clock began at a time of its own, and its place on the board."""

    def __init__(self, board: Board, server: str, *, per_user: int = 0, per_org: int = 0) -> None:
        self.board, self.server = board, server
        self.clock = ManualClock()
        self.clock.now = self._zero = 1000.0 * (1 + ord(server[0]))
        self.hub = Hub(ListLog(make_entries(1, 1)), self.clock, connections_per_user=per_user, connections_per_org=per_org)
        self.hub.start(place_of(1))
        self.roll = self.hub.rights.roll
        self._heard = 0
        self.begin()

    def begin(self) -> None:
        """Begin, with nothing told or heard."""
        self.roll.begin(self.server, -self._zero)
        self._heard = 0
        if self not in self.board.processes:
            self.board.processes.append(self)

    def open(self, user: str = "u1", org: str | None = None, seconds: float | None = None) -> tuple[Connection, RecordingSink]:
        """Open a connection, so many seconds after all processes began."""
        self.pass_to(self.board.seconds if seconds is None else seconds)
        principal = replace(make_principal(user), org=org)
        self.hub.rights.check(principal)
        connection, sink = connect(self.hub, SSE, self.clock, principal=principal)
        self.hub.open(connection, everything(), None)
        return connection, sink

    def exchange(self, most: int = ALL) -> list[str]:
        """Tell and hear once, and return the names that were told."""
        board = self.board
        self.pass_to(board.seconds)
        self.roll.meet(board.others(self.server))
        taken, board.told_at[self.server] = self.roll.take(most, self.clock.monotonic())
        board.log += [Told(self.server, name, tuple(numbers)) for name, numbers in taken.items()]
        heard, self._heard = board.log[self._heard :], len(board.log)
        told = [one for one in heard if one.server in board.others(self.server)]
        self.roll.hear(told + board.ask(self.server, self.roll.strangers(taken)), taken)
        return list(taken)

    def pass_to(self, seconds: float) -> None:
        """Let it be so late, for all."""
        self.board.seconds = seconds
        self.clock.now = self._zero + seconds

    def end(self) -> None:
        """Be gone."""
        self.board.processes.remove(self)

    @property
    def open_now(self) -> int:
        return len(self.hub.connections)


def processes(count: int, **limits: int) -> list[Process]:
    """Return so many processes that are in touch with each other."""
    board = Board()
    made = [Process(board, "abcdef"[index], **limits) for index in range(count)]
    meet(made)
    return made


def meet(every: list[Process]) -> None:
    """Let all exchange until nothing is new to anybody: each tells, and each hears what the last one told."""
    for _ in range(2):
        for one in every:
            one.exchange()


@pytest.fixture
def _limits_are_logged(expected_logs: list[str]) -> None:
    expected_logs.append(TOO_MANY)


# ---- users

OPENING = st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans())  # process, milliseconds since the one before, exchange then


@pytest.mark.usefixtures("_limits_are_logged")
@given(openings=st.lists(OPENING, max_size=12), limit=st.integers(1, 4), order=st.permutations(range(3)))
def test_exactly_the_newest_stay_wherever_they_are(openings: list[tuple[int, int, bool]], limit: int, order: list[int]) -> None:
    """Opened anywhere, also in the same millisecond, while counts are exchanged at any moments."""
    every = processes(3, per_user=limit)
    ms, opened = 0, []
    for index, (number, later, exchange) in enumerate(openings):
        ms += later
        process = every[number]
        connection, _ = process.open(seconds=ms / 1000)
        opened.append(((ms, process.server, index), connection))
        if exchange:
            every[order[index % 3]].exchange()
    meet([every[number] for number in order])
    newest = sorted(opened, key=lambda one: one[0])[-limit:]
    assert [connection.closed for _, connection in sorted(opened, key=lambda one: one[0])] == (
        [True] * (len(opened) - len(newest)) + [False] * len(newest)
    )


EVENT = st.tuples(st.integers(0, 2), st.sampled_from(["open", "leave", "exchange"]), st.sampled_from(["u1", "u2"]))


@pytest.mark.usefixtures("_limits_are_logged")
@given(events=st.lists(EVENT, max_size=30), limit=st.integers(1, 3))
def test_nobody_has_too_many_once_all_have_heard(events: list[tuple[int, str, str]], limit: int) -> None:
    """Whoever comes and goes in between; and nothing is remembered of those who are gone."""
    every = processes(3, per_user=limit)
    for ms, (number, what, user) in enumerate(events):
        process = every[number]
        process.pass_to(ms / 1000)
        if what == "open":
            process.open(user)
        elif what == "exchange":
            process.exchange()
        elif process.hub.rights.census.of("user", user):
            process.hub.gone(process.hub.rights.census.of("user", user)[0], "gone")
    meet(every)
    for user in ("u1", "u2"):
        assert sum(one.hub.rights.census.count("user", user) for one in every) <= limit
    meet(every)  # whoever was closed just now is told and forgotten as well
    for one in every:
        assert len(one.roll.elsewhere) <= one.hub.rights.census.users()


@pytest.mark.usefixtures("_limits_are_logged")
def test_who_is_closed_is_told_why() -> None:
    """The same as within one process, and nobody else's connection is touched."""
    a, b = processes(2, per_user=2)
    oldest, sink = a.open(seconds=1)
    other, _ = a.open("u2", seconds=2)
    b.open(seconds=3)
    b.open(seconds=4)
    meet([a, b])
    assert oldest.closed
    assert not other.closed
    assert sink.received[-1].fields == {"code": REPLACED, "reason": "a newer connection took its place: a user has at most 2"}
    assert b.open_now == 2


@pytest.mark.usefixtures("_limits_are_logged")
def test_a_process_that_comes_later_is_told_everything() -> None:
    """What was opened while nobody listened counts as well."""
    board = Board()
    a = Process(board, "a", per_user=2)
    oldest, _ = a.open(seconds=1)
    a.open(seconds=2)
    b = Process(board, "b", per_user=2)
    b.open(seconds=3)
    meet([a, b])
    assert oldest.closed
    assert (a.open_now, b.open_now) == (1, 1)


def test_a_process_that_is_gone_does_not_count() -> None:
    """Its connections are over: others may take their place."""
    a, b, c = processes(3, per_user=2)
    for process in (a, b):
        process.open(seconds=1)
    meet([a, b, c])
    b.end()
    meet([a, c])
    c.open(seconds=2)
    meet([a, c])
    assert (a.open_now, c.open_now) == (1, 1)


def test_connections_that_ended_do_not_count() -> None:
    """Also of a user who left a process altogether and came back."""
    a, b = processes(2, per_user=2)
    connection, _ = a.open(seconds=1)
    b.open(seconds=2)
    meet([a, b])
    a.hub.gone(connection, "gone")
    meet([a, b])
    b.open(seconds=3)
    meet([a, b])
    assert (a.open_now, b.open_now) == (0, 2)


def test_a_connection_that_moves_to_another_process_takes_nobodys_place() -> None:
    """It is not counted twice, although the process that it left has not told of its end yet, nor when that was killed."""
    a, b = processes(2, per_user=3)
    moving, _ = a.open(seconds=5)
    for _ in range(2):
        b.open(seconds=4)
    meet([a, b])
    a.hub.gone(moving, "gone")
    b.open(seconds=6)
    for _ in range(3):
        b.exchange()
    assert b.open_now == 3
    a.end()
    b.exchange()
    assert b.open_now == 3


@pytest.mark.usefixtures("_limits_are_logged")
def test_what_could_not_be_judged_at_once_is_judged_when_more_is_told() -> None:
    """Also if what is told then is only that nothing has changed."""
    a, b = processes(2, per_user=2)
    oldest, _ = b.open(seconds=1)
    a.open(seconds=2)
    meet([a, b])
    b.open(seconds=3)
    b.exchange()
    b.exchange()
    assert b.open_now == 2
    assert a.exchange() == []
    b.exchange()
    assert (oldest.closed, b.open_now) == (True, 1)


def test_what_is_told_in_parts_is_judged_when_all_is_told() -> None:
    """As of when everything is told is known with the last part."""
    a, _ = processes(2, per_user=2)
    for number in range(3):
        a.open(f"u{number}", seconds=1 + number)
    a.exchange(2)
    assert a.board.told_at["a"] == 0
    a.exchange(2)
    assert a.board.told_at["a"] == 3000


@pytest.mark.usefixtures("_limits_are_logged")
def test_who_begins_anew_tells_and_asks_anew() -> None:
    """After MongoDB was away nothing is taken for known."""
    a, b = processes(2, per_user=1)
    b.roll.alone()
    old, _ = b.open(seconds=1)
    new, _ = a.open(seconds=2)
    a.exchange()
    b.begin()
    meet([a, b])
    assert (old.closed, new.closed) == (True, False)


# ---- organisations


def test_an_organisations_connections_are_counted_together() -> None:
    """At the limit one more is refused everywhere, also where it has none, and one that ended makes room."""
    a, b = processes(2, per_org=3)
    for seconds in (1, 2):
        a.open(f"u{seconds}", "o1", seconds)
    last, _ = b.open("u3", "o1", 3)
    meet([a, b])
    for process in (a, b):
        with pytest.raises(TooMany, match="at most 3 connections for one organisation"):
            process.open("u4", "o1")
        process.open("u4", "o2")
        process.open("u4")
    b.hub.gone(last, "gone")
    with pytest.raises(TooMany):
        a.open("u4", "o1")
    meet([a, b])
    a.open("u4", "o1")


def test_where_an_organisation_has_no_connection_its_others_are_known() -> None:
    """So that it cannot have the limit once more at every process."""
    a, b = processes(2, per_org=1)
    a.open("u1", "o1")
    meet([a, b])
    with pytest.raises(TooMany):
        b.open("u2", "o1")


# ---- what it costs


def test_a_process_alone_notes_nothing() -> None:
    """However many connect, there is nothing to tell and nothing remembered."""
    alone = Process(Board(), "a", per_user=2, per_org=100)
    for number in range(50):
        alone.open(f"u{number}", "o1")
    assert alone.exchange() == []
    assert alone.roll.take(ALL, 1.0)[0] == {}


def test_only_what_changed_is_told() -> None:
    """Once, and in the order in which it changed, as much at a time as is asked for."""
    a, b = processes(2, per_user=2, per_org=100)
    a.open("u1", "o1")
    a.open("u2", "o1")
    assert a.exchange(2) == ["user:u1", "org:o1"]
    assert a.exchange() == ["user:u2"]
    assert a.exchange() == []
    assert b.exchange() == []


def test_only_those_are_remembered_who_are_here() -> None:
    """What others have of ten thousand users is nothing to a process that has none of them."""
    a, b = processes(2, per_user=2)
    for number in range(50):
        a.open(f"u{number}")
    b.open("u7")
    meet([a, b])
    assert len(b.roll.elsewhere) == 1


@pytest.mark.parametrize("unlimited", [0, sys.maxsize])
def test_what_nobody_limits_is_not_told(unlimited: int) -> None:
    """Neither 0 nor the largest number is a limit."""
    a, _ = processes(2, per_user=unlimited, per_org=unlimited)
    a.open("u1", "o1")
    assert a.exchange() == []


def test_a_user_with_very_many_connections_is_not_told() -> None:
    """Beyond some thousand their times would not fit in a document: such a limit holds within each process."""
    a, _ = processes(2, per_user=10_001)
    a.open("u1", "o1")
    assert a.exchange() == []


@pytest.mark.usefixtures("_limits_are_logged")
def test_names_may_hold_colons() -> None:
    """A name is told with its kind before it, and the first colon ends that."""
    a, b = processes(2, per_user=1, per_org=5)
    oldest, _ = a.open("did:key:1", "org:1", seconds=1)
    b.open("did:key:1", "org:1", seconds=2)
    meet([a, b])
    assert oldest.closed
    assert a.roll.elsewhere.org("org:1") == 1
