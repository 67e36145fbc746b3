"""A revocation, as it is kept and as it is told. What a credential is is not known here. No I/O."""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("token", "session", "user", "org")


class Revocation(NamedTuple):
    """What is revoked: a token by its `jti`, a session by its id, or all credentials of a user or an organisation.

    Those of a user or organisation that were issued after `before` hold again; one that does not say when it was issued does not.
    Both times are in seconds since 1970; after `until` no credential that this could concern is valid any more.
    """

    kind: str
    id: str
    before: float
    until: float
