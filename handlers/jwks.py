"""The keys that an issuer publishes at a URL (JWKS, RFC 7517): fetched, kept, and fetched again. Knows no token.

One task fetches, so that there is never more than one fetch, however many wait for it. What was fetched last is good until something
newer comes: an issuer that cannot be reached locks nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections.abc import Callable, Iterable

from tornado.httpclient import HTTPError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import HTTPStreamClosedError, SimpleAsyncHTTPClient

from handlers.keys import KeyRing, UnusableSetError, published_keys
from hub.errors import NotReady

logger = logging.getLogger("tailcast.handlers")

MAX_SET_BYTES = 1 << 20
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0  # for the whole fetch
WAIT_SECONDS = 5.0  # that a client waits for a fetch
ASK_SECONDS = 5.0  # between fetches that clients ask for: anybody can make up a kid
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


class PublishedKeys:
    """Keeps the keys of an issuer in the ring up to date, while `run` runs.

    Args:
        url: Where they are.
        ring: Where they are put.
        algorithms: Those that the operator allows.
        seconds: How old they may get before they are fetched again.
        monotonic: Returns seconds since some moment.
        ssl_context: Which certificates are trusted; None: those that the system trusts, or those in the file that the environment
            variable SSL_CERT_FILE names.
    """

    def __init__(
        self,
        url: str,
        ring: KeyRing,
        algorithms: Iterable[str],
        *,
        seconds: float,
        monotonic: Callable[[], float],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._ring = ring
        self._algorithms = frozenset(algorithms)
        self._seconds = seconds
        self._monotonic = monotonic
        self._request = HTTPRequest(
            url,
            headers={"Accept": "application/jwk-set+json, application/json"},
            connect_timeout=CONNECT_SECONDS,
            request_timeout=ANSWER_SECONDS,
            follow_redirects=False,  # it could lead out of HTTPS, or to where only this server can go
            decompress_response=False,
            ssl_options=ssl_context or ssl.create_default_context(),
        )
        self._text: bytes | None = None  # of the last good set; None before the first
        self._failures = 0  # since the last good set
        self._ended_at = -math.inf  # when the last fetch ended
        self._wanted = asyncio.Event()  # a client asks for a fetch
        self._fetch: asyncio.Future[None] | None = None  # done when a fetch ends; None while none runs or is about to

    async def ask(self) -> None:
        """Have the keys fetched, unless they just were, and wait some seconds for them. The ring is then as good as it gets.

        Any number may ask at once. Cancelling one changes nothing for the others.

        Raises:
            NotReady: If no keys could be fetched ever since the start.
        """
        if self._fetch is None and self._monotonic() - self._ended_at >= ASK_SECONDS:
            self._announce()
            self._wanted.set()
        if self._fetch is not None:
            await asyncio.wait([self._fetch], timeout=WAIT_SECONDS)
        if self._text is None:
            raise NotReady("the keys that tokens are checked with could not be fetched yet", retry_after=math.ceil(ASK_SECONDS))

    async def run(self) -> None:
        """Fetch the keys now, whenever they get old, and when a client asks.

        Cancelling ends it, and whoever waits for keys is told to come back. A fetch under way comes to nothing, within its time limit.
        """
        client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_SET_BYTES)
        try:
            while True:
                self._announce()
                await self._update(client)
                self._end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds(self._failures, self._seconds)):
                        await self._wanted.wait()
        finally:
            self._end()
            client.close()

    def _announce(self) -> None:
        if self._fetch is None:
            self._fetch = asyncio.get_running_loop().create_future()

    def _end(self) -> None:
        self._ended_at = self._monotonic()
        self._wanted.clear()
        if self._fetch is not None:
            self._fetch.set_result(None)
            self._fetch = None

    async def _update(self, client: SimpleAsyncHTTPClient) -> None:
        """Fetch once. Whatever the network or the issuer does, the server lives on with the keys it has."""
        try:
            text = (await _answer(client.fetch(self._request))).body
            if text != self._text:
                self._keep(text)
        except Exception as error:  # of any kind: with some answers, Tornado raises what it documents nowhere
            self._failures += 1
            if self._failures == 1:
                kept = "those of before are used meanwhile" if self._text is not None else "tokens that need them are answered 503"
                logger.warning("cannot fetch the keys at %s: %s; %s", self._request.url, _reason(error), kept)
            return
        if self._failures:
            logger.info("fetched the keys at %s, after %d failures", self._request.url, self._failures)
        self._failures = 0

    def _keep(self, text: bytes) -> None:
        keys = published_keys(text, self._algorithms)
        self._text = text
        if self._ring.publish(keys):
            names = [key.name for key in keys]
            logger.info("tokens are checked with %d published keys", len(keys), extra={"fields": {"kids": names}})


async def _answer(fetch: asyncio.Future[HTTPResponse]) -> HTTPResponse:
    """Wait for an answer. When this is cancelled the fetch is not, since Tornado reports one that fails after that as a defect."""
    fetch.add_done_callback(lambda done: done.cancelled() or done.exception())  # so that asyncio knows that somebody looked
    return await asyncio.shield(fetch)


def pause_seconds(failures: int, seconds: float) -> float:
    """Return how long to wait before the next fetch: longer after each failure, but never longer than after a success."""
    if failures == 0:
        return seconds
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 30), LONGEST_RETRY_SECONDS, seconds)


def _reason(error: Exception) -> str:
    match error:
        case HTTPStreamClosedError():  # Tornado's word for an answer over its limit as well
            return f"the connection was closed without an answer in HTTP of at most {MAX_SET_BYTES} bytes"
        case HTTPError() if error.code != 599:  # Tornado's number for no answer at all
            return f"it was answered with status {error.code}"
        case UnusableSetError():
            return f"what is there cannot be used: {error}"
    return str(error) or type(error).__name__
