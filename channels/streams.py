"""What may happen to a payment stream, and what it is then: a table of steps over plain values, in exact decimals. No I/O.

    created --top-up, withdraw--> active --cancel--> cancelled
                                         --complete--> completed

Nothing happens to a stream any more that is cancelled or completed. What the money itself does is settled elsewhere: this is what the
screens show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any, NamedTuple

import msgspec

from channels.payments import LIFE_EVENTS
from hub.errors import Conflict, InvalidEvent
from hub.principal import is_audience
from hub.subscriptions import is_name

MAX_AMOUNT_DIGITS = 1000  # before and after the point together; a 256-bit number has 78
MAX_SUM_DIGITS = 2 * MAX_AMOUNT_DIGITS  # of what amounts come to
ACTIVE, CANCELLED, COMPLETED = "active", "cancelled", "completed"
_AMOUNT = re.compile(r"(0|[1-9]\d*)(\.\d+)?", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LATEST_START = 253_402_300_799  # the end of the year 9999
_exact = Context(prec=2 * MAX_SUM_DIGITS, traps=[Inexact, InvalidOperation, Overflow])

State = Mapping[str, Any]


class NewStream(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream is made of. `startTime` is in seconds since 1970, or an RFC 3339 time, and is kept as it is given; `id` as a string."""

    sender: str
    recipient: str
    tokenAddress: str
    ratePerSecond: str
    depositedAmount: str
    startTime: int | str
    id: str | int | None = None


class Step(NamedTuple):
    """Something that may happen to an active stream.

    Args:
        type: Of its event.
        parties: Which of its parties may ask for it, beside those who keep all streams; a field of the state each.
        moves: Which sum of the state an amount is added to; None: it has no amount.
        status: What the stream is afterwards.
        within: The sum that the moved one must not exceed.
    """

    type: str
    parties: tuple[str, ...]
    moves: str | None = None
    status: str = ACTIVE
    within: str | None = None


# What the last part of the path says, and what it does.
STEPS = {
    "top-up": Step("stream.topped_up", ("sender",), moves="depositedAmount"),
    "withdraw": Step("stream.withdrawn", ("recipient",), moves="withdrawnAmount", within="depositedAmount"),
    "cancel": Step("stream.cancelled", ("sender", "recipient"), status=CANCELLED),
    "complete": Step("stream.completed", (), status=COMPLETED),
}

# What an event says of the state, and of the step: what its shape has room for.
PAYLOADS = {one.name: tuple(field.encode_name for field in msgspec.structs.fields(one.shape)) for one in LIFE_EVENTS}


def payload(type: str, state: State, amount: str | None) -> dict[str, Any]:
    """Return the payload of an event of this type."""
    values = {**state, "amount": amount}
    return {name: values[name] for name in PAYLOADS[type] if values.get(name) is not None}


def is_stream_id(text: str) -> bool:
    """Tell whether this can be a stream's id: it is a segment of topics, and of paths."""
    return _ID.fullmatch(text) is not None


def parties_of(state: State) -> tuple[str, ...]:
    """Return the audiences of those whom a stream belongs to."""
    return tuple(dict.fromkeys(f"user:{state[party]}" for party in ("sender", "recipient")))


def created(id: str, wanted: NewStream) -> dict[str, Any]:
    """Return the state of a new stream.

    Raises:
        InvalidEvent: If it cannot be; its `field` names what is wrong.
    """
    for field in ("sender", "recipient"):
        if not is_audience(f"user:{getattr(wanted, field)}"):
            raise InvalidEvent("expected the name of a user, without spaces and commas", field=field)
    if wanted.sender == wanted.recipient:
        raise InvalidEvent("expected somebody else than the sender", field="recipient")
    if not is_name(wanted.tokenAddress):
        raise InvalidEvent("expected an address without spaces, commas and asterisks", field="tokenAddress")
    for field in ("ratePerSecond", "depositedAmount"):
        positive_amount(getattr(wanted, field), field)
    if not _is_start(wanted.startTime):
        raise InvalidEvent("expected seconds since 1970, or an RFC 3339 time like 2026-01-31T12:00:00Z", field="startTime")
    given = {name: value for name, value in msgspec.to_builtins(wanted).items() if name != "id"}
    return {"streamId": id, **given, "withdrawnAmount": "0", "status": ACTIVE}


def _is_start(given: int | str) -> bool:
    if isinstance(given, str) and not (given.isascii() and given.isdecimal()):
        return _TIME.fullmatch(given) is not None
    return len(str(given)) <= len(str(_LATEST_START)) and 0 <= int(given) <= _LATEST_START


def positive_amount(text: str, field: str = "amount") -> Decimal:
    """Return an amount as it is written, exactly.

    Raises:
        InvalidEvent: If it is none, or not above 0, or has too many digits.
    """
    if len(text.replace(".", "")) > MAX_AMOUNT_DIGITS or _AMOUNT.fullmatch(text) is None:
        raise InvalidEvent(f'expected a decimal number as a string, like "12.50", of at most {MAX_AMOUNT_DIGITS} digits', field=field)
    value = _exact.create_decimal(text)
    if not value:
        raise InvalidEvent("expected an amount above 0", field=field)
    return value


def stepped(state: State, step: Step, amount: str | None) -> dict[str, Any]:
    """Return a state after a step.

    Args:
        state: Before it.
        step: One of `STEPS`.
        amount: As it was asked for; None where the step has none.

    Raises:
        InvalidEvent: If the amount is none.
        Conflict: If the stream is over, or has not so much.
    """
    moved = positive_amount(amount) if amount is not None else None
    if state["status"] != ACTIVE:
        raise Conflict(f"the stream is {state['status']}: nothing happens to it any more")
    if moved is None or step.moves is None:
        return {**state, "status": step.status}
    total = _exact.add(_exact.create_decimal(state[step.moves]), moved)
    if step.within is not None and total > _exact.create_decimal(state[step.within]):
        left = _exact.subtract(_exact.create_decimal(state[step.within]), _exact.create_decimal(state[step.moves]))
        raise Conflict(f"expected at most what is left, {format(left, 'f')}"[:200], field="amount")
    text = format(total, "f")
    if len(text) > MAX_SUM_DIGITS:
        raise Conflict(f"the stream would come to more than {MAX_SUM_DIGITS} digits", field="amount")
    return {**state, step.moves: text, "status": step.status}
