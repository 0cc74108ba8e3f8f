# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the manual's way from one Redis to a cluster works as it is written, except for ports and paths.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.documents import MANUAL, blocks
from tests.real.resp import Client, ReplyError
from tests.real.servers import HOST, PATIENCE, PATIENT_OPTIONS, Redis, Twistd, freePort, missing, until, withPorts

#: The number of keys of the old server.
KEYS = 300

#: Slots that have to move before the test ends.
MOVED = 50


class Counting(threading.Thread):
    """
    A client that counts, and reads what was there before.

    @ivar count: the last number.
    @ivar errors: the errors that it got.
    @ivar wrong: what cannot be correct.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.errors: list[str] = []
        self.wrong: list[str] = []
        self.ended = False
        self._address = address

    def run(self) -> None:
        """
        Work until the end, and connect again after the end of a connection.
        """
        while not self.ended:
            try:
                with Client(self._address, 60.0) as client:
                    while not self.ended:
                        self._step(client)
            except (EOFError, OSError, ReplyError) as error:
                self.errors.append(repr(error))
                time.sleep(0.01)

    def _step(self, client: Client) -> None:
        number = client.ask("INCR", "count")
        # A request that got an error may have been executed.
        if not self.count < number <= self.count + 1 + len(self.errors):
            self.wrong.append(f"{number} after {self.count}")
        self.count = number
        key = number % KEYS
        value = client.ask("GET", f"key:{key}")
        if value != b"%d" % key:
            self.wrong.append(f"key:{key} is {value!r}")


class MoveTests(SynchronousTestCase):
    """
    Tests for the blocks of the chapter, one after another.
    """

    skip = missing("redis-server", "redis-cli", "nc")

    def setUp(self) -> None:
        """
        Start the old server. Not below trial's temporary directory, whose path may be too long for a UNIX socket.
        """
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name).resolve()
        self.ports = {name: freePort() for name in ("6379", "6380", "7001", "7002")}
        old = self.directory / "redis"
        old.mkdir()
        server = Redis("--dir", str(old), address=(HOST, self.ports["6379"])).start()
        self.addCleanup(server.stop)
        with Client(server.address) as client:
            for key in range(KEYS):
                client.ask("SET", f"key:{key}", key)

    def here(self, text: str) -> str:
        """
        @return: a text of the manual with the ports and paths of this test.
        """
        text = withPorts(text, self.ports)
        text = text.replace("/srv/", f"{self.directory}/").replace("/run/connpool/", f"{self.directory}/")
        # A node's second port is 10000 above the first by default, which may be in use.
        return re.sub(r"--cluster-enabled yes", lambda _: f"--cluster-enabled yes --cluster-port {freePort()}", text)

    def shell(self, commands: str) -> str:
        """
        Run commands of the manual.

        @return: their output.
        """
        done = subprocess.run(
            ["bash", "-ec", self.here(commands)], capture_output=True, text=True, timeout=240, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def end(self, name: str) -> None:
        """
        End a node that runs in the background.
        """
        with Client((HOST, self.ports[name])) as client:
            pid = int(client.ask("INFO", "server").split(b"process_id:")[1].split(b"\r")[0])
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), what=f"the end of {pid}")

    def owned(self) -> int:
        """
        @return: how many slots the second node has.
        """
        with Client((HOST, self.ports["7002"])) as client:
            shards = client.ask("CLUSTER", "SLOTS")
        return sum(last + 1 - first for first, last, node in shards if node[1] == self.ports["7002"])

    def test_move(self) -> None:
        """
        A client of the proxy gets an error for at most one request, when the servers are exchanged, and none while a
        node joins. It loses nothing.
        """
        ini, node, move, grow = blocks(MANUAL, "From one server to a cluster")
        path = self.directory / "connpool.ini"
        path.write_text(self.here(ini))
        options = ("--config", str(path), *PATIENT_OPTIONS)
        proxy = Twistd(*options, plugin="connpool", address=(HOST, self.ports["6380"]))
        self.addCleanup(proxy.stop)
        proxy.start()
        client = Counting((HOST, self.ports["6380"]))
        client.start()
        self.addCleanup(setattr, client, "ended", True)
        until(lambda: client.count > 10, what="the work of a client")
        self.shell(node)
        self.assertEqual(client.errors, [])
        path.write_text(self.here(ini.replace("tcp:127.0.0.1:6379", "cluster:127.0.0.1:7001")))
        answers = self.shell(move)
        self.addCleanup(self.end, "7001")
        self.assertIn("OK pool cache paused", answers)
        self.assertIn("OK reloaded", answers)
        before = client.count
        until(lambda: client.count > before + 10, what="the work of a client with the cluster")
        # One error for the request that waited, one for the connection.
        self.assertLessEqual(len(client.errors), 2, client.errors)
        self.growing(grow, client)
        client.ended = True
        client.join(PATIENCE)
        self.assertEqual((client.is_alive(), client.wrong), (False, []))

    def growing(self, commands: str, client: Counting) -> None:
        """
        Run the commands that add a node. The last one moves half of all slots: the first ones are enough.
        """
        *first, last = commands.strip().splitlines()
        self.shell("\n".join(first))
        self.addCleanup(self.end, "7002")
        errors = list(client.errors)
        moving = subprocess.Popen(self.here(last).split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: self.owned() >= MOVED, what="the move of slots")
        finally:
            moving.kill()
            moving.wait()
        before = client.count
        until(lambda: client.count > before + 2 * KEYS, what="the work of a client with two nodes")
        self.assertEqual(client.errors, errors)
