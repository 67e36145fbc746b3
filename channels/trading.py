"""Trading: orders, positions, prices, trades, alerts, strategies and what agents do and decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from channels.declaration import Access, Channel, EventType, Recent, Scope, Snapshot
from channels.portfolio import MAX_DIGITS, is_amount
from channels.valuation import SOURCE
from channels.values import Details, Id, LongText, Number, Shape, SignedNumber, Symbol, Text, Time, Word, decimal_of, exact_sum
from hub.terms import Pace, Terms

STRATEGY = "strategy"  # the kind of resource that a strategy is
STRATEGY_STATUSES = ("started", "stopped", "error")
RETRY_MS = 5000
HEARTBEAT = " keepalive"  # with the colon of a comment: `: keepalive`
HEARTBEAT_SECONDS = 30.0
RECENT = Recent(events=100, seconds=300.0)
DAY_SECONDS = 86_400.0
PRICES_EVERY_SECONDS = 0.1
PRICES_CONFLATED_ABOVE = 1000.0  # events a second

Timestamp = Annotated[Time, Meta(description="When it was so.")]
MaybeTimestamp = Annotated[Time | None, Meta(description="When it was so.")]
OrderId = Annotated[Id, Meta(description="The order.")]
OfSymbol = Annotated[Symbol, Meta(description="What is traded, like `AAPL`.")]
Side = Annotated[Literal["buy", "sell"], Meta(description="`buy` or `sell`.")]
Quantity = Annotated[Number, Meta(description="How many were ordered.")]


class _OrderExtras(Shape, kw_only=True):
    type: Annotated[Word | None, Meta(description="Like `market` or `limit`.")] = None
    limit_price: Annotated[Number | None, Meta(description="The worst price that it may be filled at.")] = None
    price: Annotated[Number | None, Meta(description="A price.")] = None
    amount: Annotated[Number | None, Meta(description="Quantity times price.")] = None
    client_order_id: Annotated[Id | None, Meta(description="What its sender calls it.")] = None
    strategy_id: Annotated[Id | None, Meta(description="The strategy that gave it.")] = None


class OrderUpdate(_OrderExtras, kw_only=True):
    """An order was created, or cancelled, or stands otherwise than before."""

    order_id: OrderId
    symbol: OfSymbol
    side: Side
    qty: Quantity
    status: Annotated[Word, Meta(description="How it stands, like `new`, `accepted`, `cancelled`, `rejected`.")]
    timestamp: Timestamp
    reason: Annotated[Text | None, Meta(description="Why it was cancelled.")] = None
    filled_qty: Annotated[Number | None, Meta(description="How many are filled in all.")] = None
    filled_avg_price: Annotated[Number | None, Meta(description="Their average price.")] = None


class OrderFill(_OrderExtras, kw_only=True):
    """An order was filled, or a part of it."""

    order_id: OrderId
    symbol: OfSymbol
    side: Side
    qty: Quantity
    filled_qty: Annotated[Number, Meta(description="How many are filled in all.")]
    filled_avg_price: Annotated[Number, Meta(description="Their average price.")]
    status: Annotated[Literal["filled", "partially_filled"], Meta(description="`filled` or `partially_filled`.")]
    timestamp: Timestamp


class PositionUpdate(Shape):
    """A position was opened, changed or closed. Publishers say what is held, for an audience with exactly one user; its value is
    computed here, with every price."""

    symbol: OfSymbol
    quantity: Annotated[SignedNumber, Meta(description="How many are held now; 0: it is closed; below zero: owed.")]
    entry_price: Annotated[
        Number | None, Meta(description="Average price at which they were bought. May be left out when none is held.")
    ] = None
    price: Annotated[Number | None, Meta(description="At which the change was made. Left out: the latest price.")] = None
    timestamp: MaybeTimestamp = None


class ValuedPosition(Shape):
    """A position with its value, made by the server of a position and a price. All numbers are decimal strings."""

    symbol: OfSymbol
    quantity: Annotated[str, Meta(description="How many are held; `0` once it is closed.")]
    entry_price: Annotated[str, Meta(description="Average price at which they were bought.")]
    current_price: Annotated[str, Meta(description="The latest price; the entry price as long as none is known.")]
    market_value: Annotated[str, Meta(description="Quantity times current price.")]
    unrealized_pnl: Annotated[str, Meta(description="What would be won by selling now.")]
    realized_pnl: Annotated[str, Meta(description="What was won by what has been sold.")]
    total_value: Annotated[str, Meta(description="Market value of all positions of the user.")]
    status: Annotated[Literal["opened", "updated", "closed"], Meta(description="`opened`, `updated` or `closed`.")]
    timestamp: Timestamp
    cause: Annotated[str, Meta(description="Id of the event that changed it: a position or a price.")]


class PriceUpdate(Shape):
    """What something costs."""

    symbol: OfSymbol
    price: Annotated[Number, Meta(description="Of the latest trade.")]
    bid: Annotated[Number, Meta(description="The best that is offered for it.")]
    ask: Annotated[Number, Meta(description="The best at which it is offered.")]
    timestamp: Timestamp
    volume: Annotated[Number | None, Meta(description="How many were traded.")] = None


class TradeNew(Shape):
    """A trade was made."""

    symbol: OfSymbol
    side: Side
    qty: Annotated[Number, Meta(description="How many.")]
    price: Annotated[Number, Meta(description="At which price.")]
    trade_id: Annotated[Id | None, Meta(description="The trade.")] = None
    order_id: Annotated[Id | None, Meta(description="The order that it belongs to.")] = None
    amount: Annotated[Number | None, Meta(description="Quantity times price.")] = None
    timestamp: MaybeTimestamp = None


class AlertNew(Shape):
    """Somebody should know this. Of level `error` it is of high priority: it is never held back."""

    alert_id: Annotated[Id, Meta(description="The alert.")]
    level: Annotated[Literal["info", "warning", "error"], Meta(description="`info`, `warning` or `error`.")]
    message: Annotated[LongText, Meta(description="What to know.")]
    timestamp: Timestamp
    title: Annotated[Text | None, Meta(description="It in a line.")] = None
    symbol: Annotated[Symbol | None, Meta(description="What it is about.")] = None
    details: Annotated[Details | None, Meta(description="Whatever else.")] = None


class StrategyUpdate(Shape):
    """A strategy gives a signal (type, symbol, action, confidence, details, reasoning), or its status has changed (status, details)."""

    strategy_id: Annotated[Id | None, Meta(description="The strategy.")] = None
    type: Annotated[Word | None, Meta(description="Of a signal: what kind it is.")] = None
    symbol: Annotated[Symbol | None, Meta(description="Of a signal: what it is about.")] = None
    action: Annotated[Word | None, Meta(description="Of a signal: what to do, like `buy`.")] = None
    confidence: Annotated[Number | None, Meta(description="Of a signal: how sure the strategy is.")] = None
    reasoning: Annotated[LongText | None, Meta(description="Of a signal: why.")] = None
    status: Annotated[
        Literal["started", "stopped", "error"] | None, Meta(description="Of a change of status: `started`, `stopped` or `error`.")
    ] = None
    details: Annotated[Details | None, Meta(description="Of a signal: its particulars. Of an error: what went wrong.")] = None
    error: Annotated[Details | None, Meta(description="Of an error: what went wrong.")] = None
    timestamp: MaybeTimestamp = None


class AgentStatus(Shape):
    """How an agent is doing."""

    agent_id: Annotated[Id, Meta(description="The agent.")]
    status: Annotated[Word, Meta(description="Like `running`, `idle`, `error`.")]
    message: Annotated[LongText | None, Meta(description="In a sentence.")] = None
    details: Annotated[Details | None, Meta(description="Whatever else.")] = None
    timestamp: MaybeTimestamp = None


class AiDecision(Shape):
    """A model has decided something."""

    action: Annotated[Word, Meta(description="What is to be done, like `buy`, `sell`, `hold`.")]
    symbol: Annotated[Symbol | None, Meta(description="About what.")] = None
    decision_id: Annotated[Id | None, Meta(description="The decision.")] = None
    agent_id: Annotated[Id | None, Meta(description="The agent that decided.")] = None
    strategy_id: Annotated[Id | None, Meta(description="The strategy that it decided for.")] = None
    model: Annotated[Text | None, Meta(description="What it decided with.")] = None
    qty: Annotated[Number | None, Meta(description="How many.")] = None
    price: Annotated[Number | None, Meta(description="At which price.")] = None
    confidence: Annotated[Number | None, Meta(description="How sure it is.")] = None
    reasoning: Annotated[LongText | None, Meta(description="Why.")] = None
    details: Annotated[Details | None, Meta(description="Whatever else.")] = None
    timestamp: MaybeTimestamp = None


class Broadcast(Shape, forbid_unknown_fields=False):
    """Whatever somebody tries a stream with. The only payload that may have fields beyond those named here."""

    message: Annotated[Text | None, Meta(description="What to show.")] = None
    timestamp: Annotated[Text | None, Meta(description="When.")] = None


def _too_long(payload: Shape, *names: str) -> tuple[str, str] | None:
    """Portfolios are computed exactly, and so their numbers have a bounded count of digits."""
    for name in names:
        number = getattr(payload, name)
        if number is not None and not is_amount(decimal_of(number)):
            (field,) = (one.encode_name for one in msgspec.structs.fields(payload) if one.name == name)
            return f"data.{field}", f"at most {MAX_DIGITS} digits before the point, and after it"
    return None


def _is_position(payload: PositionUpdate, audience: tuple[str, ...]) -> tuple[str, str] | None:
    """A position is somebody's: its value counts in that one's portfolio, and in nobody else's."""
    if sum(token.startswith("user:") for token in audience) != 1:
        return "audience", "exactly one user:<id>, whose position it is"
    if payload.entry_price is None and decimal_of(payload.quantity) != 0:
        return "data.entryPrice", "a price, unless quantity is 0"
    return _too_long(payload, "quantity", "entry_price", "price")


def _is_price(payload: PriceUpdate, _: tuple[str, ...]) -> tuple[str, str] | None:
    return _too_long(payload, "price")


def _is_signal_or_status(payload: StrategyUpdate, _: tuple[str, ...]) -> tuple[str, str] | None:
    if payload.status is not None or payload.type in STRATEGY_STATUSES:
        return None
    for name in ("type", "symbol", "action", "confidence", "details", "reasoning"):
        if getattr(payload, name) is None:
            return f"data.{name}", "all of type, symbol, action, confidence, details and reasoning for a signal, or a status"
    return None


def _is_closed(position: Mapping[str, Any]) -> bool:
    return decimal_of(position["quantity"]) == 0


def _total_value(positions: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"totalValue": exact_sum(position["marketValue"] for position in positions)}


_USER = ("user:demo",)
_AT = "2026-11-20T12:00:00Z"
_ORDER = {"orderId": "o-1", "symbol": "AAPL", "side": "buy", "qty": 10}

ORDER_UPDATE = EventType("order:update", OrderUpdate, {**_ORDER, "status": "new", "timestamp": _AT}, _USER, "trading.orders", key="orderId")
ORDER_FILL = EventType(
    "order:fill",
    OrderFill,
    {**_ORDER, "filledQty": 4, "filledAvgPrice": "190.25", "status": "partially_filled", "timestamp": _AT},
    _USER,
    "trading.orders",
    key="orderId",
)
POSITION_UPDATE = EventType(
    "position:update",
    PositionUpdate,
    {"symbol": "AAPL", "quantity": "10", "entryPrice": "190.25", "timestamp": _AT},
    _USER,
    "trading.positions",
    key="symbol",
    check=_is_position,
    sources=(SOURCE,),
    shown=ValuedPosition,
    shown_sample={
        "symbol": "AAPL",
        "quantity": "10",
        "entryPrice": "190.25",
        "currentPrice": "191.5",
        "marketValue": "1915.0",
        "unrealizedPnl": "12.50",
        "realizedPnl": "0",
        "totalValue": "1915.0",
        "status": "updated",
        "timestamp": _AT,
        "cause": "1795179057996-TdRrqGuWzL2TV8OKZNNS1mTgaw0",
    },
)
PRICE_UPDATE = EventType(
    "price:update",
    PriceUpdate,
    {"symbol": "AAPL", "price": "191.50", "bid": "191.49", "ask": "191.51", "timestamp": _AT},
    ("public",),
    "trading.prices",
    key="symbol",
    check=_is_price,
)
TRADE_NEW = EventType(
    "trade:new",
    TradeNew,
    {"tradeId": "trade-1", "orderId": "o-1", "symbol": "AAPL", "side": "buy", "qty": 4, "price": "190.25", "timestamp": _AT},
    _USER,
    "trading.trades",
)
ALERT_NEW = EventType(
    "alert:new",
    AlertNew,
    {"alertId": "alert-1", "level": "warning", "message": "AAPL has fallen by 2 % within a minute", "timestamp": _AT},
    _USER,
    "trading.alerts",
    high=lambda alert: alert.level == "error",
)
STRATEGY_UPDATE = EventType(
    "strategy:update",
    StrategyUpdate,
    {
        "strategyId": "momentum",
        "type": "entry",
        "symbol": "AAPL",
        "action": "buy",
        "confidence": 0.82,
        "details": {"window": "5m"},
        "reasoning": "Price and volume rise together.",
        "timestamp": _AT,
    },
    ("resource:strategy/momentum", "user:demo"),
    "trading.strategies",
    check=_is_signal_or_status,
)
AGENT_STATUS = EventType(
    "agent:status", AgentStatus, {"agentId": "scout", "status": "running", "timestamp": _AT}, ("public",), "trading.agents", key="agentId"
)
AI_DECISION = EventType(
    "ai:decision",
    AiDecision,
    {
        "decisionId": "decision-1",
        "symbol": "AAPL",
        "action": "hold",
        "confidence": 0.64,
        "reasoning": "Earnings are out tomorrow.",
        "timestamp": _AT,
    },
    _USER,
    "trading.decisions",
)
TEST = EventType("test", Broadcast, {"message": "a test", "timestamp": _AT}, ("public",), "trading.test")


def _terms(channel: str, pace: Pace | None = None) -> Terms:
    return Terms(channel, HEARTBEAT_SECONDS, pace)


def _channel(name: str, title: str, events: tuple[EventType, ...], **more: Any) -> Channel:
    """Return a channel with what all channels of trading have in common; `more` overrides it."""
    common: dict[str, Any] = {
        "path": f"/api/stream/{name}",
        "also": (AGENT_STATUS.name, TEST.name),
        "heartbeat": HEARTBEAT,
        "retry_ms": RETRY_MS,
        "recent": RECENT,
        "terms": _terms(name),
    }
    return Channel(name, title, events, **{**common, **more})


CHANNELS = (
    _channel(
        "orders",
        "The user's orders: a snapshot of the recent ones, then what becomes of them.",
        (ORDER_UPDATE, ORDER_FILL),
        snapshot=Snapshot("orders", "user", ("order:update", "order:fill"), limit=100, keep_seconds=30 * DAY_SECONDS),
    ),
    _channel(
        "positions",
        "The user's positions with their value: a snapshot with the value of all, then every change by a trade or a price.",
        (POSITION_UPDATE,),
        sources=(SOURCE,),
        snapshot=Snapshot("positions", "user", ("position:update",), (SOURCE,), limit=1000, gone=_is_closed, total=_total_value),
    ),
    _channel(
        "prices",
        "Prices: first the latest of every symbol asked for, then at most ten deliveries a second.",
        (PRICE_UPDATE,),
        also=(TEST.name,),
        access=Access.ANYONE,
        scope=Scope.PUBLIC,
        parameters=("symbols",),
        snapshot=Snapshot("prices", "public", ("price:update",), limit=1000, keep_seconds=7 * DAY_SECONDS, each=True),
        recent=None,
        terms=_terms("prices", Pace(PRICES_EVERY_SECONDS, PRICES_CONFLATED_ABOVE)),
    ),
    _channel(
        "trading",
        "Orders, positions and trades together, and what is said to everybody.",
        (TRADE_NEW, AGENT_STATUS, TEST),
        also=("order:update", "order:fill", "position:update"),
        parameters=("userId",),
        claims=("trading.**",),
    ),
    _channel("ai-decisions", "What models decide for the user.", (AI_DECISION,)),
    _channel(
        "strategies",
        "Signals and changes of status of one strategy.",
        (STRATEGY_UPDATE,),
        path="/api/stream/strategies/(?P<id>[^/]+)",
        also=(),
        access=Access.OWNER,
        scope=Scope.RESOURCE,
        resource=STRATEGY,
    ),
    _channel(
        "metrics",
        "How many clients and users are connected; for an admin also whose they are.",
        (),
        also=(),
        access=Access.ANYONE,
        recent=None,
    ),
    _channel("alerts", "Alerts to all sessions of the user; those of level error at once.", (ALERT_NEW,)),
)
