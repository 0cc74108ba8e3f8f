# -*- test-case-name: tests.real.test_relay -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A relay that spoils what passes through it, to stand between the proxy and a server, or between a client and the proxy::

    relay = Relay(memcached.address).start()
    self.addCleanup(relay.stop)
    proxy = Proxy(upstream=[relay.address]).start()
    ...
    relay.set(cut(after=40, times=1))

It runs in a thread with a loop of its own, so tests may block meanwhile, and a fault can be set, changed and taken back
at any time: connections that exist are subject to it as new ones are. Positions (C{after}) are counted on each
connection in bytes of replies, from the moment when the fault was set.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from tests.real.servers import HOST, Address, ServerFailed, clientEndpoint, freePort

_T = TypeVar("_T")

#: Bytes held back in one direction of one connection above which the sender is not read from.
HOLD = 1 << 18

TIMEOUT = 10.0


@dataclass(frozen=True)
class Fault:
    """
    What the relay does. Made by the functions below.

    @ivar kind: the name of one of these functions.
    @ivar after: bytes of replies that pass first.
    @ivar seconds: of delay.
    @ivar data: bytes to put in.
    @ivar count: bytes to repeat.
    @ivar change: what to make of each piece of replies.
    @ivar times: connections that suffer before all is well again; 0 for all.
    """

    kind: str
    after: int = 0
    seconds: float = 0.0
    data: bytes = b""
    count: int = 0
    change: Callable[[bytes], bytes] | None = None
    times: int = 0


#: Everything goes through as it comes.
PASS = Fault("pass")

#: Nothing listens any more: new connections are refused. Those that exist go on.
REFUSE = Fault("refuse")

#: Requests are accepted and thrown away, nothing is ever answered.
BLACKHOLE = Fault("blackhole")

#: Nothing is read and nothing is sent until another fault is set; then all goes on where it stopped. New connections
#: are accepted, and wait too.
FREEZE = Fault("freeze")


def delay(seconds: float) -> Fault:
    """
    Requests and replies are each held up for so long.
    """
    return Fault("delay", seconds=seconds)


def trickle(seconds: float = 0.0) -> Fault:
    """
    Requests and replies come byte by byte, with a pause after each.
    """
    return Fault("trickle", seconds=seconds)


def cut(after: int = 0, times: int = 0) -> Fault:
    """
    Both sides are closed in an orderly way (FIN) after so many bytes of replies; at once when that is 0.
    """
    return Fault("cut", after=after, times=times)


def reset(after: int = 0, times: int = 0) -> Fault:
    """
    Both sides are closed by force (RST) after so many bytes of replies; at once when that is 0.
    """
    return Fault("reset", after=after, times=times)


def duplicate(count: int, after: int = 0, times: int = 0) -> Fault:
    """
    C{count} bytes of replies come twice, once on each connection.
    """
    return Fault("duplicate", after=after, count=count, times=times)


def inject(data: bytes, after: int = 0, times: int = 0) -> Fault:
    """
    Bytes which the server did not send come between its own, once on each connection; before any of them when
    C{after} is 0, and then at once, whether the server says something or not.
    """
    return Fault("inject", after=after, data=data, times=times)


def edit(change: Callable[[bytes], bytes]) -> Fault:
    """
    Each piece of replies is replaced by what C{change} makes of it.
    """
    return Fault("edit", change=change)


class Relay:
    """
    Listens on a free port of 127.0.0.1, and connects to one server for each connection that comes. Constructing does
    nothing.

    @ivar address: where it listens, from the start on.
    @ivar connections: how many there are now.
    @ivar most: how many there were at most at the same time.
    @ivar accepted: how many there were in all.
    @ivar faults: how many connections a fault has met; for L{edit}, how many pieces.
    """

    def __init__(self, upstream: Address, address: Address | None = None) -> None:
        """
        @param upstream: the server.
        @param address: where to listen instead, a path for a UNIX socket.
        """
        self.upstream = upstream
        self.address: Address = address if address is not None else (HOST, 0)
        self.connections = self.most = self.accepted = self.faults = 0
        self._fault = PASS
        self._spent = 0
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def held(self) -> int:
        """
        The bytes of requests and replies that have been read and not been passed on yet.
        """
        return sum(link.replies.held + link.requests.held for link in list(self._links))

    @property
    def endpoint(self) -> str:
        """
        The endpoint string with which a client reaches the relay.
        """
        return clientEndpoint(self.address)

    @property
    def fault(self) -> Fault:
        """
        What it does now.
        """
        return self._fault

    def start(self) -> Self:
        """
        Listen.
        """
        if self.address == (HOST, 0):
            self.address = (HOST, freePort())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        try:
            self._run(self._listen())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """
        Close everything, by force, and wait until all is gone.
        """
        if self._loop is None or self._thread is None:
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()
        self._loop = self._thread = None

    def set(self, fault: Fault) -> None:
        """
        Do something else from now on. When this returns it is so.
        """
        self._run(self._set(fault))

    def drop(self) -> None:
        """
        Close all connections by force, whatever else is set.
        """
        self._run(self._drop())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            work.close()
            raise ServerFailed("the relay does not run")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    # Everything below runs in the relay's own thread.

    async def _listen(self) -> None:
        if isinstance(self.address, str):
            listener = socket.socket(socket.AF_UNIX)
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.setblocking(False)
            listener.bind(self.address)
            listener.listen(1024)
        except BaseException:
            listener.close()
            raise
        # Not asyncio's own server: when that is closed it may lose a connection which it has accepted just then.
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        self._listener = listener

    async def _end(self) -> None:
        self._unlisten()
        await self._drop()
        # Closed transports tell their protocols in the next turns of the loop.
        while self._links:
            await asyncio.sleep(0)

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        self._spent = 0
        if fault.kind == "refuse":
            self._unlisten()
        elif self._listener is None:
            await self._listen()
        for link in list(self._links):
            link.set(fault)

    async def _drop(self) -> None:
        for link in list(self._links):
            link.reset()

    def _unlisten(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            if isinstance(self.address, str):
                os.unlink(self.address)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            # It is gone again, which is no business of ours.
            return
        link = _Link(self, connection)
        self._links.add(link)
        self.accepted += 1
        self.connections += 1
        self.most = max(self.most, self.connections)

    def meets(self) -> bool:
        """
        A connection is about to suffer from the fault.

        @return: C{False} when enough others have.
        """
        if self._fault.times and self._spent >= self._fault.times:
            return False
        self._spent += 1
        self.faults += 1
        return True

    def gone(self, link: _Link) -> None:
        """
        Both ends of a connection are closed.
        """
        if link in self._links:
            self._links.remove(link)
            self.connections -= 1


class _Link:
    """
    One connection through the relay: two ends, and two flows between them.

    @ivar over: nothing passes any more, a fault has closed it.
    """

    def __init__(self, relay: Relay, connection: socket.socket) -> None:
        self.relay = relay
        self.client = _End(self)
        self.server = _End(self)
        self.requests = _Flow(self.client, self.server)
        self.replies = _Flow(self.server, self.client)
        self.client.incoming, self.client.outgoing = self.requests, self.replies
        self.server.incoming, self.server.outgoing = self.replies, self.requests
        self.over = False
        self._renew()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(connection))

    def _renew(self) -> None:
        self._passed = 0
        self._region = b""
        self._suffered = False

    def set(self, fault: Fault) -> None:
        """
        Another fault is set.
        """
        self._renew()
        self.client.control()
        self.server.control()
        self._begin(fault)

    async def _connect(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        upstream = self.relay.upstream
        await loop.connect_accepted_socket(lambda: self.client, connection)
        self._begin(self.relay.fault)
        if self.over:
            return
        try:
            if isinstance(upstream, str):
                await loop.create_unix_connection(lambda: self.server, upstream)
            else:
                await loop.create_connection(lambda: self.server, *upstream)
        except OSError:
            self.reset()

    def _begin(self, fault: Fault) -> None:
        if fault.after == 0 and fault.kind in ("cut", "reset", "inject"):
            self.spoil(b"", fault)

    def feed(self, flow: _Flow, data: bytes) -> None:
        """
        Bytes came.
        """
        fault = self.relay.fault
        if self.over or fault.kind == "blackhole":
            return
        if fault.kind == "delay":
            flow.push(data, delay=fault.seconds)
        elif fault.kind == "trickle":
            flow.push(data, step=1, pause=fault.seconds)
        elif flow is self.replies and fault.kind in ("cut", "reset", "duplicate", "inject", "edit"):
            self.spoil(data, fault)
        else:
            flow.push(data)

    def spoil(self, data: bytes, fault: Fault) -> None:
        """
        Send replies on with the fault in them, if its place is among these bytes.
        """
        if fault.change is not None:
            self.relay.faults += 1
            self.replies.push(fault.change(data))
            return
        start = fault.after - self._passed
        end = start + fault.count
        self._passed += len(data)
        self._region += data[max(start, 0) : max(end, 0)]
        if self._suffered or end > len(data):
            self.replies.push(data)
            return
        self._suffered = True
        if not self.relay.meets():
            self.replies.push(data)
            return
        self.replies.push(data[:end])
        if fault.kind == "cut":
            self.cut()
        elif fault.kind == "reset":
            self.reset()
        else:
            self.replies.push(self._region + fault.data)
            self.replies.push(data[end:])

    def cut(self) -> None:
        """
        Close both ends in an orderly way. The client's is closed when it has closed too: closing a socket from which
        something was not read yet is a reset.
        """
        self.over = True
        self.replies.finish()
        self.server.close()

    def reset(self) -> None:
        """
        Close both ends by force.
        """
        self._stop()
        self.client.reset()
        self.server.reset()
        self._settle()

    def _stop(self) -> None:
        self.over = True
        # While the client's own end is being made this has to go on: it is closed as soon as it is there.
        if self.client.transport is not None:
            self._connecting.cancel()

    def ended(self) -> None:
        """
        A flow has delivered its end: when both have, all is done.
        """
        if self.requests.finished and self.replies.finished:
            self.client.close()
            self.server.close()

    def lost(self, end: _End, broken: bool) -> None:
        """
        An end is closed.
        """
        if broken:
            self.reset()
        elif end is self.client:
            self._stop()
            self.server.close()
        self._settle()

    def _settle(self) -> None:
        if self.client.gone and (self.server.gone or self.server.transport is None):
            self.relay.gone(self)


class _End(asyncio.Protocol):
    """
    One socket.

    @ivar incoming: the flow from here.
    @ivar outgoing: the flow to here.
    @ivar full: the system takes no more bytes for now.
    """

    incoming: _Flow
    outgoing: _Flow

    def __init__(self, link: _Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.full = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.link.over:
            self.reset()
            return
        self.control()
        self.outgoing.drain()

    def data_received(self, data: bytes) -> None:
        self.link.feed(self.incoming, data)

    def eof_received(self) -> bool:
        if self.link.over:
            return False
        self.incoming.finish()
        # The other direction stays open.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.outgoing.stop()
        self.link.lost(self, exc is not None)

    def pause_writing(self) -> None:
        self.full = True
        self.outgoing.source.control()

    def resume_writing(self) -> None:
        self.full = False
        self.outgoing.source.control()

    def control(self) -> None:
        """
        Read, or do not read, from here.
        """
        if self.transport is None or self.transport.is_closing():
            return
        flow = self.incoming
        frozen = self.link.relay.fault.kind == "freeze"
        if frozen or flow.held > HOLD or flow.target.full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        if not frozen:
            self.outgoing.drain()

    def close(self) -> None:
        """
        Close when all is sent.
        """
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """
        Close by force.
        """
        if self.transport is not None and not self.gone:
            connection = self.transport.get_extra_info("socket")
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


@dataclass
class _Held:
    """
    Bytes to send at a time, all at once or C{step} by step with a pause after each.
    """

    due: float
    data: bytes
    step: int
    pause: float


class _Flow:
    """
    One direction of a link.

    @ivar held: bytes that are not sent yet.
    @ivar finished: the end has been sent.
    """

    def __init__(self, source: _End, target: _End) -> None:
        self.source = source
        self.target = target
        self.held = 0
        self.finished = False
        self._ending = False
        self._queue: deque[_Held] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def push(self, data: bytes, delay: float = 0.0, step: int = 0, pause: float = 0.0) -> None:
        """
        Send, after everything that is held.
        """
        if data:
            now = asyncio.get_running_loop().time()
            self._queue.append(_Held(now + delay, data, step or len(data), pause))
            self.held += len(data)
            self.drain()
            self.source.control()

    def finish(self) -> None:
        """
        Send the end, after everything that is held.
        """
        self._ending = True
        self.drain()

    def stop(self) -> None:
        """
        Nothing can be sent any more.
        """
        self._queue.clear()
        self.held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drain(self) -> None:
        """
        Send what is due.
        """
        transport = self.target.transport
        loop = asyncio.get_running_loop()
        if transport is None or self.target.gone or self.finished or self.target.link.relay.fault.kind == "freeze":
            return
        while self._queue:
            head = self._queue[0]
            if head.due > loop.time():
                self._at(head.due)
                return
            transport.write(head.data[: head.step])
            self.held -= min(head.step, len(head.data))
            head.data = head.data[head.step :]
            if head.data:
                # In another turn at least, so that it is another segment.
                head.due = loop.time() + max(head.pause, 1e-6)
            else:
                self._queue.popleft()
        if self._ending:
            self.finished = True
            transport.write_eof()
            self.source.link.ended()

    def _at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.drain()
        self.source.control()
