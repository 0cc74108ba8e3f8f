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

    @ivar clients: those who came, as the far ends of their connections.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Pipe] = []
        self.stops = 0

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:
        """
        Make the protocol of a connection.
        """
        assert not os.get_blocking(fileDescriptor)
        self.clients.append(Pipe(self).connect(factory.buildProtocol(None)))

    def stop(self) -> None:
        """
        End, once.
        """
        self.stops += 1
        if self.stops > 1:
            raise ReactorNotRunning


class WorkerTests(SynchronousTestCase):
    """
    Tests for what a worker does when its parent calls.
    """

    def setUp(self) -> None:
        """
        Begin a worker.
        """
        self.reactor = Reactor()
        self.parent, theirs = socket.socketpair()
        self.addCleanup(self.parent.close)
        self.addCleanup(theirs.close)
        self.observed: list[Any] = []
        observer: Any = self.observed.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.worker = worker.WorkerProtocol(self.reactor, theirs, observer)
        self.transport = StringTransport()
        self.worker.makeConnection(self.transport)
        self.calls = 0

    def told(self) -> list[dict[str, Any]]:
        """
        @return: what it has said.
        """
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [json.loads(line) for line in lines]

    def call(self, name: str, *args: Any) -> dict[str, Any]:
        """
        @return: what it answers.
        """
        self.calls += 1
        call = {"call": self.calls, "name": name, "args": args}
        self.worker.dataReceived(json.dumps(call).encode() + b"\n")
        self.turns()
        (answer,) = [each for each in self.told() if each.get("done") == self.calls]
        return answer

    def turns(self) -> None:
        """
        Let happen what happens by itself.
        """
        for _ in range(10):
            self.reactor.advance(0)

    def start(self, *pools: PoolSettings) -> None:
        """
        Have it start.
        """
        settings = asdict(Settings(pools=pools))
        # The sockets of systemd are the parent's: they are not looked for here.
        settings["pools"][-1]["listen"] += SYSTEMD
        self.assertEqual(self.call("start", settings), {"done": self.calls, "value": None})

    def send(self, label: str, family: int = socket.AF_UNIX) -> socket.socket:
        """
        Send it a client.

        @return: that client.
        """
        ours, theirs = socket.socketpair(family)
        self.addCleanup(ours.close)
        with theirs:
            socket.send_fds(self.parent, [label.encode()], [theirs.fileno()])
        self.worker.inbox.doRead()
        return ours

    def test_start(self) -> None:
        """
        It serves the clients that it is given, and opens no port.
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

    def test_notStarted(self) -> None:
        """
        When it cannot start it says why.
        """
        pool = {**asdict(A), "upstream": ["nothing"]}
        self.assertIn("nothing", self.call("start", {**asdict(Settings()), "pools": [pool]})["error"])

    def test_unknown(self) -> None:
        """
        A call that there is not is an error.
        """
        self.assertEqual(self.call("dance")["error"], "no call 'dance'")

    def test_tooMany(self) -> None:
        """
        It is the parent who says whether there are too many clients.
        """
        self.start(A)
        self.send("-a\0tcp:1")
        self.send("+a\0tcp:1")
        first, second = self.reactor.clients
        self.assertEqual(first.take(), b"ERROR Too many open connections\r\n")
        self.assertTrue(second.reading)

    def test_gone(self) -> None:
        """
        It tells how many of those it was given have gone, soon and together: sessions that have ended, clients who were
        one too many after all, who had gone before they came, and whose listener is there no more.
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
        self.assertEqual([each["args"] for each in self.told()], [[{"a": 3, "z": 1}]])
        for client in self.reactor.clients:
            client.lose()
        self.reactor.advance(COLLECT)
        self.assertEqual([each["args"] for each in self.told()], [[{"a": 5, "z": 1}]])

    def test_noDescriptor(self) -> None:
        """
        A client for whom the system has no descriptor is lost, which is logged, and counted as gone.
        """
        self.start(A)
        self.parent.send(b"+a\0tcp:1")
        self.worker.inbox.doRead()
        self.assertTrue(any("no descriptor" in event["log_format"] for event in self.observed if "log_format" in event))
        self.reactor.advance(COLLECT)
        self.assertEqual([each["args"] for each in self.told()], [[{"a": 1}]])

    def test_lost(self) -> None:
        """
        A client who goes at the very moment he is taken, or for whom something fails, does not keep the next from being
        served; the second is logged.
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
        self.assertEqual([each["args"] for each in self.told()], [[{"a": 3}]])

    def test_noMoreClients(self) -> None:
        """
        When the parent sends nobody any more it is not listened to.
        """
        self.start(A)
        self.parent.shutdown(socket.SHUT_WR)
        self.worker.inbox.doRead()
        self.assertNotIn(self.worker.inbox, self.reactor.readers)

    def test_apply(self) -> None:
        """
        It puts other settings in force. Who was sent before comes in by what there was before.
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

    def test_do(self) -> None:
        """
        It has the controls of a proxy.
        """
        self.start(A)
        self.assertIn("pool a paused", self.call("perform", "pause", "a")["value"])
        self.assertIn("no pool 'z'", self.call("perform", "pause", "z")["error"])
        self.assertEqual([row["state"] for row in self.call("perform", "rows", "pools", 9)["value"]], ["paused"])

    def leave(self) -> Any:
        """
        Have the reactor end.

        @return: the Deferred that it waits for.
        """
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        ((do, args, kwargs),) = self.reactor.triggers["before"]["shutdown"]
        leaving = do(*args, **kwargs)
        self.assertEqual(handlers, {signal.SIGTERM: signal.SIG_IGN})
        return leaving

    def test_stop(self) -> None:
        """
        When it stops, it says so; takes those who were sent until the parent knew; and ends as the proxy does.
        """
        self.start(A)
        self.assertEqual(self.call("stop")["value"], None)
        self.assertEqual(self.reactor.stops, 1)
        leaving = self.leave()
        (call,) = self.told()
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
        It does not wait for ever for the parent to know.
        """
        self.start(A)
        leaving = self.leave()
        self.reactor.advance(worker.NOTICE)
        self.turns()
        self.successResultOf(leaving)

    def test_abort(self) -> None:
        """
        It ends at once when it is told so, before it has begun to stop or while it does; to stop twice does no harm.
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
        Without a parent it ends, and does not log to it any more.
        """
        self.start(A)
        self.worker.connectionLost(connectionDone)
        self.assertEqual(self.reactor.stops, 1)
        seen = len(self.observed)
        Logger().info("nobody sees this")
        self.assertEqual(len(self.observed), seen)
        self.leave()
        self.turns()
