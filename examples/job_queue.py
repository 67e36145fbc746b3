"""Feeding in from a job queue: a worker settles payment streams, and says so with `settle:finished`.

    python3 examples/job_queue.py --add 10      # queue ten settlements of the payment stream 42
    python3 examples/job_queue.py               # work on what is queued; --once: until nothing is left

The queue is a table of SQLite. A job goes through three states: queued, settled (its outcome is kept), told (its event is in the log). A
worker that dies finds the job again where it stood: it does not settle twice, and publishes once more under the same id, `job-<number>`,
which Tailcast knows. Run one worker for each queue: its events are in the order of the jobs then.
"""

from __future__ import annotations

import sqlite3
import time

from publishing import Tailcast, command_line, tailcast

TABLE = "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, stream TEXT, amount TEXT, settlement TEXT, told INTEGER DEFAULT 0)"
POLL_SECONDS = 0.5


def open_queue(path: str) -> sqlite3.Connection:
    """Return the queue in a file, made if it is not there."""
    queue = sqlite3.connect(path, isolation_level=None)  # every statement is a transaction of its own
    queue.execute(TABLE)
    return queue


def add(queue: sqlite3.Connection, stream: str, count: int) -> None:
    """Queue settlements, each of another amount."""
    queue.executemany("INSERT INTO jobs (stream, amount) VALUES (?, ?)", [(stream, f"{n}.25") for n in range(1, count + 1)])


def work(queue: sqlite3.Connection, server: Tailcast) -> bool:
    """Do the next job, or what is left to do of it; False if there is none."""
    job = queue.execute("SELECT id, stream, amount, settlement FROM jobs WHERE NOT told ORDER BY id LIMIT 1").fetchone()
    if job is None:
        return False
    id, stream, amount, settlement = job
    if settlement is None:
        settlement = settle(id)
        queue.execute("UPDATE jobs SET settlement = ? WHERE id = ?", (settlement, id))
    data = {"streamId": stream, "settlementId": settlement, "status": "succeeded", "amount": amount}
    audience = [f"resource:stream/{stream}"]
    server.publish([{"topic": "payments.settlements", "type": "settle:finished", "audience": audience, "id": f"job-{id}", "data": data}])
    queue.execute("UPDATE jobs SET told = 1 WHERE id = ?", (id,))
    return True


def settle(id: int) -> str:
    """Move the money, and return what that is called: here would be your payment provider, asked with the job's id as its own key."""
    return f"settlement-{id}"


def main() -> None:
    """Queue jobs, or work on them."""
    parser = command_line(__doc__)
    parser.add_argument("--queue", default="jobs.sqlite", help="file of the queue")
    parser.add_argument("--stream", default="42", help="id of the payment stream to queue settlements of")
    parser.add_argument("--add", type=int, default=0, metavar="N", help="queue so many settlements, and end")
    arguments = parser.parse_args()
    queue = open_queue(arguments.queue)
    if arguments.add:
        add(queue, arguments.stream, arguments.add)
        return
    server = tailcast(arguments)
    while True:
        if not work(queue, server):
            if arguments.once:
                return
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
