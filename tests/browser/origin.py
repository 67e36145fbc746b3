"""A small web server that pages come from: an origin of its own, which is not Tailcast's."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

EMPTY_PAGE = "<!doctype html><title>A page</title>"


class _File(RequestHandler):
    def initialize(self, files: Mapping[str, str]) -> None:
        self._files = files

    def get(self) -> None:
        if self.request.path not in self._files:
            raise HTTPError(404)
        self.set_header("Content-Type", mimetypes.guess_type(self.request.path)[0] or "text/html")
        self.finish(self._files[self.request.path])


class Origin:
    """Serves texts on any free port.

    Args:
        files: Text by path, as in `/module.js`; may grow while it is served. An empty page is at `/` and an empty icon at
            `/favicon.ico`, which browsers ask for by themselves.
    """

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self.files = {"/": EMPTY_PAGE, "/favicon.ico": "", **(files or {})}
        self.url = ""  # as in http://127.0.0.1:40123, once it is started
        self._http = HTTPServer(Application([(".*", _File, {"files": self.files})], log_function=lambda _: None))

    async def start(self) -> None:
        """Serve, on the loop that runs."""
        sockets = bind_sockets(0, "127.0.0.1")
        self._http.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """End it, with the connections that browsers keep."""
        self._http.stop()
        await self._http.close_all_connections()
