# Copyright txconnpool contributors. See LICENSE.
"""
Tests for changes of settings while the proxy serves.
"""

from __future__ import annotations

import socket

from tests.real.operated import OperatedTestCase
from tests.real.servers import HOST, ask, freePort, serverEndpoint, until


class ReloadTests(OperatedTestCase):
    """
    Tests for a proxy of one process.
    """

    def test_everything(self) -> None:
        """
        Bounds, timeouts, servers, listeners and pools change, and no request fails. The log has a line for each change.
        """
        load = self.load()
        second, third = (HOST, freePort()), (HOST, freePort())
        self.proxy.write("pool-size = 8", "request-timeout = 9", listen=[serverEndpoint(second)])
        self.proxy.hangUp(
            "pool default: pool-size 4 -> 8\n",
            "pool default: request-timeout 60 -> 9\n",
            f"pool default: listen + {serverEndpoint(second)}\n",
            "reloaded, 3 changed\n",
        )
        self.assertEqual(ask(second, b"get a\r\n"), b"END\r\n")
        load.untilServed(200)
        self.proxy.write(
            upstream=self.servers[:1],
            rest=f"[pool:other]\nupstream = {self.servers[1]}\nlisten = {serverEndpoint(third)}",
        )
        self.proxy.hangUp(
            "pool default: pool-size 8 -> 4\n",
            f"pool default: upstream - {self.servers[1]}\n",
            f"pool default: listen - {serverEndpoint(second)}\n",
            "pool other: added\n",
        )
        self.assertRaises(ConnectionRefusedError, ask, second, b"get a\r\n")
        self.assertEqual(ask(third, b"get a\r\n"), b"END\r\n")
        load.untilServed(200)
        self.proxy.write()
        self.proxy.hangUp(f"pool default: upstream + {self.servers[1]}\n", "pool other: removed\n")
        self.assertRaises(ConnectionRefusedError, ask, third, b"get a\r\n")
        until(lambda: [row["state"] for row in self.proxy.rows("servers")] == ["up", "up"], what="both servers")
        until(lambda: all(row["connections"] == "2" for row in self.proxy.rows("servers")), what="two connections each")
        load.untilServed(200)
        self.assertUnharmed(load)

    def test_broken(self) -> None:
        """
        A file with errors changes nothing. Each error is one line, in the log after SIGHUP, and on the console after
        C{reload}.
        """
        load = self.load()
        self.proxy.write("pool-size = many", "pipeline-dept = 9", "min-pool-size = 2", listen=["tcp:0:interface=x"])
        path = str(self.proxy.ini)
        words = (
            "[pool:default] pool-size = 'many': expected a whole number from 1 to 65535\n",
            "[pool:default] pipeline-dept: no such key; did you mean pipeline-depth?\n",
        )
        self.proxy.hangUp(*words)
        lines = self.proxy.execute("reload").splitlines()
        self.assertEqual(lines.pop(), f"ERROR {len(lines)} problems")
        self.assertEqual([line for line in lines if not line.startswith(f"{path}:")], [])
        self.assertIn("OK 0 changed", self.proxy.execute("resize default 1 4").replace("OK reloaded, ", "OK "))
        values = {row["key"]: row["value"] for row in self.settings()}
        self.assertEqual((values["pool-size"], values["min-pool-size"]), ("4", "1"))
        self.assertUnharmed(load)

    def settings(self) -> list[dict[str, str]]:
        """
        @return: the settings of the pool that are in force.
        """
        lines = [line.split() for line in self.proxy.execute("show settings").splitlines()]
        return [{"key": line[1], "value": line[2]} for line in lines if line[0] == "default"]

    def test_takenAddress(self) -> None:
        """
        If one new listener cannot be opened, nothing else changes either.
        """
        load = self.load()
        free = (HOST, freePort())
        with socket.create_server((HOST, 0)) as taken:
            place = taken.getsockname()
            self.proxy.write("pool-size = 8", listen=[serverEndpoint(free), serverEndpoint(place)])
            answer = self.proxy.execute("reload")
        self.assertEqual(answer, f"ERROR cannot listen on {place[0]}:{place[1]}: Address already in use\n")
        self.assertRaises(ConnectionRefusedError, ask, free, b"get a\r\n")
        self.assertEqual(self.proxy.rows("pools")[0]["pool-size"], "4")
        self.assertEqual(self.proxy.execute("reload").splitlines()[-1], "OK reloaded, 3 changed")
        self.assertUnharmed(load)

    def test_fixed(self) -> None:
        """
        Settings that only a restart can change are reported, and all others change.
        """
        self.proxy.write("pool-size = 8")
        text = self.proxy.ini.read_text("utf-8")
        right, wrong = f"admin = unix:{self.proxy.admin}", "admin = unix:/elsewhere\nmax-unread-bytes = 4m"
        self.proxy.ini.write_text(text.replace(right, wrong), "utf-8")
        lines = self.proxy.execute("reload").splitlines()
        self.assertIn("max-unread-bytes 256m -> 4m", lines)
        self.assertIn("pool default: pool-size 4 -> 8", lines)
        self.assertIn(f"admin unix:{self.proxy.admin} -> unix:/elsewhere: needs a restart", lines)

    def test_many(self) -> None:
        """
        Many signals in a row do no harm: reloads run one after another, and the last one wins.
        """
        load = self.load()
        for size in range(5, 25):
            self.proxy.write(f"pool-size = {size}")
            self.proxy.signal(1)
        until(lambda: self.proxy.rows("pools")[0]["pool-size"] == "24", what="the last size")
        self.assertNotIn("Traceback", self.proxy.log)
        self.assertUnharmed(load)


class WorkersReloadTests(ReloadTests):
    """
    The same tests for a proxy of two worker processes.
    """

    options = ("--workers", "2")
