"""The independent calculation of portfolios, and how what is told of them is compared with it. It shares nothing with channels/."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

SYMBOLS = ("AAPL", "BTC", "X")
FIELDS = ("quantity", "entryPrice", "currentPrice", "marketValue", "unrealizedPnl", "realizedPnl", "totalValue")


class Change(NamedTuple):
    """A position is something else now."""

    user: str
    symbol: str
    quantity: Decimal
    entry_price: Decimal
    price: Decimal | None


class Price(NamedTuple):
    """A symbol has another price now."""

    symbol: str
    price: Decimal


class Ledger:
    """The independent calculation: everything anew from the full history, in fractions, with long and short counted apart."""

    def __init__(self, history: list[Change | Price]) -> None:
        self.history = history

    def price(self, symbol: str, entry: Fraction) -> Fraction:
        """Return the last price in the history, or the one at which the position was entered."""
        return next((Fraction(one.price) for one in reversed(self.history) if isinstance(one, Price) and one.symbol == symbol), entry)

    def states(self, user: str, symbol: str) -> list[tuple[int, Change]]:
        """Return each change of this position since it was opened last, with its place in the history."""
        life: list[tuple[int, Change]] = []
        for place, one in enumerate(self.history):
            if isinstance(one, Change) and (one.user, one.symbol) == (user, symbol):
                life = [*life, (place, one)] if life and life[-1][1].quantity else [(place, one)]
        return life

    def realized(self, user: str, symbol: str) -> Fraction:
        """Return what was realised since it was opened last."""
        states = self.states(user, symbol)
        gained = Fraction(0)
        for (_, before), (place, after) in pairwise(states):
            entry = Fraction(before.entry_price)
            left = Fraction(after.price) if after.price is not None else Ledger(self.history[:place]).price(symbol, entry)
            for side in (1, -1):
                had, has = max(side * Fraction(before.quantity), Fraction(0)), max(side * Fraction(after.quantity), Fraction(0))
                gained += side * max(had - has, Fraction(0)) * (left - entry)
        return gained

    def open(self, user: str, symbol: str) -> tuple[Fraction, Fraction]:
        """Return quantity and entry price now."""
        states = self.states(user, symbol)
        return (Fraction(states[-1][1].quantity), Fraction(states[-1][1].entry_price)) if states else (Fraction(0), Fraction(0))

    def total(self, user: str) -> Fraction:
        """Return what everything is worth."""
        positions = [(symbol, *self.open(user, symbol)) for symbol in SYMBOLS]
        return sum((quantity * self.price(symbol, entry) for symbol, quantity, entry in positions), Fraction(0))

    def values(self, user: str, symbol: str) -> tuple[Fraction, ...]:
        """Return everything that is told of a position, in the order of `FIELDS`."""
        quantity, entry = self.open(user, symbol)
        price = self.price(symbol, entry)
        return quantity, entry, price, quantity * price, quantity * (price - entry), self.realized(user, symbol), self.total(user)


class Logged(NamedTuple):
    """What stands in the log: a raw event if it has no cause, and for a price nobody's."""

    id: str
    user: str | None
    said: dict[str, Any]

    def raw(self) -> Change | Price:
        """Return a raw event as the calculation takes it."""
        said = self.said
        if self.user is None:
            return Price(said["symbol"], Decimal(said["price"]))
        price = Decimal(said["price"]) if "price" in said else None
        return Change(self.user, said["symbol"], Decimal(said["quantity"]), Decimal(said["entryPrice"]), price)


def compare(log: Iterable[Logged]) -> None:
    """Compare all that was derived with what the raw events say, each given in the order of the log.

    Each raw event about a position has exactly one answer, and these are in its order, with the values as of then. What a price changed
    has that price, and no price is told twice of a position.
    """
    log = list(log)
    raw = [one for one in log if "cause" not in one.said]
    history = [one.raw() for one in raw]
    places = {one.id: place for place, one in enumerate(raw)}
    answered: list[int] = []
    told: set[tuple[str | None, str, str]] = set()
    for one in log:
        if "cause" not in one.said:
            continue
        place = places[one.said["cause"]]
        cause = history[place]
        if isinstance(cause, Price):
            assert (Decimal(one.said["currentPrice"]), one.said["symbol"]) == (cause.price, cause.symbol)
            assert Fraction(one.said["marketValue"]) == Fraction(one.said["quantity"]) * Fraction(cause.price)
            assert (one.user, one.said["symbol"], one.said["cause"]) not in told
            told.add((one.user, one.said["symbol"], one.said["cause"]))
            continue
        answered.append(place)
        assert one.user == cause.user
        values = Ledger(history[: place + 1]).values(cause.user, cause.symbol)
        assert {name: Fraction(one.said[name]) for name in FIELDS} == dict(zip(FIELDS, values, strict=True))
    assert answered == [place for place, one in enumerate(history) if isinstance(one, Change)]
