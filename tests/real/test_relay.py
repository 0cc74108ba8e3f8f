# -*- test-case-name: tests.real.test_relay -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the relay that injects faults.
"""

from __future__ import annotations

import os
import socket
import socketserver
import tempfile
import threading
import time
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from tests.real.relay import (
    BLACKHOLE,
    FREEZE,
    HOLD,
    PASS,
    REFUSE,
    Fault,
    Relay,
    cut,
    delay,
    duplicate,
    edit,
    inject,
    reset,
    trickle,
)
from tests.real.servers import HOST, PATIENCE, Address, ServerFailed, connect, everything, until


class _Echo(socketserver.StreamRequestHandler):
    """
    Sends back all bytes that it receives, until the end of the connection.
    """

    def handle(self) -> None:
        while data := self.connection.recv(1 << 16):
            self.connection.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """
        Ignore errors: the tests reset connections.
        """


class RelayTests(SynchronousTestCase):
    """
    Tests for L{Relay} in front of an echo server.
    """

    def setUp(self) -> None:
        """
        Start the server and the relay.
        """
        self.server = _EchoServer((HOST, 0), _Echo)
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 5)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.relay = Relay(cast(tuple[str, int], self.server.server_address)).start()
        self.addCleanup(self.relay.stop)

    def client(self) -> socket.socket:
        """
        Connect through the relay.
        """
        client = connect(self.relay.address)
        self.addCleanup(client.close)
        return client

    def served(self) -> socket.socket:
        """
        Connect through the relay, and wait until the server answers.
        """
        client = self.client()
        self.assertEqual(exchange(client, b"hello"), b"hello")
        return client

    def test_pass(self) -> None:
        """
        Bytes are forwarded in both directions, also large amounts.
        """
        client = self.served()
        sent = os.urandom(4 * HOLD)
        threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
        self.assertEqual(receive(client, len(sent)), sent)
        self.assertEqual(self.relay.faults, 0)

    def test_backPressure(self) -> None:
        """
        If a client does not read, the relay buffers a bounded number of bytes, and no byte is lost.
        """
        client = self.served()
        sent = os.urandom(64 << 20)
        writer = threading.Thread(target=client.sendall, args=(sent,), daemon=True)
        client.settimeout(PATIENCE)
        writer.start()
        writer.join(0.5)
        self.assertTrue(writer.is_alive())
        self.assertTrue(receive(client, len(sent)) == sent)
        writer.join(PATIENCE)

    def test_ends(self) -> None:
        """
        The end of one direction is forwarded while the other one stays open. After the end of both, the connection is
        closed.
        """
        client = self.served()
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(client), b"last words")
        until(lambda: self.relay.connections == 0)

    def test_counts(self) -> None:
        """
        The relay counts open connections, their maximum, and all accepted ones.
        """
        clients = [self.served() for _ in range(3)]
        clients[0].close()
        until(lambda: self.relay.connections == 2)
        self.served()
        self.assertEqual((self.relay.connections, self.relay.most, self.relay.accepted), (3, 3, 4))

    def test_serverReset(self) -> None:
        """
        If the server cannot be reached, the client's connection is reset.
        """
        self.server.shutdown()
        self.server.server_close()
        self.assertRaises(
            ConnectionResetError, lambda: self.client().recv(1)
        )  # the connection may be reset while it is established
        until(lambda: self.relay.connections == 0)

    def test_delay(self) -> None:
        """
        Requests and replies are delayed, each by the given time, and stay in order when the fault is removed.
        """
        client = self.served()
        self.relay.set(delay(0.1))
        begin = time.monotonic()
        client.sendall(b"a")
        until(lambda: self.relay.held == 1)
        self.relay.set(PASS)
        client.sendall(b"b")
        self.assertEqual(receive(client, 2), b"ab")
        self.assertGreater(time.monotonic() - begin, 0.1)

    def test_refuse(self) -> None:
        """
        New connections are refused and existing ones are not affected. Another fault makes the relay listen on the same
        address again.
        """
        client = self.served()
        self.relay.set(REFUSE)
        self.assertRaises(ConnectionRefusedError, connect, self.relay.address)
        self.assertEqual(exchange(client, b"still"), b"still")
        self.relay.set(PASS)
        self.served()

    def test_drop(self) -> None:
        """
        C{drop} resets all connections.
        """
        clients = [self.served(), self.served()]
        self.relay.drop()
        for client in clients:
            self.assertRaises(ConnectionResetError, client.recv, 1)
        until(lambda: self.relay.connections == 0)

    def test_resetAtOnce(self) -> None:
        """
        Existing connections are reset when the fault is set, and new ones when they are accepted.
        """
        client = self.served()
        self.relay.set(reset())
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertRaises(
            ConnectionResetError, lambda: self.client().recv(1)
        )  # the connection may be reset while it is established
        self.assertEqual(self.relay.faults, 2)

    def test_resetAfter(self) -> None:
        """
        A connection is reset after the given number of bytes of replies since the fault was set.
        """
        client = self.served()
        self.relay.set(reset(after=4))
        self.assertEqual(exchange(client, b"abc"), b"abc")
        client.sendall(b"def")
        self.assertEqual(receive(client, 1), b"d")
        self.assertRaises(ConnectionResetError, client.recv, 1)

    def test_cut(self) -> None:
        """
        A connection is closed in order after the given number of bytes of replies.
        """
        client = self.served()
        self.relay.set(cut(after=4))
        client.sendall(b"abcdef")
        self.assertEqual(receive(client, 4), b"abcd")
        client.sendall(b"ghi")
        self.assertEqual(client.recv(1), b"")
        client.close()
        until(lambda: self.relay.connections == 0)

    def test_cutAtOnce(self) -> None:
        """
        Without a number of bytes existing and new connections are closed immediately.
        """
        client = self.served()
        self.relay.set(cut())
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.client().recv(1), b"")

    def test_times(self) -> None:
        """
        A fault with C{times=1} affects one connection and no other.
        """
        clients = [self.served(), self.served()]
        self.relay.set(cut(after=1, times=1))
        self.assertEqual(exchange(clients[1], b"a"), b"a")
        self.assertEqual(clients[1].recv(1), b"")
        self.assertEqual(exchange(clients[0], b"abc"), b"abc")
        self.served()
        self.assertEqual(self.relay.faults, 1)
        self.relay.set(cut(after=1, times=1))
        self.assertEqual(exchange(clients[0], b"a"), b"a")
        self.assertEqual(clients[0].recv(1), b"")

    def test_blackhole(self) -> None:
        """
        Connections are accepted and nothing is answered. Requests that were sent meanwhile are lost.
        """
        old = self.served()
        self.relay.set(BLACKHOLE)
        new = self.client()
        for client in (old, new):
            client.sendall(b"lost")
            client.settimeout(0.5)
            self.assertRaises(TimeoutError, client.recv, 1)
        self.relay.set(PASS)
        for client in (old, new):
            client.settimeout(PATIENCE)
            self.assertEqual(exchange(client, b"found"), b"found")

    def test_freeze(self) -> None:
        """
        Nothing is forwarded while the relay is frozen, also not on new connections, and nothing is lost.
        """
        old = self.served()
        self.relay.set(FREEZE)
        new = self.client()
        for client in (old, new):
            client.sendall(b"wait")
            client.settimeout(0.1)
            self.assertRaises(TimeoutError, client.recv, 1)
        self.relay.set(PASS)
        for client in (old, new):
            client.settimeout(PATIENCE)
            self.assertEqual(receive(client, 4), b"wait")

    def test_trickle(self) -> None:
        """
        Bytes arrive one by one, with pauses.
        """
        client = self.served()
        self.relay.set(trickle(0.02))
        begin = time.monotonic()
        self.assertEqual(exchange(client, b"abcdef"), b"abcdef")
        self.assertGreater(time.monotonic() - begin, 5 * 0.02)

    def test_trickleInPieces(self) -> None:
        """
        A slow link forwards some bytes at a time.
        """
        client = self.served()
        self.relay.set(trickle(0.02, 1000))
        begin = time.monotonic()
        self.assertEqual(exchange(client, b"x" * 4000), b"x" * 4000)
        self.assertGreater(time.monotonic() - begin, 3 * 0.02)

    def test_trickleWithoutPause(self) -> None:
        """
        Without a pause bytes are still sent one by one, and all arrive.
        """
        client = self.served()
        self.relay.set(trickle())
        self.assertEqual(exchange(client, b"x" * 1000), b"x" * 1000)

    def test_duplicate(self) -> None:
        """
        Some bytes arrive twice, once on each connection, even if they were received in several pieces.
        """
        client = self.served()
        self.relay.set(duplicate(3, after=1))
        for letter in b"abcdef":
            client.sendall(bytes([letter]))
            until(lambda: self.relay.held == 0)
        self.assertEqual(receive(client, 9), b"abcdbcdef")
        self.assertEqual(exchange(self.client(), b"abcdef", 9), b"abcdbcdef")

    def test_inject(self) -> None:
        """
        Other bytes are inserted between the server's own, once on each connection.
        """
        client = self.served()
        self.relay.set(inject(b"!!", after=2))
        self.assertEqual(exchange(client, b"abcd", 6), b"ab!!cd")
        self.assertEqual(exchange(client, b"efgh"), b"efgh")

    def test_injectAtOnce(self) -> None:
        """
        Other bytes can be sent immediately, on existing and on new connections.
        """
        old = self.served()
        self.relay.set(inject(b"!!"))
        self.assertEqual(receive(old, 2), b"!!")
        self.assertEqual(receive(self.client(), 2), b"!!")

    def test_edit(self) -> None:
        """
        Replies can be changed by a function, requests are not changed.
        """
        client = self.served()
        self.relay.set(edit(bytes.upper))
        self.assertEqual(exchange(client, b"abc"), b"ABC")

    def test_unix(self) -> None:
        """
        The relay can listen on a UNIX socket, and connect to one.
        """
        path = os.path.join(self.mktemp(), "s")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "s")
        with Relay(self.relay.address, path) as near, Relay(path) as far:
            self.assertEqual(near.endpoint, f"unix:{path}")
            with connect(far.address) as client:
                self.assertEqual(exchange(client, b"hello"), b"hello")
                near.drop()
                self.assertEqual(client.recv(1), b"")

    def test_stop(self) -> None:
        """
        C{stop} closes all connections and the listening socket. A stopped relay cannot be used.
        """
        client = self.served()
        self.relay.set(FREEZE)
        waiting = self.client()
        self.relay.stop()
        for one in (client, waiting):
            self.assertRaises(ConnectionResetError, one.recv, 1)
        self.assertRaises(ConnectionRefusedError, connect, self.relay.address)
        self.assertRaises(ServerFailed, self.relay.drop)
        self.assertEqual(self.relay.connections, 0)
        self.relay.stop()

    def test_fault(self) -> None:
        """
        C{fault} is the current fault.
        """
        self.assertEqual(self.relay.fault, PASS)
        self.relay.set(delay(1))
        self.assertEqual(self.relay.fault, Fault("delay", seconds=1))

    def test_cannotListen(self) -> None:
        """
        A relay that cannot listen raises the error, and its thread ends.
        """
        before = threading.active_count()
        address: Address = self.relay.address
        self.assertRaises(OSError, Relay(HOST, address).start)
        self.assertEqual(threading.active_count(), before)


def exchange(client: socket.socket, data: bytes, length: int = 0) -> bytes:
    """
    Send bytes, and receive as many, or C{length} of them.
    """
    client.sendall(data)
    return receive(client, length or len(data))


def receive(client: socket.socket, length: int) -> bytes:
    """
    Receive exactly so many bytes.
    """
    pieces = []
    while length and (data := client.recv(min(length, 1 << 16))):
        pieces.append(data)
        length -= len(data)
    return b"".join(pieces)
