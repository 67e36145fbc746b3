"""What payload fields are made of: ids, texts, times, and numbers that stay exact. Types that say what they allow, and no rules."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, localcontext
from typing import Annotated, Any

import msgspec
from msgspec import Meta

MAX_ID_LENGTH = 256  # an event's key is as long, at the most
MAX_TEXT_LENGTH = 2000
MAX_LONG_TEXT_LENGTH = 20_000
MAX_NUMBER_LENGTH = 100  # of a number in a string, where sizes are not arbitrary
MAX_AMOUNT_LENGTH = 10_000  # of an amount of arbitrary size
MAX_LIST_LENGTH = 1000
_END = r"$(?!\n)"  # `$` alone would also allow a line break at the end
# An id of a resource is the second part of an audience, and so has no white space and no comma; see hub.principal.
_ID = rf"^[^\s,\x00-\x1f\x7f]+{_END}"
_SYMBOL = rf"^[^\s,*\x00-\x1f\x7f]+{_END}"  # several stand with commas in `?symbols=`
_DECIMAL = rf"^[0-9]+(\.[0-9]+)?{_END}"
_SIGNED_DECIMAL = rf"^-?[0-9]+(\.[0-9]+)?{_END}"
_POINT_IN_TIME = rf"^([0-9]{{1,15}}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9:]{{8}}(\.[0-9]{{1,9}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})){_END}"

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
ResourceId = Annotated[str, Meta(min_length=1, max_length=200, pattern=_ID)] | Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Symbol = Annotated[str, Meta(min_length=1, max_length=32, pattern=_SYMBOL)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH)]
LongText = Annotated[str, Meta(max_length=MAX_LONG_TEXT_LENGTH)]
Details = dict[str, Any] | LongText
Time = Annotated[datetime, Meta(tz=True)]  # RFC 3339, with an offset from UTC
PointInTime = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=_POINT_IN_TIME)]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
# Money of payment streams: a string, since amounts of tokens have more digits than numbers of JSON keep everywhere.
Amount = Annotated[str, Meta(min_length=1, max_length=MAX_AMOUNT_LENGTH, pattern=_DECIMAL)]
# Numbers of trading and of accounts: of JSON, or strings where they must stay exact in JavaScript too.
Number = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)] | Annotated[str, Meta(max_length=MAX_NUMBER_LENGTH, pattern=_DECIMAL)]
SignedNumber = int | float | Annotated[str, Meta(max_length=MAX_NUMBER_LENGTH, pattern=_SIGNED_DECIMAL)]

_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


class Shape(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A payload: an object with these fields and no others, named in JSON as JavaScript names things."""


def exact_sum(numbers: Iterable[str | int | float]) -> str:
    """Return the sum of numbers as a decimal string; every digit counts."""
    with localcontext(_EXACT):
        return format(sum(map(decimal_of, numbers), Decimal()), "f")


def decimal_of(number: str | int | float) -> Decimal:
    """Return a number of a payload, a float as its shortest text, which is how it was written."""
    return Decimal(str(number))
