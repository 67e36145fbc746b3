"""Every command of docs/how-to/payments.md works as it is printed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.programs import needs_curl
from tests.server_process import ROOT, ServerProcess
from tests.waiting import PATIENCE_SECONDS, wait_until

GUIDE = ROOT / "docs" / "how-to" / "payments.md"

# It knows the two options that the guide uses, and does with them what websocat does.
WEBSOCAT = f"""#!{sys.executable}
import asyncio, sys
import websockets

async def main():
    assert sys.argv[1] == "-n" and sys.argv[2].startswith("-H="), sys.argv
    name, _, value = sys.argv[2][3:].partition(": ")
    async with websockets.connect(sys.argv[3], additional_headers={{name: value}}) as socket:
        for line in sys.stdin:
            await socket.send(line)
        async for message in socket:
            print(message, flush=True)

asyncio.run(main())
"""


def commands() -> list[str]:
    """Return the blocks of commands, in order."""
    return re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)


class Terminal:
    """Runs blocks of commands as somebody does who has opened a terminal in the directory of Tailcast.

    Args:
        directory: Where the server keeps its data, and a stand-in for websocat lies.
        port: The server's.
        first: The block that sets the variables.
    """

    def __init__(self, directory: Path, port: int, first: str) -> None:
        self._directory = directory
        self._port = port
        self._first = first
        self._environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}

    async def start(self, block: str) -> asyncio.subprocess.Process:
        """Start a block of commands."""
        text = f"{self._first}\n{block}".replace("127.0.0.1:8080", f"127.0.0.1:{self._port}").replace("data/", f"{self._directory}/")
        return await asyncio.create_subprocess_exec(
            "bash", "-c", text, cwd=ROOT, env=self._environment, stdout=-1, stderr=-3, start_new_session=True
        )

    async def run(self, block: str) -> list[dict[str, object]]:
        """Run a block to its end, and return what it printed: JSON, one answer after the other."""
        process = await self.start(block)
        async with asyncio.timeout(PATIENCE_SECONDS):
            output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        decoder, answers = json.JSONDecoder(), []
        while output:
            answer, end = decoder.raw_decode(output)
            answers.append(answer)
            output = output[end:].lstrip()
        return answers

    @asynccontextmanager
    async def running(self, block: str, until: str) -> AsyncIterator[Output]:
        """Run a block that does not end by itself, from when it has printed this."""
        process = await self.start(block)
        output = Output(process)
        try:
            await output.has(until)
            yield output
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await output.reading


class Output:
    """What a process prints, as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.text = ""
        self.reading = asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while piece := await process.stdout.read(65536):
            self.text += piece.decode()

    async def has(self, *parts: str) -> None:
        """Wait until it has printed all of these."""
        await wait_until(lambda: all(part in self.text for part in parts), f"{parts} are printed")


@needs_curl
async def test_the_guides_commands_work_as_printed(tmp_path: Path) -> None:
    """In the order in which they stand there, with curl, and with what speaks like websocat (A5)."""
    websocat = tmp_path / "websocat"
    websocat.write_text(WEBSOCAT)
    websocat.chmod(websocat.stat().st_mode | stat.S_IXUSR)
    first, listen, make, top_up, change, stats, status, socket, tell, foreign = commands()
    printed = re.findall(r"```text\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    arguments = ("--demo", f"--data_dir={tmp_path}", "--drain_seconds=1", f"--append_seconds={PATIENCE_SECONDS}")
    async with ServerProcess(*arguments, environment={}) as server, AsyncExitStack() as stack:
        terminal = Terminal(tmp_path, await server.port(), first)
        listening = await stack.enter_async_context(terminal.running(listen, "event: welcome"))
        (made,) = await terminal.run(make)
        assert made["duplicate"] is False
        await listening.has(*printed[0].splitlines())
        assert [answer["duplicate"] for answer in await terminal.run(top_up + top_up)] == [False, True]
        withdrawn, shown, cancelled = await terminal.run(change)
        assert shown["stream"] == withdrawn["stream"]
        assert cancelled["stream"] == {**withdrawn["stream"], "status": "cancelled"}  # type: ignore[dict-item]  # it is an object
        await listening.has("event: stream.topped_up", "event: stream.withdrawn", "event: stream.cancelled")
        (counted,) = await terminal.run(stats)
        assert counted["connections"] == 1
        page = await stack.enter_async_context(terminal.running(status, "event: welcome"))
        other = await stack.enter_async_context(terminal.running(socket, '"subscribed"'))
        (told,) = await terminal.run(tell)
        assert len(told["events"]) == 2  # type: ignore[arg-type]  # it is a list
        for output in (page, other):
            await output.has("stream:updated", "settle:finished")
        (refused,) = await terminal.run(foreign)
        assert refused["statusCode"] == 403
