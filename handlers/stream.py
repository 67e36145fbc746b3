"""`GET /v1/stream`: whatever the query selects, over Server-Sent Events."""

from __future__ import annotations

from functools import lru_cache

from handlers.authentication import RESUME
from handlers.resumption import Resumption
from handlers.sse import COMMON_PARAMETERS, Admission, SseOpening, listed
from hub.errors import BadRequest
from hub.subscriptions import EVERYTHING, Subscription, is_bound, make_subscription

MAX_TOPICS = 100
SELECTING = ("topics", "types", "sources", "resources", "keys")
PARAMETERS = (*SELECTING, *COMMON_PARAMETERS)


class Stream(SseOpening):
    """Opens a stream of everything that the principal may see, or of what it selects."""

    async def get(self, **path: str) -> None:
        """Answer with a stream that ends when the client, the credential or the server does."""
        principal = await self.principal()
        resumption = self.resumption()
        self.require_same(principal, resumption)
        subscriptions = self._subscriptions(resumption)
        start = await self.start((resumption.position, RESUME) if resumption else (None, RESUME))
        self.admit(Admission(principal, subscriptions, await self.belongings(principal, subscriptions), start))

    def _subscriptions(self, resumption: Resumption | None) -> frozenset[Subscription]:
        """Return what the query selects: each of its topics with all of its filters."""
        arguments = self.arguments()
        bounds = {name: value for name, value in arguments.items() if is_bound(name)}
        self.require_known([name for name in arguments if name not in bounds], PARAMETERS, ", min<Field> and max<Field>")
        self.refuse_mixed(resumption, [*bounds, *(name for name in SELECTING if name in arguments)])
        if resumption is not None:
            return resumption.subscriptions
        return _selected(*(arguments.get(name) for name in SELECTING), tuple(bounds.items()))


@lru_cache(maxsize=256)  # most clients of a page ask for the same
def _selected(
    topics: str | None,
    types: str | None,
    sources: str | None,
    resources: str | None,
    keys: str | None,
    bounds: tuple[tuple[str, str], ...],
) -> frozenset[Subscription]:
    """Return each of some topics with all of these filters; the arguments are lists as they stand in a query, in the order of SELECTING."""
    patterns = listed(topics) or [EVERYTHING]
    if len(patterns) > MAX_TOPICS:
        raise BadRequest(f"at most {MAX_TOPICS} topics, not {len(patterns)}", field="topics")
    filters = listed(types), listed(sources), dict(bounds), listed(resources), listed(keys)
    return frozenset(make_subscription(pattern, *filters, topic_field="topics", prefix="") for pattern in patterns)
