"""Revocations in force: which credentials hold no longer although their signature does and their time is not over. No I/O, no clock."""

from __future__ import annotations

from hub.principal import Principal
from storage.revoked import KINDS, Revocation


class Revocations:
    """Those that this process knows of. It is told of every one, by the log and, when it starts, by what is kept in MongoDB."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, Revocation]] = {kind: {} for kind in KINDS}

    def __len__(self) -> int:
        return sum(map(len, self._by_kind.values()))

    def add(self, revocation: Revocation) -> None:
        """Note one; of two for the same credentials both count, so times only grow. A kind that a newer version of this server has means
        nothing here."""
        known = self._by_kind.get(revocation.kind)
        if known is None:
            return
        old = known.get(revocation.id, revocation)
        known[revocation.id] = Revocation(
            revocation.kind, revocation.id, max(old.before, revocation.before), max(old.until, revocation.until)
        )

    def forget(self, now: float) -> None:
        """Let go of those whose time was over at `now`, in seconds since 1970."""
        for kind, known in self._by_kind.items():
            self._by_kind[kind] = {id: one for id, one in known.items() if one.until > now}

    def cover(self, principal: Principal) -> bool:
        """Tell whether this principal's credential is revoked."""
        by_kind = self._by_kind
        return (
            principal.token_id in by_kind["token"]
            or principal.session_id in by_kind["session"]
            or self._issued_too_early("user", principal.user, principal.issued_at)
            or self._issued_too_early("org", principal.org, principal.issued_at)
        )

    def _issued_too_early(self, kind: str, id: str | None, issued_at: float | None) -> bool:
        revocation = self._by_kind[kind].get(id) if id is not None else None
        return revocation is not None and (issued_at is None or issued_at <= revocation.before)
