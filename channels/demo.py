"""A demo feed: the samples of every declared type, moving, so that there is something to see. Makes events; demo.py publishes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import count, cycle
from typing import Any

from channels import payments
from channels.families import EVENT_TYPES, FAMILIES
from channels.validation import VALIDATION
from hub.formats import rfc3339_of
from storage.entries import NewEvent

USER = "demo"
ORG = "demo"
ENTITY = "demo"
PUBLISHER = "demo-publisher"
PRICE = "price:update"
OWNED = ("stream/42", "strategy/momentum")  # the resources of the samples, which the demo's user owns
FIRST_PRICES = {"AAPL": Decimal("190.00"), "GOOGL": Decimal("172.50"), "MSFT": Decimal("415.10")}
CENT = Decimal("0.01")
SWING_CENTS = 400  # between the lowest and the highest price of a symbol

Fields = Mapping[str, Any]


def price_of(symbol: str, number: int) -> Decimal:
    """Return what a symbol costs for the how-manieth time: up and down again, each at a pace of its own."""
    pace = 7 + 4 * list(FIRST_PRICES).index(symbol)
    return FIRST_PRICES[symbol] + CENT * abs((number * pace) % (2 * SWING_CENTS) - SWING_CENTS)


def _symbol(number: int) -> str:
    return tuple(FIRST_PRICES)[number % len(FIRST_PRICES)]


def _price(number: int) -> Fields:
    symbol = _symbol(number)
    price = price_of(symbol, number)
    return {"symbol": symbol, "price": str(price), "bid": str(price - CENT), "ask": str(price + CENT)}


def _order(number: int) -> Fields:
    """Create an order; every other time cancel the one before, of which a part was filled."""
    if number % 2:
        return {"orderId": f"o-{number}", "status": "new"}
    return {"orderId": f"o-{number - 1}", "status": "cancelled", "reason": "the rest was not to be had at this price"}


def _fill(number: int) -> Fields:
    filled = {"filledQty": 4, "status": "partially_filled"} if number % 2 else {"filledQty": 10, "status": "filled"}
    return {"orderId": f"o-{number}", "filledAvgPrice": str(price_of("AAPL", number)), **filled}


def _position(number: int) -> Fields:
    symbol = _symbol(number)
    return {"symbol": symbol, "quantity": str((number // len(FIRST_PRICES) + 1) % 4 * 5), "entryPrice": str(FIRST_PRICES[symbol])}


def _as_sampled(_: int) -> Fields:
    return {}


def _transaction(number: int) -> Fields:
    return {"transactionId": f"t-{number}", "amount": 5 + number % 40}


# What changes from round to round, by type; the rest is as in the sample. Streams come and go, one stays. Prices change all the time.
MOVES: Mapping[str, Callable[[int], Fields | None]] = {
    "stream:updated": lambda number: {"streamed": f"{number}.250000", "remaining": f"{max(0, 10_000 - number)}.750000"},
    "settle:finished": lambda number: {"settlementId": f"settlement-{number}", "amount": f"{number}.250000"},
    "stream.created": lambda number: {"streamId": f"s-{number}"},
    "stream.topped_up": lambda number: {"amount": f"{number}000000000000000000001"},
    "stream.withdrawn": lambda number: {"amount": f"{number}0000000000000000000"},
    "stream.cancelled": lambda number: {"streamId": f"s-{number}"} if number % 2 else None,
    "stream.completed": lambda number: None if number % 2 else {"streamId": f"s-{number}"},
    "scheduler.tick": lambda number: {"tick": number, "due": number % 3},
    "run.stage": lambda number: {"runId": f"run-{number}", "status": ("started", "finished")[number % 2]},
    "change.detected": lambda number: {"changeId": f"change-{number}", "runId": f"run-{number}"},
    "action.delivered": lambda number: {"actionId": f"action-{number}", "changeId": f"change-{number}"},
    "change.stateChanged": lambda number: {"changeId": f"change-{number}"},
    "org.entitlements.changed": lambda number: {"entitlements": [f"sources:{50 + number % 50}", "webhooks"]},
    "order:update": _order,
    "order:fill": _fill,
    "position:update": _position,
    "trade:new": lambda number: {"tradeId": f"trade-{number}", "orderId": f"o-{number}", "price": str(price_of("AAPL", number))},
    "alert:new": lambda number: {"alertId": f"alert-{number}", "level": ("info", "warning", "error")[number % 3]},
    "strategy:update": lambda number: {"confidence": round(0.5 + number % 50 / 100, 2)},
    "agent:status": lambda number: {"status": ("running", "idle")[number % 2]},
    "ai:decision": lambda number: {"decisionId": f"decision-{number}", "action": ("hold", "buy", "sell")[number % 3]},
    "test": lambda number: {"message": f"round {number} of the demo"},
    "transactions.new": _transaction,
    "agent.action.completed": lambda number: {"result": {"categorised": number}},
    "balance.updated": lambda number: {"newBalance": f"{1042 - number % 40}.50", "change": f"-{5 + number % 40}"},
    "sync.completed": lambda number: {"recordsUpdated": number},
}


# Whose turn it is, one after the other: each family of users, of which two have their payments declared in one module.
TURNS = tuple(
    tuple(one.name for channel in channels for one in channel.events if one.name != PRICE)
    for family in FAMILIES
    for channels in ([[one] for one in family.CHANNELS] if family is payments else [family.CHANNELS])
)


def events(now: Callable[[], float]) -> Iterator[NewEvent]:
    """Yield events for ever: one of each family in turn, and a price after each.

    Args:
        now: Returns seconds since 1970.
    """
    prices = count(1)
    for moves in cycle([_moves(types) for types in TURNS]):
        type, fields = next(moves)
        yield _made(type, fields, now())
        yield _made(PRICE, _price(next(prices)), now())


def _moves(types: tuple[str, ...]) -> Iterator[tuple[str, Fields]]:
    """Yield what one family does, round after round."""
    for number in count(1):
        for type in types:
            fields = MOVES.get(type, _as_sampled)(number)
            if fields is not None:
                yield type, fields


def _made(type: str, fields: Fields, now: float) -> NewEvent:
    declared = EVENT_TYPES[type]
    payload = {**declared.sample, **fields}
    if "timestamp" in payload:
        payload["timestamp"] = rfc3339_of(now)
    audience = tuple(_of_this(token, payload) for token in declared.audience)
    return VALIDATION.event(type, payload, audience, source=PUBLISHER)


def _of_this(token: str, payload: Fields) -> str:
    """Return the audience of a sample with the stream that the payload is about."""
    return f"resource:stream/{payload['streamId']}" if token.startswith("resource:stream/") else token
