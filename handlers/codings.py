"""Content codings: whether a client takes gzip (RFC 9110, section 12.5.3). Text in, a decision out; knows no request."""

from __future__ import annotations

import re
from functools import lru_cache

_QUALITY = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.ASCII)  # 12.4.2
_GZIP = ("gzip", "x-gzip", "*")  # the first one that is named counts; x-gzip is the same coding (8.4.1.3)


@lru_cache(maxsize=64)  # browsers send one of a few
def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an answer may be compressed with gzip, and the client does not want it rather as it is.

    Without the header, or with an empty one, it may not: most that send none cannot decode, whatever the standard allows. What is not
    understood counts as refused.
    """
    qualities: dict[str, float] = {}
    for item in accept_encoding.split(","):
        coding, _, parameter = item.partition(";")
        qualities.setdefault(coding.strip().lower(), _quality(parameter.strip()))
    quality = next((qualities[coding] for coding in _GZIP if coding in qualities), 0.0)
    return quality > 0 and quality >= qualities.get("identity", 0.0)


def _quality(parameter: str) -> float:
    """Return the weight in a parameter: 1 if there is none, 0 if it is not one."""
    if not parameter:
        return 1.0
    name, _, value = parameter.partition("=")
    return float(value) if name.strip().lower() == "q" and _QUALITY.fullmatch(value) else 0.0
