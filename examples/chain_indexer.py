"""Feeding in from a chain: an indexer reads blocks, and publishes what happens to payment streams there.

    python3 examples/chain_indexer.py --mine 20      # a small simulated chain in chain.json: twenty blocks more
    python3 examples/chain_indexer.py --reorganise 3 # its last three blocks are replaced by others, with the same transactions
    python3 examples/chain_indexer.py                # index it; --once: until the head is reached

A chain may take back its last blocks. Two things keep that from showing. Only blocks that have `--confirmations` others on top are read.
And an event's id is the transaction's hash and the number of the log in it, and not the block's: a transaction that is mined again
elsewhere is the same event. The indexer keeps how far it has read after what it read is in the log, together with that block's hash; when
that block is not in the chain any more it goes back to the last one that is, and reads on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from publishing import Tailcast, command_line, tailcast

POLL_SECONDS = 0.5
REMEMBERED_BLOCKS = 100  # so far a chain may be reorganised; beyond it, read it from its beginning


class Chain:
    """A simulated chain in a file. Of a real one this would be the calls to a node: a block by its number, and the head.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.blocks: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def mine(self, count: int, stream: str) -> None:
        """Add blocks with one transaction each, which tops a payment stream up."""
        for _ in range(count):
            number = len(self.blocks)
            amount = f"{number + 1}000000000000000001"
            log = {"event": "ToppedUp", "stream": stream, "amount": amount}
            self._append([{"hash": _hash("transaction", number), "logs": [log]}], fork=0)
        self._save()

    def reorganise(self, count: int) -> None:
        """Replace the last blocks by others, with the same transactions."""
        taken = self.blocks[-count:]
        del self.blocks[-count:]
        for block in taken:
            self._append(block["transactions"], fork=block["fork"] + 1)
        self._save()

    def _append(self, transactions: list[dict[str, Any]], fork: int) -> None:
        number, parent = len(self.blocks), self.blocks[-1]["hash"] if self.blocks else ""
        hash = _hash("block", number, fork, parent)
        self.blocks.append({"number": number, "hash": hash, "parent": parent, "fork": fork, "transactions": transactions})

    def _save(self) -> None:
        _write(self._path, self.blocks)


class Indexer:
    """Reads a chain from where it stopped.

    Args:
        cursor: File that says how far it has read: the hashes of the last blocks, with their numbers.
        server: Where to publish.
        confirmations: How many blocks a block must have on top of it.
    """

    def __init__(self, cursor: Path, server: Tailcast, confirmations: int) -> None:
        self._cursor = cursor
        self._server = server
        self._confirmations = confirmations
        self._read: list[tuple[int, str]] = [tuple(one) for one in json.loads(cursor.read_text())] if cursor.exists() else []

    def step(self, chain: Chain) -> bool:
        """Read the next block; False if there is none that is confirmed."""
        while self._read and not self._is_in(chain, *self._read[-1]):
            self._read.pop()  # taken back
        number = self._read[-1][0] + 1 if self._read else 0
        if number + self._confirmations >= len(chain.blocks):
            return False
        block = chain.blocks[number]
        events = [event_of(transaction, index) for transaction in block["transactions"] for index in range(len(transaction["logs"]))]
        if events:
            self._server.publish(events)
        self._read = [*self._read, (number, block["hash"])][-REMEMBERED_BLOCKS:]
        _write(self._cursor, self._read)
        return True

    def _is_in(self, chain: Chain, number: int, hash: str) -> bool:
        return number < len(chain.blocks) and chain.blocks[number]["hash"] == hash


def event_of(transaction: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the event of one log of a transaction."""
    log = transaction["logs"][index]
    return {
        "topic": "payments.streams",
        "type": "stream.topped_up",
        "audience": [f"resource:stream/{log['stream']}"],
        "source": "chain",
        "id": f"{transaction['hash']}/{index}",
        "data": {"streamId": log["stream"], "amount": log["amount"]},
    }


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _write(path: Path, value: object) -> None:
    """Replace a file in one step: whoever dies leaves the old one or the new one."""
    other = path.with_suffix(".new")
    other.write_text(json.dumps(value))
    os.replace(other, path)


def main() -> None:
    """Change the simulated chain, or index it."""
    parser = command_line(__doc__)
    parser.add_argument("--chain", type=Path, default=Path("chain.json"), help="file of the simulated chain")
    parser.add_argument("--cursor", type=Path, default=Path("cursor.json"), help="file that says how far it was read")
    parser.add_argument("--confirmations", type=int, default=2, help="blocks that must be on top of one before it is read")
    parser.add_argument("--stream", default="42", help="id of the payment stream that is topped up")
    parser.add_argument("--mine", type=int, default=0, metavar="N", help="add so many blocks, and end")
    parser.add_argument("--reorganise", type=int, default=0, metavar="N", help="replace so many blocks, and end")
    arguments = parser.parse_args()
    chain = Chain(arguments.chain)
    if arguments.mine:
        chain.mine(arguments.mine, arguments.stream)
    if arguments.reorganise:
        chain.reorganise(arguments.reorganise)
    if arguments.mine or arguments.reorganise:
        return
    indexer = Indexer(arguments.cursor, tailcast(arguments), arguments.confirmations)
    while True:
        if not indexer.step(Chain(arguments.chain)):
            if arguments.once:
                return
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
