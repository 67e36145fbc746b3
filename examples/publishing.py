"""What the examples share: publishing that may be repeated, and their command line. Needs nothing but Python."""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_WAIT_SECONDS = 30.0
AGAIN = (429, 500, 503)  # these pass; whatever else is refused will be refused again


class Tailcast(NamedTuple):
    """A server, and the token of a publisher."""

    url: str
    token: str

    def publish(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Publish events that have an id each, and return their receipts; try until there is an answer.

        Raises:
            RuntimeError: If they are refused, and would be again.
        """
        request = urllib.request.Request(f"{self.url}/v1/events", json.dumps(events).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        wait = 0.1
        while True:
            try:
                with urllib.request.urlopen(request, timeout=15) as answer:
                    receipts: list[dict[str, Any]] = json.load(answer)["events"]
                    return receipts
            except urllib.error.HTTPError as error:
                if error.code not in AGAIN:
                    raise RuntimeError(error.read().decode()) from error
                wait = max(wait, float(error.headers.get("Retry-After", 0)))
            except OSError:
                pass
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every example has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the server")
    parser.add_argument("--token-file", type=Path, default=Path("data/demo-publisher.token"), help="where a publisher's token is")
    parser.add_argument("--once", action="store_true", help="end when there is nothing more to do")
    return parser


def tailcast(arguments: argparse.Namespace) -> Tailcast:
    """Return the server that the arguments name."""
    return Tailcast(arguments.url, arguments.token_file.read_text().strip())
