"""What was refused because of a limit: counted by reason, and told in the log without flooding it. Decides nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

logger = logging.getLogger("tailcast.handlers")

SUMMARY_SECONDS: Final = 10.0  # between two summaries of one reason
NAMED_AT_ONCE: Final = 20  # names a reason tells singly within that time; further ones are only in the summary
NAMES_KEPT: Final = 1000  # a reason counts by name; those of further names are counted together
NAMES_TOLD: Final = 5  # names of a summary, those refused most

CONNECTS: Final = "connects"
FAILED_LOGINS: Final = "failed_logins"
MESSAGES: Final = "messages"
EVENTS: Final = "events"
ORG_EVENTS: Final = "org_events"
REFUSED_FIELD: Final = "refused_field"
GRANTS: Final = "grants"
PAYMENTS: Final = "payments"
AGENT_SUBSCRIPTIONS: Final = "agent_subscriptions"
CONNECTIONS: Final = "connections"
ORG_CONNECTIONS: Final = "org_connections"
SUBSCRIPTIONS: Final = "subscriptions"

# Every reason there is, and what the log says of it.
REASONS: Final = {
    CONNECTS: "refused: an address connects too often",
    FAILED_LOGINS: "refused: an address had too many credentials that do not hold",
    MESSAGES: "refused: a WebSocket sends too many messages",
    EVENTS: "refused: a publisher publishes too many events",
    ORG_EVENTS: "refused: an organisation publishes too many events",
    GRANTS: "refused: a user asks for too many tickets and renewals",
    PAYMENTS: "refused: a user makes and changes payment streams too often",
    REFUSED_FIELD: "refused: a payload has a field that is named like a secret",
    AGENT_SUBSCRIPTIONS: "reported: an agent subscribes too often",
    CONNECTIONS: "refused: the server has as many connections as it may have",
    ORG_CONNECTIONS: "refused: an organisation has as many connections as it may have",
    SUBSCRIPTIONS: "refused: a connection has as many subscriptions as it may have",
}


class Timer(Protocol):
    """What a call that is to come is known by."""

    def cancel(self) -> None:
        """Take it back."""


@dataclass(slots=True)
class _Flood:
    """One reason's refusals while they go on."""

    by_name: Counter[str] = field(default_factory=Counter)  # since the last summary, beside what was told singly
    others: int = 0  # the same of names beyond those kept
    told_singly: int = 0  # lines since the last summary
    timer: Timer | None = None  # of the next summary


class Refusals:
    """Counts refusals, and logs them: the first of each name at once, as long as these are few, and what follows in summaries.

    Memory is bounded by `NAMES_KEPT` for each reason, and given back when nothing was refused for that reason for `SUMMARY_SECONDS`.

    Args:
        call_later: Calls a function after some seconds, as the event loop does; at most one call is under way for each reason.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], Timer]) -> None:
        self._call_later = call_later
        self.counts: dict[str, int] = dict.fromkeys(REASONS, 0)  # since the start, by reason; for the metrics
        self._floods: dict[str, _Flood] = {}  # by reason, while they go on

    def count(self, reason: str, name: str, **fields: Any) -> None:
        """Count one refusal, and tell of it now or in the next summary.

        Args:
            reason: One of `REASONS`.
            name: Who was refused: an address, a user, an organisation.
            fields: More that the log line shall say.
        """
        self.counts[reason] += 1
        flood = self._floods.get(reason)
        if flood is None:
            flood = self._floods[reason] = _Flood()
            self._summarise_later(reason, flood)
        if name in flood.by_name:
            flood.by_name[name] += 1
        elif len(flood.by_name) >= NAMES_KEPT:
            flood.others += 1
        elif flood.told_singly >= NAMED_AT_ONCE:
            flood.by_name[name] = 1
        else:
            flood.by_name[name] = 0
            flood.told_singly += 1
            logger.warning("%s", REASONS[reason], extra={"fields": {"limit": reason, "who": name, **fields}})

    def close(self) -> None:
        """Tell what was not told yet, and end; idempotent."""
        for reason, flood in list(self._floods.items()):
            assert flood.timer is not None, "as long as it is kept, a summary is to come"
            flood.timer.cancel()
            self._tell(reason, flood)
        self._floods.clear()

    def _summarise_later(self, reason: str, flood: _Flood) -> None:
        flood.timer = self._call_later(SUMMARY_SECONDS, lambda: self._summarise(reason, flood))

    def _summarise(self, reason: str, flood: _Flood) -> None:
        """Tell what has happened since the last time; if nothing has, the flood is over."""
        if not self._tell(reason, flood) and not flood.told_singly:
            del self._floods[reason]
            return
        flood.by_name = Counter({name: 0 for name, count in flood.by_name.items() if count})  # whoever goes on is known
        flood.others = flood.told_singly = 0
        self._summarise_later(reason, flood)

    def _tell(self, reason: str, flood: _Flood) -> bool:
        more = flood.by_name.total() + flood.others
        if more:
            most = [(name, count) for name, count in flood.by_name.most_common(NAMES_TOLD) if count]
            names = sum(1 for count in flood.by_name.values() if count)
            fields = {"limit": reason, "count": more, "names": names, "most": most, "seconds": SUMMARY_SECONDS}
            logger.warning("%s, and so on", REASONS[reason], extra={"fields": fields})
        return more > 0
