"""`/v1/resources/<kind>/<id>`: who owns what. Events for a resource reach its owners, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from channels.families import CHANNEL
from handlers.base import Handler
from handlers.services import Services
from hub.control import Changed, control_event
from hub.errors import BadRequest, Forbidden, NotFound
from hub.principal import audience_of, is_audience
from storage.owned import Owned

MAX_OWNERS = 100
OWNERS = ("user:", "org:", "entity:")
KEEPERS = ("publisher", "admin")


class ResourceIn(msgspec.Struct, forbid_unknown_fields=True):
    """To whom a resource belongs from now on."""

    owners: list[str]


class Resource(Handler):
    """Keeps ownership, for publishers and admins; its owners may look at it."""

    CORS_METHODS = "GET, PUT, DELETE"

    async def get(self, kind: str, id: str) -> None:
        """Answer with the owners: 403 for everybody who is not one of them, whether there is such a resource or not."""
        principal = await self.principal()
        name = resource_name(kind, id)
        owned = (await self.services.state.ownership.owners_of([name])).get(name)
        may_know = principal.has_role(*KEEPERS)
        if owned is None and may_know:
            raise NotFound("there is no such resource")
        if owned is None or not (may_know or owned.belongs_to(principal.names())):
            raise Forbidden("the resource is not yours")
        self.answer({"resource": owned.resource, "owners": owned.owners})

    async def put(self, kind: str, id: str) -> None:
        """Answer 200 once the resource belongs to these, and every server process is told."""
        await self.principal(*KEEPERS)
        name = resource_name(kind, id)
        owners = checked_owners(self.decoded(ResourceIn).owners)
        owned = await give(self.services, name, owners, self.correlation_id)
        self.answer({"resource": owned.resource, "owners": owned.owners})

    async def delete(self, kind: str, id: str) -> None:
        """Answer 204 once the resource is nobody's any more, and every server process is told."""
        await self.principal(*KEEPERS)
        await give(self.services, resource_name(kind, id), (), self.correlation_id)
        self.set_status(204)
        self.finish()


def resource_name(kind: str, id: str) -> str:
    """Return the name of a resource.

    Raises:
        BadRequest: If it cannot be one, or stands for a whole channel, which is nobody's.
    """
    name = f"{kind}/{id}"
    if kind == CHANNEL:
        raise BadRequest("a channel belongs to nobody: an admin may hear all of it")
    if not is_audience(audience_of(name)):
        raise BadRequest(f"a resource is <kind>/<id> without spaces and commas, not {name[:80]!r}")
    return name


def checked_owners(owners: Sequence[str]) -> tuple[str, ...]:
    """Return owners as they are kept, each once.

    Raises:
        BadRequest: If there are none or too many, or one is not a user, an organisation or an entity.
    """
    if not 0 < len(owners) <= MAX_OWNERS:
        raise BadRequest(f"expected 1 to {MAX_OWNERS} owners, not {len(owners)}", field="owners")
    for index, owner in enumerate(owners):
        if not (owner.startswith(OWNERS) and is_audience(owner)):
            raise BadRequest(f"expected user:<id>, org:<id> or entity:<id>, not {owner[:80]!r}", field=f"owners[{index}]")
    return tuple(dict.fromkeys(owners))


async def give(services: Services, resource: str, owners: Sequence[str], correlation_id: str) -> Owned:
    """Let a resource belong to these from now on: keep it in MongoDB, and tell all processes through the log. The one way to do so.

    When this is cancelled or fails it may have happened or not; do it again.

    Raises:
        Unavailable: If MongoDB is away or did not confirm it.
        Overloaded: If too much waits to be written.
    """
    owned = await services.state.ownership.set_owners(resource, owners)
    await services.appender.append([control_event(Changed(owned), correlation_id)])
    return owned
