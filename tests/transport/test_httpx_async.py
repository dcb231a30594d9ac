"""The async faces in their loops: cancellation, threads, timers, several loops, trio."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_aibridge.transport import WSGIPoolManager
from tests.transport.apps_faces import Answers, Faucet, silent
from tests.transport.families import LIBRARIES, Family

TEXT = [("Content-Type", "text/plain")]
URL = "https://app.test/x"


@pytest.fixture(params=LIBRARIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param, True)


@pytest.fixture
def faucet() -> Iterator[Faucet]:
    faucet = Faucet()
    yield faucet
    faucet.end()


async def _event(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 20)


@pytest.mark.parametrize("by", ["cancel", "timeout"])
def test_cancelling_a_task_that_waits_for_the_head(family: Family, by: str) -> None:
    """Cancels the exchange."""
    gave_up, started = threading.Event(), threading.Event()
    app = silent(gave_up)

    def noticed(environ: dict[str, Any], start_response: Any) -> Any:
        started.set()
        return app(environ, start_response)

    async def main() -> None:
        async with family.client(WSGIPoolManager(noticed), timeout=None) as client:
            if by == "timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await client.get(URL)
            else:
                task = asyncio.create_task(client.get(URL))
                await _event(started)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await _event(gave_up)

    family.run(main)


def test_cancelling_a_task_that_reads(family: Family, faucet: Faucet) -> None:
    """Cancels the exchange, though the response was not closed."""

    async def main() -> None:
        async with family.client(WSGIPoolManager(faucet), timeout=None) as client:
            opened = await client.stream("GET", URL)
            pieces = opened.iterate("raw")
            assert await anext(pieces) == b"first"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(pieces)
            await _event(faucet.cancelled)
            await opened.close()

    family.run(main)


def test_cancelling_a_task_that_sends(family: Family) -> None:
    """Cancels the exchange, and closes the generator of the body."""
    gave_up, sent = threading.Event(), asyncio.Event()
    closed: list[bool] = []

    async def body() -> Any:
        try:
            for _ in range(3):
                yield b"x" * 70_000
                sent.set()
        finally:
            closed.append(True)

    async def main() -> None:
        async with family.client(WSGIPoolManager(silent(gave_up)), timeout=None) as client:
            task = asyncio.create_task(client.request("POST", URL, content=body()))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await _event(gave_up)

    family.run(main)
    gc.collect()
    assert not sent.is_set()


def test_cancelling_a_task_that_waits_for_a_free_call(family: Family, faucet: Faucet) -> None:
    """Leaves no slot taken."""
    manager = WSGIPoolManager(faucet, max_concurrency=1)

    async def main() -> None:
        async with family.client(manager, timeout=None) as client:
            opened = await client.stream("GET", URL)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await client.get(URL)
            await opened.close()
            await _event(faucet.closed)
            again = await asyncio.wait_for(client.stream("GET", URL), 20)
            await again.close()

    family.run(main)
    assert faucet.calls == 2


def test_no_thread_waits_for_a_body(family: Family) -> None:
    """Fifty open streams: the fifty calls of the app are all the threads there are; the loop is free meanwhile."""
    faucets = [Faucet() for _ in range(50)]
    numbers = iter(range(50))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return faucets[next(numbers)](environ, start_response)

    async def main() -> None:
        before = set(threading.enumerate())
        async with family.client(WSGIPoolManager(app), timeout=None) as client:
            streams = [await client.stream("GET", URL) for _ in range(50)]
            readers = [asyncio.create_task(_all(stream)) for stream in streams]
            for _ in range(100):
                await asyncio.sleep(0)
            new = [thread.name for thread in threading.enumerate() if thread not in before]
            assert len(new) <= 50
            assert all(name.startswith("aibridge-") for name in new)
            for faucet in faucets:
                faucet.send(b" second")
                faucet.end()
            assert await asyncio.gather(*readers) == [b"first second"] * 50

    async def _all(stream: Any) -> bytes:
        return b"".join([piece async for piece in stream.iterate("raw")])

    family.run(main)


def test_the_loop_runs_while_an_app_works(family: Family) -> None:
    """A handler in the same loop can let it finish."""
    gate = threading.Event()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        assert gate.wait(20)
        start_response("200 OK", TEXT)
        return [b"done"]

    async def main() -> None:
        async with family.client(WSGIPoolManager(app)) as client:
            task = asyncio.create_task(client.get(URL))
            await asyncio.sleep(0.02)
            assert not task.done()
            gate.set()
            assert (await task).text == "done"

    family.run(main)


def test_one_transport_serves_one_loop_after_the_other(family: Family) -> None:
    """It is bound to none."""
    transport = family.transport(WSGIPoolManager(Answers()))

    async def main() -> str:
        client = family.library.AsyncClient(transport=transport)
        text: str = (await client.get(URL)).text
        return text

    assert [family.run(main) for _ in range(5)] == ["ok"] * 5


def test_one_transport_serves_several_loops_at_once(family: Family, faucet: Faucet) -> None:
    """Each in a thread of its own."""
    transport = family.transport(WSGIPoolManager(Answers(slow=("200 OK", TEXT, lambda: iter([b"a", b"b"])))))
    texts: list[str] = []

    async def main() -> None:
        client = family.library.AsyncClient(transport=transport)
        texts.extend([(await client.get("http://app.test/slow")).text for _ in range(20)])

    threads = [threading.Thread(target=family.run, args=(main,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == ["ab"] * 80


@pytest.mark.usefixtures("no_leaks")
def test_a_loop_that_closes_over_an_open_response(family: Family, faucet: Faucet) -> None:
    """Leaves nothing behind: the response is given up, and with it the exchange."""

    async def main() -> None:
        client = family.library.AsyncClient(transport=family.transport(WSGIPoolManager(faucet)))
        request = client.build_request("GET", URL)
        response = await client.send(request, stream=True)
        task = asyncio.create_task(anext(response.aiter_raw()))
        assert await task == b"first"

    family.run(main)
    faucet.send(b"into the void")
    gc.collect()
    assert faucet.closed.wait(20)


def test_no_timer_outlives_its_response(family: Family) -> None:
    """A read timeout of ten minutes leaves nothing in the loop for ten minutes."""
    gates = [threading.Event() for _ in range(20)]
    numbers = iter(gates)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        assert next(numbers).wait(20)
        start_response("200 OK", TEXT)
        return [b"ok"]

    async def main() -> list[asyncio.TimerHandle]:
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        call_at = loop.call_at  # by which call_later() goes as well

        def at(*args: Any, **kw: Any) -> asyncio.TimerHandle:
            timers.append(call_at(*args, **kw))
            return timers[-1]

        loop.call_at = at  # type: ignore[method-assign, assignment]
        async with family.client(WSGIPoolManager(app), timeout=600) as client:
            for gate in gates:
                asking = asyncio.create_task(client.get(URL))
                for _ in range(3):
                    await asyncio.sleep(0)
                gate.set()
                await asking
        gc.collect()
        now = loop.time()
        return [timer for timer in timers if not timer.cancelled() and timer.when() > now + 300]

    assert family.run(main) == []


def test_on_trio(family: Family, faucet: Faucet) -> None:
    """Requests, streams, timeouts and cancellation, as on asyncio."""
    trio = pytest.importorskip("trio")
    gave_up = threading.Event()

    async def main() -> None:
        with trio.fail_after(60):
            async with family.library.AsyncClient(
                transport=family.transport(WSGIPoolManager(Answers()))
            ) as client:
                assert (await client.post(URL, content=b"x")).text == "ok"
            async with family.library.AsyncClient(
                transport=family.transport(WSGIPoolManager(faucet))
            ) as client:
                async with client.stream("GET", URL) as response:
                    pieces = response.aiter_raw()
                    assert await anext(pieces) == b"first"
                    faucet.send(b"second")
                    assert await anext(pieces) == b"second"
                    with trio.move_on_after(0.05) as scope:
                        await anext(pieces)
                    assert scope.cancelled_caught
                assert await trio.to_thread.run_sync(faucet.cancelled.wait, 20)
            transport = family.transport(WSGIPoolManager(silent(gave_up)))
            async with family.library.AsyncClient(transport=transport) as client:
                with pytest.raises(family.library.ReadTimeout):
                    await client.get(URL, timeout=family.library.Timeout(20, read=0.05))
            assert await trio.to_thread.run_sync(gave_up.wait, 20)

    trio.run(main)


def test_trio_waits_for_a_free_call(family: Family, faucet: Faucet) -> None:
    """And gets the library's timeout."""
    trio = pytest.importorskip("trio")
    manager = WSGIPoolManager(faucet, max_concurrency=1)

    async def main() -> None:
        with trio.fail_after(60):
            async with family.library.AsyncClient(transport=family.transport(manager)) as client:
                async with client.stream("GET", URL):
                    with pytest.raises(family.library.ConnectTimeout):
                        await client.get(URL, timeout=family.library.Timeout(20, connect=0.05))
                assert await trio.to_thread.run_sync(faucet.closed.wait, 20)
                async with client.stream("GET", URL) as response:
                    assert response.status_code == 200

    trio.run(main)
