# -*- test-case-name: tests.real.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the tools that run real servers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from tests.real import servers
from tests.real.servers import (
    HOST,
    PATIENCE,
    Memcached,
    Nutcracker,
    Server,
    ServerFailed,
    Twistd,
    ask,
    connect,
    freePort,
    missing,
    refuses,
)


class MissingTests(SynchronousTestCase):
    """
    Tests for L{missing} and L{servers.which}.
    """

    def test_installed(self) -> None:
        """
        If the programs are installed there is no reason to skip.
        """
        self.assertIsNone(missing("sh"))

    def test_missing(self) -> None:
        """
        The first program that is not installed is the reason to skip.
        """
        self.patch(servers, "which", lambda program: None if program == "memcached" else "/bin/" + program)
        self.assertEqual(missing("sh", "memcached", "nosuch"), "memcached is not installed")

    def test_daemonDirectories(self) -> None:
        """
        Programs are found in the directories of daemons although C{PATH} does not contain these.
        """
        self.patch(os, "environ", {"PATH": "/nowhere"})
        self.patch(shutil, "which", lambda program, path: path)
        self.assertEqual(servers.which("x"), "/nowhere:/usr/local/sbin:/usr/sbin")


class AddressTests(SynchronousTestCase):
    """
    Tests for addresses and endpoint strings.
    """

    def test_endpoints(self) -> None:
        """
        Host and port, and a path, have endpoint strings for clients and for servers.
        """
        self.assertEqual(servers.clientEndpoint((HOST, 7)), "tcp:127.0.0.1:7")
        self.assertEqual(servers.clientEndpoint("/a/b"), "unix:/a/b")
        self.assertEqual(servers.serverEndpoint((HOST, 7)), "tcp:7:interface=127.0.0.1")
        self.assertEqual(servers.serverEndpoint("/a/b"), "unix:/a/b")

    def test_freePort(self) -> None:
        """
        A free port can be listened on, and a port in use is not returned.
        """
        port = freePort()
        self.assertIn(port, servers.PORTS)
        with socket.create_server((HOST, port)):
            self.patch(servers, "_ports", lambda: iter([port]))
            self.assertRaises(ServerFailed, freePort)

    def test_withPorts(self) -> None:
        """
        Each port in a text is replaced once, also if the new one has the digits of another, and no part of a number is.
        """
        ports = {"6380": 26379, "6379": 22700, "7003": 26380}
        text = servers.withPorts("tcp:6380, tcp:6379, /srv/7003, 16379, 6380.", ports)
        self.assertEqual(text, "tcp:26379, tcp:22700, /srv/26380, 16379, 26379.")

    def test_refuses(self) -> None:
        """
        An address refuses connections if nobody listens there, and not if a connection is only reset.
        """
        address = (HOST, freePort())
        self.assertTrue(refuses(address))
        with socket.create_server(address):
            self.assertFalse(refuses(address))
        self.patch(servers, "connect", Mock(side_effect=ConnectionResetError))
        self.assertFalse(refuses(address))

    def test_otherPorts(self) -> None:
        """
        All ports of a process are different, and another process has others.
        """
        program = "from tests.real.servers import freePort; print(freePort(), flush=True); input()"
        command = [sys.executable, "-c", program]
        with contextlib.ExitStack() as stack:
            others = []
            for _ in range(2):
                pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": servers.SOURCE}
                other = stack.enter_context(subprocess.Popen(command, **pipes))
                stack.callback(other.kill)
                assert other.stdout is not None
                others.append(int(other.stdout.readline()))
        own = {freePort() for _ in range(50)}
        self.assertEqual(len(own), 50)
        blocks = {(each - servers.PORTS.start) // servers.BLOCK for each in (*own, *others)}
        self.assertEqual(len(blocks), 3)

    def test_until(self) -> None:
        """
        C{until} returns as soon as the condition is true, and raises an error that names the condition if it stays
        false.
        """
        answers = iter([False, False, True])
        servers.until(lambda: next(answers))
        error = self.assertRaises(ServerFailed, servers.until, lambda: False, 0.01, "rain")
        self.assertEqual(str(error), "rain: not within 0.01 s")


class Silent(Server):
    """
    A process that never listens. C{options} is a program for Python.
    """

    def command(self) -> list[str]:
        """
        @return: the command that runs the program.
        """
        return [sys.executable, "-c", *self.options]


LISTEN = "import socket, sys, time, os, signal; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "


class Listening(Server):
    """
    A process that listens, and then executes the given Python statements.
    """

    def command(self) -> list[str]:
        """
        @return: the command that runs the statements.
        """
        assert not isinstance(self.address, str)
        return [sys.executable, "-c", LISTEN + self.options[0], str(self.address[1])]


class ServerTests(SynchronousTestCase):
    """
    Tests for L{Server}.
    """

    def test_endsEarly(self) -> None:
        """
        If the process ends immediately, the error contains its command and its output, and no directory remains.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        self.patch(tempfile, "tempdir", os.path.abspath(directory))
        server = Silent("import sys; sys.exit('no such luck')")
        error = self.assertRaises(ServerFailed, server.start)
        self.assertIn("sys.exit", str(error))
        self.assertIn("no such luck", str(error))
        self.assertEqual(server.pid, 0)
        self.assertEqual(os.listdir(directory), [])

    def test_neverListens(self) -> None:
        """
        A process that does not accept connections in time is an error, and is killed.
        """
        self.patch(servers, "START_TIMEOUT", 0.2)
        server = Silent("import time; time.sleep(60)")
        error = self.assertRaises(ServerFailed, server.start)
        self.assertIn("does not accept", str(error))
        self.assertFalse(server.running())

    def test_stop(self) -> None:
        """
        C{stop} ends the process, returns its exit status, keeps the log and removes the directory.
        """
        server = Listening("print('ready', flush=True); time.sleep(60)").start()
        self.addCleanup(server.stop)
        directory = server.directory
        servers.until(lambda: server.log == "ready\n")
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertEqual(server.log, "ready\n")
        self.assertFalse(directory.exists())
        self.assertEqual(server.stop(), 0)

    def test_stubborn(self) -> None:
        """
        A process that ignores SIGTERM is killed after the timeout.
        """
        server = Listening("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('.', flush=True); time.sleep(60)")
        server.start()
        self.addCleanup(server.stop)
        servers.until(lambda: server.log)
        self.assertEqual(server.stop(timeout=0.1), -signal.SIGKILL)

    def test_frozen(self) -> None:
        """
        The kernel accepts connections for a suspended process, and nothing is answered until it is resumed. It can be
        stopped too.
        """
        server = Listening("\nwhile True: s.accept()[0].sendall(b'hello')").start()
        self.addCleanup(server.stop)
        server.freeze()
        with connect(server.address, 0.2) as client:
            self.assertRaises(TimeoutError, client.recv, 10)
            server.thaw()
            client.settimeout(PATIENCE)
            self.assertEqual(client.recv(10), b"hello")
        server.freeze()
        self.assertEqual(server.stop(), -signal.SIGTERM)

    def test_restart(self) -> None:
        """
        A restarted server is another process at the same address.
        """
        server = Listening("time.sleep(60)").start()
        self.addCleanup(server.stop)
        before = server.pid, server.address
        server.restart()
        self.assertNotEqual(server.pid, before[0])
        self.assertEqual(server.address, before[1])
        self.assertEqual(server.kill(), -signal.SIGKILL)
        self.assertRaises(ConnectionRefusedError, connect, server.address)
        self.assertRaises(ServerFailed, server.kill)
        server.restart()
        connect(server.address).close()

    def test_children(self) -> None:
        """
        The children of the process are killed with it.
        """
        server = Listening("\nif os.fork(): print(os.getpid(), flush=True)\ntime.sleep(60)")
        server.start()
        self.addCleanup(server.stop)
        servers.until(lambda: server.log)
        server.kill()
        servers.until(lambda: refuses(server.address))

    def test_startedTwice(self) -> None:
        """
        A running server cannot be started again.
        """
        with Listening("time.sleep(60)") as server:
            self.assertRaises(ServerFailed, server.start)

    def test_notStarted(self) -> None:
        """
        A server that was not started has no address, and cannot be signalled or waited for.
        """
        server = Listening("")
        self.assertRaises(ServerFailed, lambda: server.address)
        self.assertRaises(ServerFailed, server.freeze)
        self.assertRaises(ServerFailed, server.wait, 1)

    def test_orphan(self) -> None:
        """
        A server is killed when the process that started it ends for any reason.
        """
        path = str(Path(servers.__file__).resolve().parents[2])
        starter = Listening(
            f"\nsys.path.insert(0, {path!r})\nfrom tests.real.test_servers import Listening\n"
            "inner = Listening('time.sleep(60)').start()\nprint(inner.address[1], flush=True)\ntime.sleep(60)"
        ).start()
        self.addCleanup(starter.stop)
        servers.until(lambda: starter.log)
        inner = (HOST, int(starter.log))
        connect(inner).close()
        os.kill(starter.pid, signal.SIGKILL)
        servers.until(lambda: refuses(inner))
        starter.wait()

    if sys.platform != "linux":
        test_orphan.skip = "only Linux can be asked to do that"  # type: ignore[attr-defined]


class MemcachedTests(SynchronousTestCase):
    """
    Tests for L{Memcached}.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start a memcached.
        """
        self.memcached = Memcached("-t", "1").start()
        self.addCleanup(self.memcached.stop)

    def test_tcp(self) -> None:
        """
        It answers at its address, and C{stats} returns its statistics.
        """
        self.assertTrue(ask(self.memcached.address, b"version\r\n").startswith(b"VERSION "))
        stats = self.memcached.stats()
        self.assertEqual(stats["pid"], str(self.memcached.pid))
        self.assertEqual(self.memcached.stats("settings")["num_threads"], "1")

    def test_restart(self) -> None:
        """
        After a restart it has the same address and no items.
        """
        ask(self.memcached.address, b"set k 0 0 1\r\nv\r\n")
        self.memcached.restart()
        self.assertEqual(ask(self.memcached.address, b"get k\r\n", b"END\r\n"), b"END\r\n")

    def test_unix(self) -> None:
        """
        It can listen on a UNIX socket in its directory.
        """
        with Memcached("-t", "1", address="memcached.sock") as memcached:
            self.assertEqual(memcached.endpoint, f"unix:{memcached.directory}/memcached.sock")
            self.assertTrue(ask(memcached.address, b"version\r\n").startswith(b"VERSION "))

    def test_root(self) -> None:
        """
        It does not run as root.
        """
        self.assertNotEqual(os.stat(f"/proc/{self.memcached.pid}").st_uid, 0)

    if not sys.platform.startswith("linux"):
        test_root.skip = "needs /proc"  # type: ignore[attr-defined]


class NutcrackerTests(SynchronousTestCase):
    """
    Tests for L{Nutcracker}.
    """

    skip = missing("memcached", "nutcracker")

    def test_forwards(self) -> None:
        """
        It forwards requests to memcached, over the given number of connections.
        """
        with Memcached("-t", "1") as memcached:
            before = int(memcached.stats()["total_connections"])
            with Nutcracker(upstream=[memcached.address], connections=3) as nutcracker:
                self.assertEqual(ask(nutcracker.address, b"set k 0 0 1\r\nv\r\n"), b"STORED\r\n")
                for _ in range(9):
                    self.assertEqual(ask(nutcracker.address, b"get k\r\n", b"END\r\n"), b"VALUE k 0 1\r\nv\r\nEND\r\n")
                # One more than its own: the connection that reads the statistics.
                self.assertEqual(int(memcached.stats()["total_connections"]) - before, 3 + 1)

    def test_badConfiguration(self) -> None:
        """
        The error for an invalid configuration contains its output.
        """
        nutcracker = Nutcracker(upstream=[(HOST, 1)], settings=["colour: blue"])
        self.assertIn("colour", str(self.assertRaises(ServerFailed, nutcracker.start)))


class TwistdTests(SynchronousTestCase):
    """
    Tests for L{Twistd}, with a plugin of Twisted.
    """

    def test_plugin(self) -> None:
        """
        A plugin runs in the foreground, leaves no file behind, and ends by the signal that stopped it.
        """
        with Listening("\nwhile True: s.accept()[0].sendall(b'hello\\r\\n')") as upstream:
            assert not isinstance(upstream.address, str)
            port = freePort()
            options = ["-p", f"tcp:{port}:interface=127.0.0.1", "-h", HOST, "-d", str(upstream.address[1])]
            twistd = Twistd(*options, plugin="portforward", address=(HOST, port)).start()
            self.addCleanup(twistd.stop)
            self.assertEqual(ask(twistd.address, b""), b"hello\r\n")
            self.assertEqual([path.name for path in twistd.directory.iterdir()], ["log"])
            self.assertEqual(twistd.stop(), -signal.SIGTERM)
            self.assertIn("portforward", " ".join(twistd.command()))
            self.assertIn("Server Shut Down", twistd.log)

    def test_refused(self) -> None:
        """
        Unknown options of the plugin are an error that contains the usage.
        """
        error = self.assertRaises(ServerFailed, Twistd("--nonsense", plugin="portforward").start)
        self.assertIn("nonsense", str(error))

    def test_proxyCommand(self) -> None:
        """
        The options of L{servers.Proxy} name servers and listening addresses by endpoint strings. There is one for each
        timeout, unless there is an ini file.
        """
        proxy = servers.Proxy("--pool-size", "2", "--wait-timeout=1", upstream=[(HOST, 1), "/a/b", "memory:"])
        self.patch(servers.Proxy, "address", (HOST, 2))
        times = f"--wait-timeout=1 --connect-timeout={PATIENCE:g} --request-timeout={PATIENCE:g}"
        places = "--upstream tcp:127.0.0.1:1 --upstream unix:/a/b --upstream memory: --listen tcp:2:interface=127.0.0.1"
        self.assertTrue(" ".join(proxy.command()).endswith(f"connpool --pool-size 2 {times} {places}"))
        proxy.options = ("--config", "x")
        self.assertNotIn("timeout", " ".join(proxy.command()))
        self.assertEqual(proxy.environment()["PYTHONPATH"], str(servers.SOURCE))
        self.assertTrue((servers.SOURCE / "tests" / "real").is_dir())
