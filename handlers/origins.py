"""Pages of other origins: what they may do here, by the Fetch standard, section 3.2 (CORS). Knows no request."""

from __future__ import annotations

from typing import NamedTuple

ANY = "*"
SAFE_METHODS = ("GET", "HEAD")


class Page(NamedTuple):
    """The page that a request comes from.

    `origin` is what the browser says of it; None: nothing, since it is no browser, or has no reason to. `host` is whom it asks, by
    `scheme`, and `listed` are the origins in the settings.
    """

    origin: str | None
    host: str
    scheme: str
    listed: frozenset[str]

    def is_foreign(self) -> bool:
        """Tell whether it is a page that may not use this server: neither its own, nor listed."""
        return self.origin is not None and not self.is_known() and ANY not in self.listed

    def is_known(self) -> bool:
        """Tell whether it is a page that may use its user's cookies here: the server's own, or listed by name, and not by `*`."""
        if self.origin is None:
            return False
        return self._is_own(self.origin) or (self.origin.lower() in self.listed and self.origin != ANY)

    def _is_own(self, origin: str) -> bool:
        """Tell whether this is the origin that the request was sent to; of either scheme, since a proxy may have ended TLS.

        Where TLS ends here, a page without it is a foreign one: whoever is between it and its user could have written it.
        """
        scheme, _, host = origin.partition("://")
        if self.scheme == "https" and scheme.lower() != "https":
            return False
        return host != "" and host.lower() == self.host.lower()

    def may_use_cookies(self, method: str, site: str | None, *, unnamed: bool) -> bool:
        """Tell whether a cookie that came with a request may be used: browsers add cookies to whatever any page asks for.

        A page of another site cannot read the answer to its own GET, and names its origin whenever it could. So only what changes something
        must come from a page that is known, or that the browser calls one of this site's (`Sec-Fetch-Site`).

        Args:
            method: Of the request.
            site: What `Sec-Fetch-Site` says; None: nothing.
            unnamed: Whether a page without an origin may at all.
        """
        if self.origin is not None:
            return self.is_known()
        if site is None:
            return unnamed and method in SAFE_METHODS
        return unnamed and site in ("same-origin", "none")

    def headers(self) -> dict[str, str]:
        """Return the headers that let the page read the answer; with its user's cookies only if it is known."""
        if self.origin is None or self.is_foreign():
            return {"Vary": "Origin"}
        headers = {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": self.origin,
            "Access-Control-Expose-Headers": "X-Correlation-ID, Retry-After, Last-Event-ID",
        }
        return {**headers, "Access-Control-Allow-Credentials": "true"} if self.is_known() else headers

    def preflight_headers(self, methods: str) -> dict[str, str]:
        """Return what a preflight is told, beside `headers`: nothing to a page that may not use this server."""
        if self.origin is None or self.is_foreign():
            return {}
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Correlation-ID",
            "Access-Control-Max-Age": "600",
        }
