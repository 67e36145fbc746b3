"""Is the process alive, and is it of use? For load balancers and operators."""

from __future__ import annotations

from handlers.base import Handler


class Alive(Handler):
    """`GET /healthz`: the process answers, so it lives."""

    OPEN = True

    def get(self) -> None:
        """Say so."""
        self.answer({"status": "ok"})


class Ready(Handler):
    """`GET /readyz`: it can append, and it has read the log up to its head within the stated lag."""

    OPEN = True

    async def get(self) -> None:
        """Say so, or 503 with the reason."""
        await self.services.ready()
        self.answer({"status": "ready"})
