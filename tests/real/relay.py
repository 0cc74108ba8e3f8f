# -*- test-case-name: tests.real.test_relay -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A TCP or UNIX relay that injects faults, to be placed between the proxy and a server, or between a client and the
proxy::

    relay = Relay(memcached.address).start()
    self.addCleanup(relay.stop)
    proxy = Proxy(upstream=[relay.address]).start()
    ...
    relay.set(cut(after=40, times=1))

The relay runs in a thread with an event loop of its own, so tests may block. A fault can be set, changed and removed at
any time, and applies to existing connections as well as new ones. The position of a fault (C{after}) is a number of
bytes of replies, counted on each connection from the time when the fault was set.
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

#: The relay stops reading from a peer when this many of its bytes are buffered.
HOLD = 1 << 18

TIMEOUT = 10.0


@dataclass(frozen=True)
class Fault:
    """
    A fault to inject. The functions and constants below create the valid ones.

    @ivar kind: the name of the function or constant.
    @ivar after: the number of bytes of replies that pass before the fault.
    @ivar seconds: the duration of a delay or pause.
    @ivar data: the bytes to insert.
    @ivar count: the number of bytes to repeat, or to forward at once.
    @ivar change: takes each piece of replies, and returns the bytes to send in its place.
    @ivar times: the number of connections that the fault affects, after which it has no effect any more; 0 for all.
    """

    kind: str
    after: int = 0
    seconds: float = 0.0
    data: bytes = b""
    count: int = 0
    change: Callable[[bytes], bytes] | None = None
    times: int = 0


#: No fault: forward all bytes unchanged.
PASS = Fault("pass")

#: Stop listening, so that new connections are refused. Existing ones are not affected.
REFUSE = Fault("refuse")

#: Read and discard requests and replies.
BLACKHOLE = Fault("blackhole")

#: Read and send nothing until another fault is set; then continue without loss. New connections are accepted, and are
#: not served either.
FREEZE = Fault("freeze")


def delay(seconds: float) -> Fault:
    """
    Delay requests and replies, each by so many seconds.
    """
    return Fault("delay", seconds=seconds)


def trickle(seconds: float = 0.0, size: int = 1) -> Fault:
    """
    Forward the requests and replies of each connection in pieces of C{size} bytes, with a pause after each.
    """
    return Fault("trickle", seconds=seconds, count=size)


def cut(after: int = 0, times: int = 0) -> Fault:
    """
    Close both sides in order (FIN) after so many bytes of replies; immediately if C{after} is 0.
    """
    return Fault("cut", after=after, times=times)


def reset(after: int = 0, times: int = 0) -> Fault:
    """
    Reset both sides (RST) after so many bytes of replies; immediately if C{after} is 0.
    """
    return Fault("reset", after=after, times=times)


def duplicate(count: int, after: int = 0, times: int = 0) -> Fault:
    """
    Send C{count} bytes of replies twice. This happens once on each connection.
    """
    return Fault("duplicate", after=after, count=count, times=times)


def inject(data: bytes, after: int = 0, times: int = 0) -> Fault:
    """
    Insert bytes into the replies. This happens once on each connection. If C{after} is 0 the bytes are sent
    immediately, even if the server sends nothing.
    """
    return Fault("inject", after=after, data=data, times=times)


def edit(change: Callable[[bytes], bytes]) -> Fault:
    """
    Replace each piece of replies by the result of C{change}.
    """
    return Fault("edit", change=change)


class Relay:
    """
    Listens on an address, and connects to one server for each connection that it accepts. The constructor opens no
    socket.

    @ivar upstream: the address of the server.
    @ivar address: the address that the relay listens on, known after L{start}.
    @ivar connections: the number of open connections.
    @ivar most: the maximum of C{connections} so far.
    @ivar accepted: the number of connections accepted so far.
    @ivar faults: how many connections were affected by faults so far; for L{edit}, how many pieces.
    """

    def __init__(self, upstream: Address, address: Address | None = None) -> None:
        """
        @param upstream: the address of the server.
        @param address: the address to listen on; a free port of 127.0.0.1 by default. A string is the path of a UNIX
            socket.
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
        The number of bytes of requests and replies that were read but not yet forwarded.
        """
        return sum(link.replies.held + link.requests.held for link in list(self._links))

    @property
    def endpoint(self) -> str:
        """
        The client endpoint string of the relay.
        """
        return clientEndpoint(self.address)

    @property
    def fault(self) -> Fault:
        """
        The current fault.
        """
        return self._fault

    def start(self) -> Self:
        """
        Start the thread, and listen.
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
        Reset all connections, stop listening, and wait for the end of the thread.
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
        Change the fault. It is in effect when this returns.
        """
        self._run(self._set(fault))

    def drop(self) -> None:
        """
        Reset all connections, whatever the current fault is.
        """
        self._run(self._drop())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            work.close()
            raise ServerFailed("the relay does not run")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    # All code below runs in the relay's thread.

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
        # Not asyncio's server: when it is closed it may lose a connection that it has just accepted.
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        self._listener = listener

    async def _end(self) -> None:
        self._unlisten()
        await self._drop()
        # asyncio calls connection_lost in a later iteration of the loop.
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
            # The client has closed the connection already.
            return
        link = _Link(self, connection)
        self._links.add(link)
        self.accepted += 1
        self.connections += 1
        self.most = max(self.most, self.connections)

    def meets(self) -> bool:
        """
        Count a connection that is about to be affected by the fault.

        @return: C{False} if the fault has affected enough connections already.
        """
        if self._fault.times and self._spent >= self._fault.times:
            return False
        self._spent += 1
        self.faults += 1
        return True

    def gone(self, link: _Link) -> None:
        """
        Forget a connection of which both sides are closed.
        """
        if link in self._links:
            self._links.remove(link)
            self.connections -= 1


class _Link:
    """
    One connection through the relay: two sockets, and a buffer for each direction between them.

    @ivar over: whether a fault has closed the connection, so that nothing is forwarded any more.
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
        Apply a new fault.
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
        Handle received bytes.
        """
        fault = self.relay.fault
        if self.over or fault.kind == "blackhole":
            return
        if fault.kind == "delay":
            flow.push(data, delay=fault.seconds)
        elif fault.kind == "trickle":
            flow.push(data, step=fault.count, pause=fault.seconds)
        elif flow is self.replies and fault.kind in ("cut", "reset", "duplicate", "inject", "edit"):
            self.spoil(data, fault)
        else:
            flow.push(data)

    def spoil(self, data: bytes, fault: Fault) -> None:
        """
        Forward replies, and inject the fault if its position is in these bytes.
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
        Close both sides in order. The client's side is closed only after the client has closed its own, because closing
        a socket with unread bytes is a reset.
        """
        self.over = True
        self.replies.finish()
        self.server.close()

    def reset(self) -> None:
        """
        Reset both sides.
        """
        self._stop()
        self.client.reset()
        self.server.reset()
        self._settle()

    def _stop(self) -> None:
        self.over = True
        # While the client's transport is being created, the task must go on: the transport is closed when it is there.
        if self.client.transport is not None:
            self._connecting.cancel()

    def ended(self) -> None:
        """
        Close both sides when both directions have sent their end.
        """
        if self.requests.finished and self.replies.finished:
            self.client.close()
            self.server.close()

    def lost(self, end: _End, broken: bool) -> None:
        """
        Handle a closed side.

        @param broken: whether it was closed by an error.
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
    One side of a connection: a socket.

    @ivar incoming: the direction from this side.
    @ivar outgoing: the direction to this side.
    @ivar full: whether the transport's buffer is full.
    @ivar gone: whether the socket is closed.
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
        Resume or pause reading from this side, and send what can be sent to it.
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
        Close in order, after all bytes were sent.
        """
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """
        Reset the connection.
        """
        if self.transport is not None and not self.gone:
            connection = self.transport.get_extra_info("socket")
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


@dataclass
class _Held:
    """
    Bytes to send at a time.

    @ivar due: the time to send them, or the next of them.
    @ivar step: the number of bytes to send at once.
    @ivar pause: seconds after each step.
    """

    due: float
    data: bytes
    step: int
    pause: float


class _Flow:
    """
    One direction of a connection.

    @ivar held: the number of bytes that are not sent yet.
    @ivar finished: whether the end of the stream has been sent.
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
        Send bytes after those that are buffered.

        @param delay: seconds to wait before.
        @param step: send so many bytes at once; 0 for all.
        @param pause: seconds after each step.
        """
        if data:
            now = asyncio.get_running_loop().time()
            self._queue.append(_Held(now + delay, data, step or len(data), pause))
            self.held += len(data)
            self.drain()
            self.source.control()

    def finish(self) -> None:
        """
        Send the end of the stream after the bytes that are buffered.
        """
        self._ending = True
        self.drain()

    def stop(self) -> None:
        """
        Discard the buffered bytes.
        """
        self._queue.clear()
        self.held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drain(self) -> None:
        """
        Send the bytes whose time has come.
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
                # In a later iteration of the loop at least, so that it is another TCP segment.
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
