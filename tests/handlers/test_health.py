"""Tests of handlers/health.py: alive whatever happens, ready only while events can be appended."""

from __future__ import annotations

import pytest

from tests.handlers.assembly import Assembly
from tests.handlers.clients import get, request
from tests.handlers.conftest import Assemble, StoppableMongoDB
from tests.waiting import wait_until


async def test_the_process_says_that_it_lives(here: Assembly) -> None:
    """`/healthz` answers 200 without a credential (O2)."""
    response = await get(here.port, "/healthz")
    assert (response.status, response.json()) == (200, {"status": "ok"})


async def test_the_process_says_that_it_is_ready(here: Assembly) -> None:
    """`/readyz` answers 200 when the log can be appended to (O2)."""
    response = await get(here.port, "/readyz")
    assert (response.status, response.json()) == (200, {"status": "ready"})


async def test_it_lives_but_is_not_ready_while_mongodb_hangs(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """With MongoDB away `/readyz` answers 503 with `Retry-After`, and `/healthz` still 200; afterwards both answer 200."""
    expected_logs.append("tail interrupted")
    here = await assemble(stoppable_mongodb.uri)
    await stoppable_mongodb.hang()
    response = await get(here.port, "/readyz")
    assert response.error() == (503, "unavailable", None)
    assert int(response.headers["retry-after"]) > 0
    assert (await get(here.port, "/healthz")).status == 200
    stoppable_mongodb.go_on()

    async def is_ready() -> bool:
        return (await get(here.port, "/readyz")).status == 200

    await wait_until(is_ready, "it is ready again")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_with_head_are_refused_with_what_is_allowed(here: Assembly, path: str) -> None:
    """HEAD is no method here: 405, and `Allow` names those that are (RFC 9110, 15.5.6)."""
    response = await request(here.port, "HEAD", path)
    assert (response.status, response.headers["allow"]) == (405, "GET, OPTIONS")
