# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the console of a running proxy.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.operated import OperatedTestCase, execute
from tests.real.servers import HOST, PATIENCE, Proxy, ServerFailed, ask, connect, freePort, missing, refuses, until


class AdminTests(OperatedTestCase):
    """
    Tests for a proxy of one process.
    """

    def test_nc(self) -> None:
        """
        The console works with C{nc}: each command is answered, and C{nc} ends after its input ends.
        """
        nc = subprocess.run(
            ["nc", "-N", "-U", self.proxy.admin], input=b"show pools\nhelp\n", capture_output=True, timeout=PATIENCE
        )
        self.assertEqual((nc.returncode, nc.stderr), (0, b""))
        lines = nc.stdout.decode().splitlines()
        self.assertEqual(lines[0].split()[0], "txconnpool")
        self.assertEqual(lines[1].split()[:4], ["pool", "state", "sessions", "waiting"])
        self.assertEqual((lines[3], lines[-1][:3]), ("OK 1 pool", "OK "))

    test_nc.skip = missing("nc")  # type: ignore[attr-defined]

    def test_private(self) -> None:
        """
        Only the owner of the process may open the console.
        """
        self.assertEqual(stat.S_IMODE(os.stat(self.proxy.admin).st_mode), 0o600)

    def test_pause(self) -> None:
        """
        During a pause no request is answered, even if it lasts longer than C{wait-timeout}; after it all requests are.
        """
        self.proxy.write("wait-timeout = 1")
        self.proxy.hangUp("wait-timeout 60 -> 1")
        load = self.load()
        load.untilServed(200)
        self.assertIn("OK pool default paused", self.proxy.execute("pause"))
        until(lambda: self.proxy.rows("pools")[0]["in-flight"] == "0", what="the end of what was in flight")
        requests = self.memcached.stats()["cmd_get"]
        until(lambda: self.proxy.rows("pools")[0]["waiting"] == "40", what="a request of each client")
        time.sleep(1.6)
        (pool,) = self.proxy.rows("pools")
        self.assertEqual((pool["state"], pool["waiting"]), ("paused", "40"))
        self.assertEqual(self.memcached.stats()["cmd_get"], requests)
        self.assertIn("OK pool default resumed", self.proxy.execute("resume"))
        load.untilServed(200)
        self.assertGreater(self.assertUnharmed(load)["slowest"], 1.5)

    def states(self) -> list[tuple[str, str]]:
        """
        @return: the state of each server and the number of its connections.
        """
        return [(row["state"], row["connections"]) for row in self.proxy.rows("servers")]

    def test_drain(self) -> None:
        """
        The connections of a drained server are closed. Neither that nor the restoration of the server fails a request.
        """
        load = self.load()
        load.untilServed(200)
        for _ in range(2):
            self.assertIn(f"OK {self.servers[0]} drained", self.proxy.execute(f"drain {self.servers[0]}"))
            until(lambda: self.states()[0] == ("drained", "0"), what="the end of the connections")
            load.untilServed(200)
            self.assertEqual(self.states()[0], ("drained", "0"))
            self.assertIn(f"OK {self.servers[0]} restored", self.proxy.execute(f"restore {self.servers[0]}"))
            until(lambda: self.states() == [("up", "2"), ("up", "2")], what="two connections to each server")
        self.assertUnharmed(load)

    def test_reconnect(self) -> None:
        """
        All connections are replaced, and no request fails.
        """
        load = self.load()
        load.untilServed(200)
        for _ in range(3):
            self._replaceConnections()
        self.assertUnharmed(load)

    def _replaceConnections(self) -> None:
        def dials() -> int:
            return sum(int(row["dials"]) for row in self.proxy.rows("servers"))

        before = dials()
        self.assertIn("OK pool default: connections are replaced", self.proxy.execute("reconnect"))
        until(lambda: dials() >= before + 4, what="other connections")
        until(lambda: self.states() == [("up", "2"), ("up", "2")], what="two connections to each server")

    def test_drainNow(self) -> None:
        """
        The connections of a server that is drained at once are closed. Reads in flight go to another server, other
        requests in flight fail, and no other request does.
        """
        load = self.load()
        load.untilServed(200)
        self.proxy.execute(f"drain {self.servers[1]} now")
        until(lambda: self.states()[1] == ("drained", "0"), what="the end of the connections")
        load.untilServed(500)  # errors of before may still be on their way
        errors = load.count("errors")
        load.untilServed(500)
        report = load.finish()
        self.assertEqual((report["wrong"], report["stuck"], report["refused"]), ([], 0, 0))
        for error in report["errors"]:
            self.assertIn("upstream connection lost", error)
        self.assertEqual(sum(report["errors"].values()), errors)

    def test_kill(self) -> None:
        """
        C{kill} closes the named client and no other.
        """
        clients = [connect(self.proxy.address) for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"version\r\n")
            self.assertIn(b"VERSION", client.recv(100))
        host, port = clients[1].getsockname()
        (number,) = [row["session"] for row in self.proxy.rows("sessions") if row["client"] == f"{host}:{port}"]
        self.assertEqual(self.proxy.execute(f"kill {number}"), f"OK session {number} of pool default closed\n")
        self.assertRaises(ConnectionResetError, clients[1].recv, 1)
        for client in (clients[0], clients[2]):
            client.sendall(b"version\r\n")
            self.assertIn(b"VERSION", client.recv(100))

    def test_events(self) -> None:
        """
        C{show events} lists console commands and servers that went down.
        """
        self.proxy.execute("pause", "resume")
        self.memcached.kill()
        until(lambda: "is down: " in self.proxy.execute("show events"), what="the loss of a server")
        events = self.proxy.execute("show events")
        self.assertLess(events.index("pool default paused"), events.index("pool default resumed"))

    def test_resize(self) -> None:
        """
        C{resize} changes the bounds on connections, and no request fails.
        """
        load = self.load()
        for low, high in ((8, 12), (4, 4), (4, 6)):
            self.assertTrue(self.proxy.execute(f"resize default {low} {high}").endswith(" changed\n"))
            until(lambda: low <= sum(int(count) for _, count in self.states()) <= high, what=f"{low} to {high}")  # noqa: B023
            self.assertEqual(self.proxy.rows("pools")[0]["pool-size"], str(high))
        self.assertUnharmed(load)

    def test_shutdown(self) -> None:
        """
        The console works until the proxy has drained, and C{shutdown now} ends draining.
        """
        self.paused()
        self.assertEqual(self.proxy.execute("shutdown"), "OK stopping\n")
        until(lambda: refuses(self.proxy.address), what="an end of listening")
        self.assertIn("OK 1 pool", self.proxy.execute("show pools"))
        self.assertIn("ERROR the proxy is not running", self.proxy.execute("reload"))
        self.assertTrue(self.proxy.running())
        self.assertEqual(self.proxy.execute("shutdown now"), "OK stopping at once\n")
        self.assertEqual(self.proxy.wait(), 0)
        self.assertFalse(os.path.exists(self.proxy.admin))

    def test_shutdownServes(self) -> None:
        """
        C{shutdown} answers the requests that were read.
        """
        client = self.paused()
        self.proxy.execute("shutdown", "resume")
        self.assertEqual((client.recv(100), client.recv(100)), (b"END\r\n", b""))
        self.assertEqual(self.proxy.wait(), 0)

    def test_secondSignal(self) -> None:
        """
        A second SIGTERM ends a stop immediately.
        """
        self.paused()
        self.proxy.signal(signal.SIGTERM)
        until(lambda: refuses(self.proxy.address), what="an end of listening")
        time.sleep(0.3)
        self.assertTrue(self.proxy.running())
        self.proxy.signal(signal.SIGTERM)
        self.proxy.wait()
        self.assertIn("a second signal: ending at once", self.proxy.log)
        self.assertNotIn("Traceback", self.proxy.log)


class WorkersAdminTests(AdminTests):
    """
    Tests for a proxy of two worker processes.
    """

    options = ("--workers", "2")

    def test_sums(self) -> None:
        """
        The tables contain the values of all workers.
        """
        clients = [connect(self.proxy.address) for _ in range(10)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"version\r\n")
            client.recv(100)
        (pool,) = self.proxy.rows("pools")
        self.assertEqual((pool["sessions"], pool["pool-size"], pool["servers"]), ("10", "4", "2 up"))
        numbers = [row["session"] for row in self.proxy.rows("sessions")]
        self.assertEqual((len(numbers), {number.split(".")[0] for number in numbers}), (10, {"1", "2"}))

    def test_kill(self) -> None:
        """
        C{kill} closes the named client of the named worker and no other.
        """
        clients = [connect(self.proxy.address) for _ in range(4)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"version\r\n")
            client.recv(100)
        host, port = clients[2].getsockname()
        (number,) = [row["session"] for row in self.proxy.rows("sessions") if row["client"] == f"{host}:{port}"]
        self.assertEqual(self.proxy.execute(f"kill {number}"), f"OK session {number} closed\n")
        self.assertRaises(ConnectionResetError, clients[2].recv, 1)
        self.assertEqual(self.proxy.rows("pools")[0]["sessions"], "3")

    def test_newWorker(self) -> None:
        """
        A worker that replaces a paused one is paused too.
        """
        self.proxy.execute("pause")
        old = set(self.proxy.children)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        until(lambda: old.isdisjoint(self.proxy.children), what="the end of the old workers")
        until(lambda: "2 up" in self.proxy.execute("show pools"), what="new workers")
        self.assertEqual(self.proxy.rows("pools")[0]["state"], "paused")
        client = connect(self.proxy.address)
        self.addCleanup(client.close)
        client.sendall(b"get a\r\n")
        until(lambda: self.proxy.rows("pools")[0]["waiting"] == "1")
        self.proxy.execute("resume")
        self.assertEqual(client.recv(100), b"END\r\n")


class PasswordTests(SynchronousTestCase):
    """
    Tests for the console at a TCP port.
    """

    def options(self) -> Sequence[str]:
        """
        @return: the options for a console at a TCP port with a password.
        """
        self.secret = Path(self.mktemp()).absolute()
        self.secret.write_text("open sesame\n", "ascii")
        self.admin = (HOST, freePort())
        return ["--admin", f"tcp:{self.admin[1]}:interface={HOST}", "--admin-password-file", str(self.secret)]

    def test_needed(self) -> None:
        """
        Without a password the proxy does not start, and reports the reason.
        """
        *options, _, _ = self.options()
        proxy = Proxy(*options, upstream=["memory:"])
        self.addCleanup(proxy.stop)
        error = self.assertRaises(ServerFailed, proxy.start)
        self.assertIn(f"admin {options[1]} needs admin-password-file", str(error))

    def test_asked(self) -> None:
        """
        No command works before the password was sent. The password is neither shown nor logged.
        """
        with Proxy(*self.options(), upstream=["memory:"]) as proxy:
            self.assertEqual(execute(self.admin, "pause"), "ERROR expected auth PASSWORD first\n")
            self.assertEqual(ask(proxy.address, b"get a\r\n"), b"END\r\n")
            answers = execute(self.admin, "auth open", "auth open sesame", "show settings", "pause")
            self.assertRegex(answers, r"(?s)\AERROR wrong password\nOK welcome.*OK pool default paused")
            self.assertNotIn("sesame", answers.replace("`help`", "") + proxy.log)
