"""`GET /api/stream/metrics`: how many are connected, as a stream or as one answer."""

from __future__ import annotations

from handlers.channels import ChannelStream
from hub.principal import ADMIN


class TotalsStream(ChannelStream):
    """Tells anybody how many there are, and an admin whose they are."""

    def opens_stream(self) -> bool:
        """One answer is enough for whoever accepts JSON and says nothing of event streams."""
        accept = self.request.headers.get("Accept", "")
        return "text/event-stream" in accept or "application/json" not in accept

    async def get(self, **path: str) -> None:
        """Answer with a stream of `metrics`, or with one of them as JSON."""
        watchers = self.services.watchers
        if self.opens_stream():
            connection = await self.open(**path)
            if connection is not None:
                watchers.watch(connection)
        else:
            principal = await self.visitor()
            self.require_known(self.arguments(), ("token",))
            self.answer(watchers.count(per_user=principal.has_role(ADMIN)))
