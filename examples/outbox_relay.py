"""Feeding in from a transactional outbox: what a backend changes in its database, and the event of it, happen both or neither.

    python3 examples/outbox_relay.py --top-up 10     # ten changes, each with its event in the same transaction
    python3 examples/outbox_relay.py                 # send on what waits; --once: until nothing is left

The backend writes into its own table and into `outbox` in one transaction. This relay sends the rows on in their order, with the row's
number as the event's id, and deletes what is acknowledged. If it dies in between it sends the same ids again, and Tailcast knows them. The
numbers must never come again: that is what AUTOINCREMENT is for.
"""

from __future__ import annotations

import json
import sqlite3
import time
from decimal import Decimal

from publishing import Tailcast, command_line, tailcast

TABLES = """
CREATE TABLE IF NOT EXISTS streams (id TEXT PRIMARY KEY, deposited TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL);
"""
ROWS = 100  # in one request
POLL_SECONDS = 0.5


def open_database(path: str) -> sqlite3.Connection:
    """Return the backend's database, made if it is not there."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(TABLES)
    return database


def top_up(database: sqlite3.Connection, stream: str, amount: Decimal) -> None:
    """Put more into a payment stream: the change and its event are one transaction."""
    database.execute("BEGIN IMMEDIATE")
    (deposited,) = database.execute("SELECT deposited FROM streams WHERE id = ?", (stream,)).fetchone() or ("0",)
    total = Decimal(deposited) + amount
    data = {"streamId": stream, "amount": str(amount), "depositedAmount": str(total)}
    event = {"topic": "payments.streams", "type": "stream.topped_up", "audience": [f"resource:stream/{stream}"], "data": data}
    database.execute("INSERT OR REPLACE INTO streams VALUES (?, ?)", (stream, str(total)))
    database.execute("INSERT INTO outbox (event) VALUES (?)", (json.dumps(event),))
    database.execute("COMMIT")


def relay(database: sqlite3.Connection, server: Tailcast) -> bool:
    """Send the oldest rows on, and forget them; False if there is none."""
    rows = database.execute("SELECT id, event FROM outbox ORDER BY id LIMIT ?", (ROWS,)).fetchall()
    if not rows:
        return False
    server.publish([{**json.loads(event), "id": f"outbox-{id}"} for id, event in rows])
    database.execute("DELETE FROM outbox WHERE id <= ?", (rows[-1][0],))
    return True


def main() -> None:
    """Change something, or send on what was changed."""
    parser = command_line(__doc__)
    parser.add_argument("--database", default="backend.sqlite", help="file of the backend's database")
    parser.add_argument("--stream", default="42", help="id of the payment stream to top up")
    parser.add_argument("--top-up", type=int, default=0, metavar="N", help="top it up so many times, and end")
    arguments = parser.parse_args()
    database = open_database(arguments.database)
    for _ in range(arguments.top_up):
        top_up(database, arguments.stream, Decimal("0.01"))
    if arguments.top_up:
        return
    server = tailcast(arguments)
    while True:
        if not relay(database, server):
            if arguments.once:
                return
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
