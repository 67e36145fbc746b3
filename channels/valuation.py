"""Valuation: every raw event about a position is answered by one with its value, and prices change the value of what is held. No I/O.

What is answered follows from the log alone: whoever reads the same entries answers the same. Only how often prices are told depends on
time. An event's identity is what caused it, whose position it is and which, so that nothing is answered twice, whoever answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from channels.portfolio import Holding, Portfolios, Status, TooMany, Valued, is_amount, plain
from hub.formats import timestamp_of
from hub.principal import PUBLIC
from hub.subscriptions import is_name
from storage.entries import Entry, NewEvent
from storage.parts import Part

logger = logging.getLogger("tailcast.channels")

SOURCE = "tailcast.portfolio"  # publishers cannot use it
POSITION, PRICE = "position:update", "price:update"
POSITIONS_TOPIC = "trading.positions"
REVALUED_SECONDS = 1.0  # between two values of one position that follow from prices
MAX_SYMBOL_LENGTH = 64
MAX_TIMESTAMP_LENGTH = 64
USER = "user:"
_encode = msgspec.json.Encoder().encode


class _Change(msgspec.Struct, rename="camel"):
    """What is read of a raw event about a position."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal | None = None
    price: Decimal | None = None
    timestamp: Any = None


class _Price(msgspec.Struct):
    """What is read of an event about a price."""

    symbol: str
    price: Decimal
    timestamp: Any = None


class _Known(NamedTuple):
    """What is known of an open position beside what it holds: by which entry it was changed last, and at which price it was shown."""

    seq: int
    audience: tuple[str, ...]
    shown: Decimal


class _Quote(NamedTuple):
    """Where the last price of a symbol came from."""

    seq: int
    id: str
    time: str


T = TypeVar("T", _Change, _Price)
_change = msgspec.json.Decoder(_Change)
_price = msgspec.json.Decoder(_Price)


class Valuation:
    """The portfolios as the log says them, and what is to be told of them.

    Args:
        portfolios: Where they are kept.
    """

    types = frozenset({POSITION, PRICE})
    source = SOURCE
    kinds: tuple[str, ...] = (POSITION, PRICE)  # positions are saved before prices: then a position read back is never older than a price

    def __init__(self, portfolios: Portfolios | None = None) -> None:
        self._portfolios = Portfolios() if portfolios is None else portfolios
        self._known: dict[tuple[str, str], _Known] = {}  # open positions, by user and symbol
        self._quotes: dict[str, _Quote] = {}  # by symbol
        self._unsaved: dict[tuple[str, str], int] = {}  # positions that changed since they were saved, and by which entry
        self._unsaved_prices: dict[str, None] = {}
        self._moved: dict[str, None] = {}  # symbols that are held, with prices that have not been told yet
        self._round: Iterator[tuple[str, str]] | None = None  # positions to tell of now; None between two rounds
        self._next_round = 0.0  # when the next may begin, by the caller's clock
        self._full = False  # that there is no room for further prices has been logged

    def __len__(self) -> int:
        return len(self._portfolios)

    # What the log says

    def take(self, entry: Entry) -> list[NewEvent]:
        """Take in one entry, and return what answers it. One that cannot be valued is logged, and changes nothing."""
        if entry.type == PRICE:
            self._take_price(entry)
            return []
        try:
            return self._take_position(entry)
        except (ValueError, ArithmeticError, RecursionError, TooMany) as error:  # a DecodeError is a ValueError
            logger.warning("the position in event %s is not valued: %s", entry.id, error)
            return []

    def _take_price(self, entry: Entry) -> None:
        if PUBLIC not in entry.audience:
            return  # values are told to whoever holds it, who may not know this price
        try:
            new = _decoded(_price, entry)
            quote = self._quotes.get(new.symbol)
            if quote is None or entry.seq > quote.seq:
                self._portfolios.set_price(new.symbol, new.price)
                self._quotes[new.symbol] = _Quote(entry.seq, entry.id, _time(new.timestamp, entry))
                self._unsaved_prices[new.symbol] = None
                if self._portfolios.is_held(new.symbol):
                    self._moved[new.symbol] = None
        except TooMany as error:
            if not self._full:
                logger.warning("the price in event %s, and others like it, are not used: %s", entry.id, error)
            self._full = True
        except (ValueError, RecursionError) as error:
            logger.debug("the price in event %s is not used: %s", entry.id, error)

    def _take_position(self, entry: Entry) -> list[NewEvent]:
        user = _user_in(entry.audience)
        new = _decoded(_change, entry)
        place = (user, new.symbol)
        known = self._known.get(place)
        if known is not None and entry.seq <= known.seq:
            return []  # its answer is in the log: nothing is saved before
        valued = self._portfolios.change(user, new.symbol, new.quantity, new.entry_price, new.price)
        if valued.status is Status.CLOSED:
            self._known.pop(place, None)
        else:
            self._known[place] = _Known(entry.seq, entry.audience, valued.price)
        self._unsaved[place] = entry.seq
        event = _event(place, valued, entry.audience, entry.id, _time(new.timestamp, entry))
        event.correlation_id = entry.correlation_id
        return [event]

    # What prices change

    def due(self, now: float, most: int) -> list[NewEvent]:
        """Return up to `most` new values that follow from prices, each with the newest price; the rest comes with the next calls.

        Args:
            now: Any clock that never goes back.
            most: How many at a time.
        """
        if self._round is None and self._moved and now >= self._next_round:
            moved, self._moved = self._moved, {}
            self._round = self._places(list(moved))
        events: list[NewEvent] = []
        while self._round is not None and len(events) < most:
            place = next(self._round, None)
            if place is None:
                self._round, self._next_round = None, now + REVALUED_SECONDS
            else:
                events += self._revalue(place)
        return events

    def wait(self, now: float) -> float | None:
        """Return in how many seconds something is due; None: when another price has come."""
        if self._round is not None:
            return 0.0
        return max(0.0, self._next_round - now) if self._moved else None

    def _places(self, symbols: list[str]) -> Iterator[tuple[str, str]]:
        for symbol in symbols:
            for user in self._portfolios.holders(symbol):
                yield user, symbol

    def _revalue(self, place: tuple[str, str]) -> list[NewEvent]:
        known = self._known.get(place)
        if known is None:
            return []  # closed meanwhile
        valued = self._portfolios.value(*place)
        if valued.price == known.shown:
            return []
        self._known[place] = known._replace(shown=valued.price)
        self._unsaved[place] = known.seq
        quote = self._quotes[place[1]]
        return [_event(place, valued, known.audience, quote.id, quote.time)]

    # What is kept

    def changed(self, most: int) -> list[Part]:
        """Return up to `most` parts that have changed since they were returned last, in the order of `kinds`."""
        places = list(islice(self._unsaved, most))
        symbols = list(islice(self._unsaved_prices, most - len(places)))
        for symbol in symbols:
            del self._unsaved_prices[symbol]
        return [*(self._position_part(place, self._unsaved.pop(place)) for place in places), *map(self._price_part, symbols)]

    def _position_part(self, place: tuple[str, str], seq: int) -> Part:
        user, symbol = place
        holding, known = self._portfolios.holding(user, symbol), self._known.get(place)
        if holding is None or known is None:
            return Part(POSITION, f"{user} {symbol}", seq, None)
        fields = {
            "user": user,
            "symbol": symbol,
            "audience": list(known.audience),
            "quantity": plain(holding.quantity),
            "entryPrice": plain(holding.entry_price),
            "realizedPnl": plain(holding.realized),
            "shownPrice": plain(known.shown),
        }
        return Part(POSITION, f"{user} {symbol}", seq, fields)

    def _price_part(self, symbol: str) -> Part:
        quote, price = self._quotes[symbol], self._portfolios.price(symbol)
        assert price is not None, "it has a quote"
        return Part(PRICE, symbol, quote.seq, {"price": plain(price), "id": quote.id, "time": quote.time})

    def restore(self, part: Part) -> None:
        """Take back a part that was kept. Prices must come before positions."""
        restore: Callable[[int, Any], None] = self._restore_price if part.kind == PRICE else self._restore_position
        try:
            restore(part.seq, {**(part.fields or {}), "key": part.key})
        except TooMany as error:
            logger.warning("%s %s is not taken back: %s", part.kind, part.key, error)

    def _restore_price(self, seq: int, fields: dict[str, Any]) -> None:
        self._portfolios.set_price(fields["key"], Decimal(fields["price"]))
        self._quotes[fields["key"]] = _Quote(seq, fields["id"], fields["time"])

    def _restore_position(self, seq: int, fields: dict[str, Any]) -> None:
        user, symbol, shown = fields["user"], fields["symbol"], Decimal(fields["shownPrice"])
        holding = Holding(Decimal(fields["quantity"]), Decimal(fields["entryPrice"]), Decimal(fields["realizedPnl"]))
        self._portfolios.keep(user, symbol, holding)
        self._known[user, symbol] = _Known(seq, tuple(fields["audience"]), shown)
        price = self._portfolios.price(symbol)
        if price is not None and price != shown:
            self._moved[symbol] = None


def _decoded(decoder: msgspec.json.Decoder[T], entry: Entry) -> T:
    """Return what an entry says, with numbers that can be computed with exactly.

    Raises:
        ValueError: If it does not say it.
    """
    new = decoder.decode(entry.data)
    if not is_name(new.symbol, MAX_SYMBOL_LENGTH):
        raise ValueError(f"expected a symbol of up to {MAX_SYMBOL_LENGTH} characters without spaces, commas and asterisks")
    for name in ("quantity", "entry_price", "price"):
        value = getattr(new, name, None)
        if value is not None and not is_amount(value):
            raise ValueError(f"{name} has more digits than can be computed with")
    return new


def _user_in(audience: tuple[str, ...]) -> str:
    users = [token for token in audience if token.startswith(USER)]
    if len(users) != 1:
        raise ValueError(f"expected an audience with one user, not {len(users)}")
    return users[0].removeprefix(USER)


def _time(timestamp: Any, entry: Entry) -> str:
    """Return when it happened, as the publisher says."""
    given = isinstance(timestamp, str) and len(timestamp) <= MAX_TIMESTAMP_LENGTH
    return timestamp if given else timestamp_of(entry)


def _event(place: tuple[str, str], valued: Valued, audience: tuple[str, ...], cause: str, time: str) -> NewEvent:
    """Return the event that tells what a position is worth, because of another event."""
    user, symbol = place
    payload = {
        "symbol": symbol,
        "quantity": plain(valued.holding.quantity),
        "entryPrice": plain(valued.holding.entry_price),
        "currentPrice": plain(valued.price),
        "marketValue": plain(valued.market_value),
        "unrealizedPnl": plain(valued.unrealized),
        "realizedPnl": plain(valued.holding.realized),
        "totalValue": plain(valued.total),
        "status": valued.status.value,
        "timestamp": time,
        "cause": cause,
    }
    return NewEvent(
        f"{POSITIONS_TOPIC}.{symbol.replace('.', '-')}",
        POSITION,
        audience,
        _encode(payload).decode(),
        source=SOURCE,
        key=symbol,
        published=f"\n{SOURCE}\n{cause}/{user}/{symbol}",
    )
