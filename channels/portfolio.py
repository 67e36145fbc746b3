"""Portfolios: what users hold and what it is worth, in exact decimals, from changes of positions and from prices. Knows no log.

Nothing is rounded: there are only sums, differences and products of numbers with a bounded count of digits, and the context of every
computation has room for all digits that can come of them. It refuses what would not fit instead of rounding it.
"""

from __future__ import annotations

from decimal import Context, Decimal, DivisionByZero, FloatOperation, Inexact, InvalidOperation, Overflow, Subnormal, localcontext
from enum import Enum
from typing import NamedTuple

MAX_DIGITS = 100  # of an amount, before the point and after it: as many as events may have
MAX_POSITIONS = 100_000  # open ones of all users, some 100 MB
MAX_POSITIONS_OF_USER = 500  # a total is computed anew with each event of its user
MAX_SYMBOLS = 100_000  # whose prices are known
# A product has twice as many digits on each side. What remains carries sums of more of them than there can ever be events.
EXACT = Context(prec=4 * MAX_DIGITS + 40, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, Subnormal, FloatOperation])
ZERO = Decimal(0)


class Status(Enum):
    """What became of a position."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"


class TooMany(Exception):
    """There are as many positions, or prices, as are kept."""


class Holding(NamedTuple):
    """One position: signed quantity (negative: short), price at which it was entered, and what was realised since it was opened."""

    quantity: Decimal
    entry_price: Decimal
    realized: Decimal = ZERO


class Valued(NamedTuple):
    """A position and what it is worth; `total` is what all open positions of its user are."""

    holding: Holding
    price: Decimal
    market_value: Decimal
    unrealized: Decimal
    total: Decimal
    status: Status


def is_amount(value: Decimal) -> bool:
    """Tell whether a number has at most `MAX_DIGITS` digits before its point and after it."""
    return value.is_finite() and value.adjusted() < MAX_DIGITS and -int(value.as_tuple().exponent) <= MAX_DIGITS


def plain(value: Decimal) -> str:
    """Return a number as digits, exactly: without an exponent, without zeros that say nothing, and zero without a sign."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def changed(before: Holding | None, quantity: Decimal, entry_price: Decimal, exit_price: Decimal) -> Holding:
    """Return a position after a change, and what it has realised with it.

    What is closed, as far as the quantity shrinks or changes its sign, is realised: the exit price less the price at which it was
    entered, times the quantity closed; the other way round for a short position.

    Args:
        before: None: there was none.
        quantity: Afterwards; 0 closes it.
        entry_price: Afterwards.
        exit_price: At which the part that was closed went.
    """
    if before is None:
        return Holding(quantity, entry_price)
    with localcontext(EXACT):
        kept = sorted((ZERO, before.quantity, quantity))[1]  # what lies between: nothing of it, when the sign changes
        return Holding(quantity, entry_price, before.realized + (before.quantity - kept) * (exit_price - before.entry_price))


class Portfolios:
    """All open positions of all users, and the last price of each symbol.

    Args:
        max_positions: How many there may be.
        max_positions_of_user: How many of them one user may have.
        max_symbols: Of how many symbols prices are known.
    """

    def __init__(
        self,
        max_positions: int = MAX_POSITIONS,
        max_positions_of_user: int = MAX_POSITIONS_OF_USER,
        max_symbols: int = MAX_SYMBOLS,
    ) -> None:
        self._max_positions = max_positions
        self._max_positions_of_user = max_positions_of_user
        self._max_symbols = max_symbols
        self._of: dict[str, dict[str, Holding]] = {}  # by user, by symbol; open positions only, and no user without any
        self._holders: dict[str, dict[str, None]] = {}  # by symbol, who has a position in it
        self._prices: dict[str, Decimal] = {}
        self._count = 0  # of positions

    def __len__(self) -> int:
        return self._count

    def price(self, symbol: str) -> Decimal | None:
        """Return the last price of a symbol; None: none is known."""
        return self._prices.get(symbol)

    def is_held(self, symbol: str) -> bool:
        """Tell whether anybody has a position in a symbol."""
        return symbol in self._holders

    def holders(self, symbol: str) -> list[str]:
        """Return who has a position in a symbol."""
        return list(self._holders.get(symbol, ()))

    def holding(self, user: str, symbol: str) -> Holding | None:
        """Return a user's position in a symbol; None: there is none that is open."""
        return self._of.get(user, {}).get(symbol)

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Note a new price.

        Raises:
            TooMany: If it is of one symbol too many; then nothing is changed.
        """
        if symbol not in self._prices and len(self._prices) >= self._max_symbols:
            raise TooMany(f"prices of {self._max_symbols} symbols are known, and no more are kept")
        self._prices[symbol] = price

    def change(self, user: str, symbol: str, quantity: Decimal, entry_price: Decimal | None, price: Decimal | None) -> Valued:
        """Change a position, and return it with what it is worth.

        Args:
            user: Whose it is.
            symbol: In what.
            quantity: Afterwards; 0 closes it.
            entry_price: Afterwards; None: as before. One that is opened, or changes its side, must have one.
            price: At which the change was made; None: at the last price known, or else at the entry price before.

        Raises:
            ValueError: If the entry price is missing; then nothing is changed.
            TooMany: If it would be one position too many; then nothing is changed.
        """
        before = self.holding(user, symbol)
        if entry_price is None:
            entry_price = self._entry_price(before, quantity)
        exit_price = price
        if exit_price is None:
            exit_price = self._prices.get(symbol, before.entry_price if before else entry_price)
        after = changed(before, quantity, entry_price, exit_price)
        self.keep(user, symbol, after)
        status = Status.CLOSED if not quantity else Status.UPDATED if before else Status.OPENED
        return self._valued(user, symbol, after, status)

    def _entry_price(self, before: Holding | None, quantity: Decimal) -> Decimal:
        """Return the entry price after a change that names none."""
        if before is not None and (not quantity or (quantity > 0) == (before.quantity > 0)):
            return before.entry_price
        if quantity:
            raise ValueError("expected an entryPrice with a quantity that is not 0")
        return ZERO

    def keep(self, user: str, symbol: str, holding: Holding) -> None:
        """Keep a position as it is; one of quantity 0 is gone.

        Raises:
            TooMany: If it would be one too many; then nothing is changed.
        """
        positions = self._of.get(user, {})
        if not holding.quantity:
            self._drop(user, symbol)
            return
        if symbol not in positions:
            self._require_room(len(positions))
            self._count += 1
            self._holders.setdefault(symbol, {})[user] = None
        self._of.setdefault(user, positions)[symbol] = holding

    def _require_room(self, of_user: int) -> None:
        if self._count >= self._max_positions:
            raise TooMany(f"there are {self._max_positions} open positions, and no more are kept")
        if of_user >= self._max_positions_of_user:
            raise TooMany(f"its user has {self._max_positions_of_user} open positions, and no more are kept")

    def _drop(self, user: str, symbol: str) -> None:
        if self.holding(user, symbol) is None:
            return
        self._count -= 1
        del self._of[user][symbol], self._holders[symbol][user]
        if not self._of[user]:
            del self._of[user]
        if not self._holders[symbol]:
            del self._holders[symbol]

    def value(self, user: str, symbol: str) -> Valued:
        """Return an open position with what it is worth now."""
        return self._valued(user, symbol, self._of[user][symbol], Status.UPDATED)

    def _valued(self, user: str, symbol: str, holding: Holding, status: Status) -> Valued:
        price = self._prices.get(symbol, holding.entry_price)
        with localcontext(EXACT):
            market_value = holding.quantity * price
            unrealized = holding.quantity * (price - holding.entry_price)
            total = sum((one.quantity * self._prices.get(name, one.entry_price) for name, one in self._of.get(user, {}).items()), ZERO)
        return Valued(holding, price, market_value, unrealized, total, status)
