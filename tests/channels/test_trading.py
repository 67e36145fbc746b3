"""Tests of channels/trading.py: what is shown of positions is what the portfolio makes of them."""

from __future__ import annotations

import json

import msgspec
import pytest

from channels.trading import CHANNELS, POSITION_UPDATE, PRICE_UPDATE, PriceUpdate, ValuedPosition
from channels.valuation import Valuation
from tests.hub.fakes import make_entry

(POSITIONS,) = (channel for channel in CHANNELS if channel.name == "positions")
(PRICES,) = (channel for channel in CHANNELS if channel.name == "prices")


def test_what_the_portfolio_makes_is_of_the_shape_that_is_shown() -> None:
    """The reference shows what channels deliver, and of which source (D3)."""
    position = make_entry(1, type="position:update", audience=("user:demo",), data=json.dumps(POSITION_UPDATE.sample))
    (made,) = Valuation().take(position)
    msgspec.json.decode(made.data, type=ValuedPosition)
    assert POSITION_UPDATE.sources == POSITIONS.sources == (made.source,)
    assert (made.type, made.key) == (POSITION_UPDATE.name, POSITION_UPDATE.sample["symbol"])


@pytest.mark.parametrize(("quantity", "gone"), [("0", True), ("0.00", True), ("-0", True), ("0.01", False), ("-5", False)])
def test_a_closed_position_is_gone_from_the_list(quantity: str, gone: bool) -> None:
    """A position of quantity 0 is closed, however that is written (D3)."""
    assert POSITIONS.snapshot is not None
    assert POSITIONS.snapshot.gone is not None
    assert POSITIONS.snapshot.gone({"quantity": quantity}) is gone


def test_a_list_of_positions_has_their_total_value() -> None:
    """The sum is exact, and 0 where nothing is held (D3)."""
    assert POSITIONS.snapshot is not None
    assert POSITIONS.snapshot.total is not None
    assert POSITIONS.snapshot.total([{"marketValue": "0.1"}, {"marketValue": "0.2"}]) == {"totalValue": "0.3"}
    assert POSITIONS.snapshot.total([]) == {"totalValue": "0"}


def test_only_the_server_says_that_a_price_is_an_initial_one() -> None:
    """It adds the flag itself (D4): one of a publisher's would make a change look like a beginning."""
    assert PRICES.snapshot is not None
    assert PRICES.snapshot.each
    with pytest.raises(msgspec.ValidationError, match="initializing"):
        msgspec.convert({**PRICE_UPDATE.sample, "initializing": True}, PriceUpdate, strict=False)
