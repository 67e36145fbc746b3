"""Portfolios: exact values, compared with an independent calculation in fractions from the full history."""

from __future__ import annotations

from decimal import Decimal, Inexact
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.portfolio import EXACT, MAX_DIGITS, ZERO, Holding, Portfolios, Status, TooMany, changed, is_amount, plain
from tests.channels.ledger import SYMBOLS, Change, Ledger, Price

USERS = ("u1", "u2")
D = Decimal


small = st.decimals(-20, 20, places=1)
# As many digits as there may be on both sides of the point, and every size between.
any_amount = st.integers(-(10 ** (2 * MAX_DIGITS)) + 1, 10 ** (2 * MAX_DIGITS) - 1).map(lambda digits: D(digits).scaleb(-MAX_DIGITS, EXACT))
amounts = st.one_of(small, small, any_amount, st.just(ZERO))
changes = st.builds(Change, st.sampled_from(USERS), st.sampled_from(SYMBOLS), amounts, amounts, st.none() | amounts)
prices = st.builds(Price, st.sampled_from(SYMBOLS), amounts)
histories = st.lists(st.one_of(changes, changes, prices), max_size=40)


@settings(max_examples=300)
@given(histories)
def test_values_are_those_of_an_independent_calculation(history: list[Change | Price]) -> None:
    """After every event, to the last digit: price, value, unrealised and realised P&L, and the total of the user's open positions."""
    portfolios = Portfolios()
    for place, one in enumerate(history):
        ledger = Ledger(history[: place + 1])
        if isinstance(one, Price):
            portfolios.set_price(one.symbol, one.price)
            changed = [(user, portfolios.value(user, one.symbol)) for user in portfolios.holders(one.symbol)]
        else:
            changed = [(one.user, portfolios.change(one.user, one.symbol, one.quantity, one.entry_price, one.price))]
        for user, valued in changed:
            quantity, entry = ledger.open(user, one.symbol)
            price = ledger.price(one.symbol, entry)
            assert (Fraction(valued.holding.quantity), Fraction(valued.holding.entry_price), Fraction(valued.price)) == (
                quantity,
                entry,
                price,
            )
            assert Fraction(valued.market_value) == quantity * price
            assert Fraction(valued.unrealized) == quantity * (price - entry)
            assert Fraction(valued.holding.realized) == ledger.realized(user, one.symbol)
            assert Fraction(valued.total) == ledger.total(user)
        assert len(portfolios) == sum(ledger.open(user, symbol)[0] != 0 for user in USERS for symbol in SYMBOLS)


@given(st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=20))
def test_nothing_is_ever_rounded(steps: list[tuple[Decimal, Decimal, Decimal]]) -> None:
    """Whatever digits come, there is room for all that follow from them: the context would raise instead of rounding."""
    holding = None
    for quantity, entry_price, exit_price in steps:
        holding = changed(holding, quantity, entry_price, exit_price)
        assert D(plain(holding.realized)) == holding.realized
    with pytest.raises(Inexact):
        EXACT.divide(D(1), D(3))


@given(st.one_of(amounts, st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)))
def test_numbers_are_written_plainly(value: Decimal) -> None:
    """As digits and a point: exact, without an exponent or zeros that say nothing."""
    text = plain(value)
    assert Fraction(text) == Fraction(value)
    assert set(text) <= set("-0123456789.")
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize(
    ("value", "text"), [("-0.0", "0"), ("1E+3", "1000"), ("100", "100"), ("-1.50", "-1.5"), ("1E-7", "0.0000001"), ("0E-9", "0")]
)
def test_numbers_have_one_spelling(value: str, text: str) -> None:
    """Zero has no sign, and an exponent is written out."""
    assert plain(D(value)) == text


@pytest.mark.parametrize("digits", ["NaN", "Infinity", f"1E+{MAX_DIGITS}", f"1E-{MAX_DIGITS + 1}", "1E+99999999", "0E+5000", "0E-5000"])
def test_amounts_are_bounded(digits: str) -> None:
    """What has more digits than any amount, or is no number, is none."""
    assert not is_amount(D(digits))


def test_largest_amounts_are_amounts() -> None:
    """As many digits as are allowed on both sides of the point."""
    assert is_amount(D("9" * MAX_DIGITS + "." + "9" * MAX_DIGITS))
    assert is_amount(D("0"))


def test_a_life_of_a_position() -> None:
    """It is opened, changed, turned from long to short, closed, and opened anew, when nothing is realised yet."""
    portfolios = Portfolios()
    opened = portfolios.change("u", "A", D(10), D(100), None)
    assert (opened.status, opened.price, opened.total) == (Status.OPENED, D(100), D(1000))
    portfolios.set_price("A", D(110))
    smaller = portfolios.change("u", "A", D(6), D(100), None)
    assert (smaller.status, smaller.holding.realized, smaller.unrealized, smaller.total) == (Status.UPDATED, D(40), D(60), D(660))
    turned = portfolios.change("u", "A", D(-2), D(120), D(120))
    assert (turned.status, turned.holding.realized, turned.market_value, turned.unrealized) == (Status.UPDATED, D(160), D(-220), D(20))
    closed = portfolios.change("u", "A", ZERO, None, D(100))
    assert (closed.status, closed.holding.realized, closed.market_value, closed.total) == (Status.CLOSED, D(200), ZERO, ZERO)
    assert closed.holding.entry_price == 120
    assert (len(portfolios), portfolios.is_held("A"), portfolios.holders("A"), portfolios.holding("u", "A")) == (0, False, [], None)
    assert portfolios.change("u", "A", D(1), D(1), None).holding.realized == 0


def test_exit_price_is_the_best_that_is_known() -> None:
    """The one that came with the change, or the last price, or else the entry price before, with which nothing is realised."""
    portfolios = Portfolios()
    portfolios.change("u", "A", D(3), D(5), None)
    assert portfolios.change("u", "A", D(2), D(5), None).holding.realized == 0
    portfolios.set_price("A", D(6))
    assert portfolios.change("u", "A", D(1), D(5), None).holding.realized == 1
    assert portfolios.change("u", "A", ZERO, D(5), D(8)).holding.realized == 4


def test_closing_what_is_not_open() -> None:
    """It is closed, nothing was realised, and nothing is kept."""
    portfolios = Portfolios()
    closed = portfolios.change("u", "A", ZERO, None, None)
    assert (closed.status, closed.price, closed.holding) == (Status.CLOSED, ZERO, Holding(ZERO, ZERO))
    portfolios.set_price("A", D(7))
    assert portfolios.change("u", "A", ZERO, None, None).price == 7
    assert len(portfolios) == 0


def test_entry_price_may_be_left_out_where_it_is_known() -> None:
    """A position that stays on its side keeps it; one that is opened or turned must have one."""
    portfolios = Portfolios()
    with pytest.raises(ValueError, match="entryPrice"):
        portfolios.change("u", "A", D(1), None, None)
    portfolios.change("u", "A", D(1), D(5), None)
    assert portfolios.change("u", "A", D(2), None, None).holding.entry_price == 5
    with pytest.raises(ValueError, match="entryPrice"):
        portfolios.change("u", "A", D(-2), None, None)
    assert portfolios.holding("u", "A") == Holding(D(2), D(5))


def test_positions_are_bounded() -> None:
    """In all and for each user: one too many is refused and changes nothing, until one of them is closed."""
    portfolios = Portfolios(max_positions=3, max_positions_of_user=2)
    for user, symbol in (("u", "A"), ("u", "B"), ("v", "A")):
        portfolios.change(user, symbol, D(1), D(1), None)
    with pytest.raises(TooMany, match="3 open positions"):
        portfolios.change("w", "A", D(1), D(1), None)
    portfolios.change("v", "A", ZERO, None, None)
    with pytest.raises(TooMany, match="its user has 2"):
        portfolios.change("u", "C", D(1), D(1), None)
    assert portfolios.holders("C") == []
    portfolios.change("u", "A", D(2), D(1), None)
    portfolios.change("u", "B", ZERO, None, None)
    portfolios.change("u", "C", D(1), D(1), None)
    assert (len(portfolios), portfolios.is_held("A"), portfolios.holders("A")) == (2, True, ["u"])


def test_prices_are_bounded() -> None:
    """Of symbols that are known prices change; one too many is refused."""
    portfolios = Portfolios(max_symbols=1)
    portfolios.set_price("A", D(1))
    portfolios.set_price("A", D(2))
    with pytest.raises(TooMany, match="1 symbols"):
        portfolios.set_price("B", D(1))
    assert (portfolios.price("A"), portfolios.price("B")) == (D(2), None)
