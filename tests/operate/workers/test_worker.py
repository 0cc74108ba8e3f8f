# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.workers.worker}: a worker without a process of its own.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from dataclasses import asdict, replace
from typing import Any
from unittest.mock import Mock

from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Pipe
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.workers import worker
from txconnpool.operate.workers.inbox import COLLECT

A = PoolSettings(name="a", upstream=("memory:",), listen=("tcp:1",), maxClients=2)
B = replace(A, name="b", listen=("unix:/x",))
SYSTEMD = ("systemd:domain=INET:index=7",)


class Reactor(MemoryReactorClock):
    """
    A reactor that adopts connections.

    @ivar clients: the far ends of these connections.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Pipe] = []
        self.stops = 0

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:
        assert not os.get_blocking(fileDescriptor)
        self.clients.append(Pipe(self).connect(factory.buildProtocol(None)))

    def stop(self) -> None:
        self.stops += 1
        if self.stops > 1:
            raise ReactorNotRunning


class WorkerTests(SynchronousTestCase):
    """
    Tests for L{worker.WorkerProtocol}, with calls of its parent.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.parent, theirs = socket.socketpair()
        self.addCleanup(self.parent.close)
        self.addCleanup(theirs.close)
        self.observed: list[Any] = []
        observer: Any = self.observed.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.receipts, written = os.pipe()
        self.addCleanup(os.close, self.receipts)
        self.addCleanup(os.close, written)
        self.worker = worker.WorkerProtocol(self.reactor, theirs, written, observer)
        self.transport = StringTransport()
        self.worker.makeConnection(self.transport)
        self.calls = 0

    def messages(self) -> list[dict[str, Any]]:
        """
        @return: the messages to the parent since the last call.
        """
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [json.loads(line) for line in lines]

    def call(self, name: str, *args: Any) -> dict[str, Any]:
        """
        Call the worker.

        @return: the answer.
        """
        self.calls += 1
        call = {"call": self.calls, "name": name, "args": args}
        self.worker.dataReceived(json.dumps(call).encode() + b"\n")
        self.turns()
        (answer,) = [each for each in self.messages() if each.get("done") == self.calls]
        return answer

    def turns(self) -> None:
        """
        Run the events that are due.
        """
        for _ in range(10):
            self.reactor.advance(0)

    def start(self, *pools: PoolSettings) -> None:
        """
        Start the worker.
        """
        settings = asdict(Settings(pools=pools))
        # The sockets of systemd are the parent's: they are not looked for here.
        settings["pools"][-1]["listen"] += SYSTEMD
        self.assertEqual(self.call("start", settings), {"done": self.calls, "value": None})

    def send(self, label: str, family: int = socket.AF_UNIX) -> socket.socket:
        """
        Send a client to the worker.

        @return: the client.
        """
        ours, theirs = socket.socketpair(family)
        self.addCleanup(ours.close)
        with theirs:
            socket.send_fds(self.parent, [label.encode()], [theirs.fileno()])
        self.worker.inbox.doRead()
        return ours

    def test_start(self) -> None:
        """
        It serves the clients that it receives, and opens no port.
        """
        self.start(A, B)
        self.assertEqual((self.reactor.tcpServers, self.reactor.unixServers), ([], []))
        self.assertIn(self.worker.inbox, self.reactor.readers)
        for label in ("+a\0tcp:1", "+b\0unix:/x", f"+b\0{SYSTEMD[0]}"):
            self.send(label)
            client = self.reactor.clients[-1]
            client.send(b"get a\r\n")
            self.turns()
            self.assertEqual(client.take(), b"END\r\n")

    def test_receipts(self) -> None:
        """
        For each client that it has received, it writes a byte before it does anything with the client.
        """
        self.start(A)
        order: list[object] = []
        adopt = self.reactor.adoptStreamConnection

        def adopted(*args: Any) -> None:
            order.append(os.read(self.receipts, 100))
            adopt(*args)

        self.patch(self.reactor, "adoptStreamConnection", adopted)
        self.send("+a\0tcp:1")
        self.send("-a\0tcp:1")
        self.assertEqual(order, [b"1", b"1"])

    def test_ping(self) -> None:
        """
        It answers pings, also before it has started.
        """
        self.assertEqual(self.call("ping"), {"done": 1, "value": None})
        self.start(A)
        self.assertEqual(self.call("ping"), {"done": 3, "value": None})

    def test_notStarted(self) -> None:
        """
        When it cannot start, the answer says why.
        """
        pool = {**asdict(A), "upstream": ["nothing"]}
        self.assertIn("nothing", self.call("start", {**asdict(Settings()), "pools": [pool]})["error"])

    def test_unknown(self) -> None:
        """
        An unknown call gets an error.
        """
        self.assertEqual(self.call("dance")["error"], "no call 'dance'")

    def test_tooMany(self) -> None:
        """
        The parent decides whether a client is refused.
        """
        self.start(A)
        self.send("-a\0tcp:1")
        self.send("+a\0tcp:1")
        first, second = self.reactor.clients
        self.assertEqual(first.take(), b"ERROR Too many open connections\r\n")
        self.assertTrue(second.reading)

    def test_closed(self) -> None:
        """
        It counts closed clients, and notifies the parent soon after: sessions that have ended, refused clients, clients
        that had disconnected before, and clients of unknown addresses.
        """
        self.start(A)
        for _ in range(3):
            self.send("+a\0tcp:1")
        self.send("-a\0tcp:1")
        self.send("+z\0tcp:1")
        self.send("+a\0tcp:2")
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            accepted.shutdown(socket.SHUT_RDWR)
            socket.send_fds(self.parent, [b"+a\0tcp:1"], [accepted.fileno()])
            self.worker.inbox.doRead()
        self.reactor.advance(COLLECT)
        self.assertEqual([each["args"] for each in self.messages()], [[{"a": 3, "z": 1}]])
        for client in self.reactor.clients:
            client.lose()
        self.reactor.advance(COLLECT)
        self.assertEqual([each["args"] for each in self.messages()], [[{"a": 5, "z": 1}]])

    def test_noDescriptor(self) -> None:
        """
        A client for which the process has no descriptor is lost, logged, and counted as closed.
        """
        self.start(A)
        self.parent.send(b"+a\0tcp:1")
        self.worker.inbox.doRead()
        self.assertTrue(any("no descriptor" in event["log_format"] for event in self.observed if "log_format" in event))
        self.reactor.advance(COLLECT)
        self.assertEqual([each["args"] for each in self.messages()], [[{"a": 1}]])

    def test_lost(self) -> None:
        """
        A client that disconnects while it is adopted, or for which something fails, does not keep the next from being
        served. Only the failure is logged.
        """
        self.start(A)
        errors: list[Exception] = [OSError(errno.ENOTCONN, "gone"), OSError(errno.EMFILE, "many"), RuntimeError("no")]
        adopt = self.reactor.adoptStreamConnection
        for error in errors:
            self.patch(self.reactor, "adoptStreamConnection", Mock(side_effect=error))
            self.send("+a\0tcp:1")
        self.assertEqual([each.value for each in self.flushLoggedErrors()], errors[1:])
        self.patch(self.reactor, "adoptStreamConnection", adopt)
        self.send("+a\0tcp:1")
        self.assertEqual(len(self.reactor.clients), 1)
        self.reactor.advance(COLLECT)
        self.assertEqual([each["args"] for each in self.messages()], [[{"a": 3}]])

    def test_noMoreClients(self) -> None:
        """
        When the parent closes its end of the socket, the worker stops reading from it.
        """
        self.start(A)
        self.parent.shutdown(socket.SHUT_WR)
        self.worker.inbox.doRead()
        self.assertNotIn(self.worker.inbox, self.reactor.readers)

    def test_apply(self) -> None:
        """
        It puts other settings in force. Clients that were sent before are served with the old ones.
        """
        self.start(A)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        with theirs:
            socket.send_fds(self.parent, [b"+a\0tcp:1"], [theirs.fileno()])
        new = replace(A, poolSize=9, listen=("tcp:2",))
        self.assertEqual(self.call("apply", asdict(Settings(pools=(new,))))["value"], None)
        assert self.worker.service is not None
        self.assertEqual(self.worker.service.settings.pools, (new,))
        (client,) = self.reactor.clients
        client.send(b"get a\r\n")
        self.turns()
        self.assertEqual(client.take(), b"END\r\n")

    def test_perform(self) -> None:
        """
        It performs operations.
        """
        self.start(A)
        self.assertIn("pool a paused", self.call("perform", "pause", "a")["value"])
        self.assertIn("no pool 'z'", self.call("perform", "pause", "z")["error"])
        self.assertEqual([row["state"] for row in self.call("perform", "rows", "pools", 9)["value"]], ["paused"])

    def test_ask(self) -> None:
        """
        It asks the servers for their statistics, for the parent.
        """
        self.start(A)
        answer = self.call("ask", "a", ["settings"])
        ((server, reply),) = answer["value"]
        self.assertEqual(server, "memory:")
        self.assertRegex(reply, r"\ASTAT maxbytes 67108864\r\n(?:.*\r\n)*END\r\n\Z")
        self.assertEqual(self.call("ask", "z", [])["error"], "pool z is being removed")

    def test_asks(self) -> None:
        """
        It has the parent ask the servers, and a client gets what the parent has.
        """
        self.start(A)
        replies = self.worker.service.proxies[0].sessions.replies  # type: ignore[union-attr]
        for answer, expected in (
            ({"value": [[["tcp:x:1", "STAT x \xe9\r\nEND\r\n"]], 0.5]}, b"STAT x \xe9\r\nEND\r\n"),
            ({"error": "oops"}, b"SERVER_ERROR no statistics at the moment: oops\r\n"),
        ):
            reply = replies.reply((b"slabs",))
            self.turns()
            (call,) = self.messages()
            self.assertEqual((call["name"], call["args"]), ("ask", ["a", ["slabs"]]))
            self.worker.dataReceived(json.dumps({"done": call["call"], **answer}).encode() + b"\n")
            self.assertEqual(self.successResultOf(reply), expected)
            self.reactor.advance(1)

    def leave(self) -> Any:
        """
        Begin the shutdown of the reactor.

        @return: the Deferred that the shutdown waits for.
        """
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        ((do, args, kwargs),) = self.reactor.triggers["before"]["shutdown"]
        leaving = do(*args, **kwargs)
        self.assertEqual(handlers, {signal.SIGTERM: signal.SIG_IGN})
        return leaving

    def test_stop(self) -> None:
        """
        A stop is notified to the parent. The clients that were sent until the parent has answered are served; then the
        proxy stops.
        """
        self.start(A)
        self.assertEqual(self.call("stop")["value"], None)
        self.assertEqual(self.reactor.stops, 1)
        leaving = self.leave()
        (call,) = self.messages()
        self.assertEqual(call["name"], "stopping")
        assert self.worker.service is not None
        self.worker.service.proxies[0].pool.pause()
        self.send("+a\0tcp:1")
        self.reactor.clients[0].send(b"get a\r\n")
        self.worker.dataReceived(json.dumps({"done": call["call"], "value": None}).encode() + b"\n")
        self.turns()
        self.assertNoResult(leaving)
        self.worker.service.proxies[0].pool.resume()
        self.turns()
        self.successResultOf(leaving)
        self.assertEqual(self.reactor.clients[0].take(), b"END\r\n")

    def test_noNotice(self) -> None:
        """
        It does not wait forever for the parent's answer.
        """
        self.start(A)
        leaving = self.leave()
        self.reactor.advance(worker.NOTICE)
        self.turns()
        self.successResultOf(leaving)

    def test_abort(self) -> None:
        """
        C{abort} ends it at once, before or during a stop. A second C{stop} has no effect.
        """
        self.start(A)
        self.send("+a\0tcp:1")
        assert self.worker.service is not None
        self.worker.service.proxies[0].pool.pause()
        self.reactor.clients[0].send(b"get a\r\n")
        self.assertEqual(self.call("stop")["value"], None)
        self.assertEqual(self.call("abort")["value"], None)
        self.assertEqual(self.reactor.stops, 2)
        leaving = self.leave()
        self.worker.connectionLost(connectionDone)
        self.turns()
        self.successResultOf(leaving)
        self.assertTrue(self.reactor.clients[0].aborted)

    def test_orphan(self) -> None:
        """
        When the parent ends, it stops, and does not log any more.
        """
        self.start(A)
        self.worker.connectionLost(connectionDone)
        self.assertEqual(self.reactor.stops, 1)
        seen = len(self.observed)
        Logger().info("nobody sees this")
        self.assertEqual(len(self.observed), seen)
        self.leave()
        self.turns()
