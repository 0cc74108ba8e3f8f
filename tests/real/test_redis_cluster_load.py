# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with a real Redis cluster that changes under load.
"""

from __future__ import annotations

import random
from threading import Event, Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.rediscluster import Cluster, Node, slotOf
from tests.real.resp import Client, ReplyError
from tests.real.servers import Address, Proxy, missing, until

#: The number of clients, and of keys of each.
CLIENTS = 4
KEYS = 30


class LoadClient(Thread):
    """
    A client that sends pipelines of requests for keys of its own, with values that are never used again, and compares
    each reply with what it must be.

    @ivar rounds: how many pipelines were answered.
    @ivar errors: the errors that it got.
    @ivar wrong: what was wrong.
    @ivar lost: the keys that had an older value than the last one.
    @ivar losing: whether the cluster may lose values that it has confirmed.
    """

    def __init__(self, address: Address, number: int) -> None:
        super().__init__(daemon=True)
        self.rounds = 0
        self.errors: list[str] = []
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.losing = False
        self._address = address
        self._client = Client(address, 60.0)
        self._random = random.Random(number)
        self._names = [f"{number}:{key}" for key in range(KEYS)]
        self._values: dict[str, list[bytes]] = {name: [] for name in self._names}  # all values; the last one counts
        self._unsure: set[str] = set()  # the keys whose last write has failed, so that it may have been executed or not
        self._ended = Event()
        self._token = 0

    def run(self) -> None:
        """
        Send requests until L{end} is called.
        """
        try:
            while not self._ended.is_set():
                self._round()
                self.rounds += 1
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self._client.close()

    def end(self) -> None:
        """
        Stop after this pipeline, and wait for its replies.
        """
        self._ended.set()
        self.join(90.0)
        if self.is_alive():
            self.wrong.append("a reply did not come")

    def _round(self) -> None:
        steps: list[tuple[str, list[str], list[bytes]]] = []
        done = 0
        try:
            for _ in range(self._random.randrange(1, 12)):
                kind = self._random.choice(("GET", "GET", "SET", "MGET", "MSET", "MULTI"))
                names = self._random.sample(self._names, 3 if kind in ("MGET", "MSET") else 1)
                steps.append((kind, names, [self._next() for _ in names]))
                self._send(*steps[-1])
            for step in steps:
                self._receive(*step)
                done += 1
        except (EOFError, ConnectionError) as error:
            # The proxy closes a client whose transaction has lost its node.
            if not self.losing:
                raise
            self.errors.append(f"[closed: {error!r}]")
            self._connectAgain(steps[done:])

    def _connectAgain(self, unanswered: list[tuple[str, list[str], list[bytes]]]) -> None:
        for kind, names, tokens in unanswered:
            if kind in ("SET", "MSET", "MULTI"):
                self._wrote(names, tokens, False)
        self._client.close()
        self._client = Client(self._address, 60.0)

    def _next(self) -> bytes:
        self._token += 1
        return b"%d-%s" % (self._token, self._names[0].encode())

    def _send(self, kind: str, names: list[str], tokens: list[bytes]) -> None:
        if kind == "MULTI":
            self._client.send("MULTI")
            self._client.send("SET", names[0], tokens[0])
            self._client.send("EXEC")
        elif kind in ("GET", "MGET"):
            self._client.send(kind, *names)
        else:
            self._client.send(kind, *(word for pair in zip(names, tokens, strict=True) for word in pair))

    def _receive(self, kind: str, names: list[str], tokens: list[bytes]) -> None:
        if kind == "MULTI":
            self._transaction(names, tokens)
            return
        reply = self._reply()
        if kind not in ("GET", "MGET"):
            self._wrote(names, tokens, not isinstance(reply, ReplyError))
        elif not isinstance(reply, ReplyError):
            for name, value in zip(names, [reply] if kind == "GET" else reply, strict=True):
                self._check(name, value)

    def _transaction(self, names: list[str], tokens: list[bytes]) -> None:
        replies = [self._read() for _ in range(3)]
        if replies[2] == [b"OK"]:
            self._wrote(names, tokens, True)
        elif "EXECABORT" not in str(replies[2]) and "MOVED" not in str(replies[2]):
            self.errors.append(str(replies))
            self._wrote(names, tokens, False)

    def _wrote(self, names: list[str], tokens: list[bytes], confirmed: bool) -> None:
        for name, token in zip(names, tokens, strict=True):
            self._values[name].append(token)
            if confirmed:
                self._unsure.discard(name)
            else:
                self._unsure.add(name)

    def _reply(self) -> Any:
        reply = self._read()
        if isinstance(reply, ReplyError):
            self.errors.append(str(reply))
        return reply

    def _read(self) -> Any:
        try:
            return self._client.read()
        except ReplyError as error:
            return error

    def _check(self, name: str, value: bytes | None) -> None:
        known = self._values[name]
        if value == (known[-1] if known else None):
            self._unsure.discard(name)
            return
        if name not in self._unsure:
            if not self.losing or (value is not None and value not in known):
                self.wrong.append(f"{name} is {value!r}, not {known[-1:]}")
                return
            self.lost.append(name)
        elif value is not None and value not in known:
            self.wrong.append(f"{name} is {value!r}, none of {known[-3:]}")
        known[:] = known if value is None else [*known[: known.index(value)], value]
        self._unsure.discard(name)


class LoadTests(SynchronousTestCase):
    """
    Tests with a cluster of three primaries and their replicas.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the cluster, the proxy and the clients.
        """
        self.cluster = Cluster(3, 1).start()
        self.addCleanup(self.cluster.stop)
        upstream = [f"cluster:{self.cluster.seeds}"]
        timeouts = ("--request-timeout", "30", "--connect-timeout", "20", "--wait-timeout", "20")
        self.proxy = Proxy("--protocol", "redis", *timeouts, upstream=upstream).start()
        self.addCleanup(self.proxy.stop)
        self.clients = [LoadClient(self.proxy.address, number) for number in range(CLIENTS)]
        for client in self.clients:
            client.start()
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        End the load.
        """
        for client in self.clients:
            client.end()

    def progress(self, rounds: int = 20) -> None:
        """
        Wait until all clients have got further replies.
        """
        before = [client.rounds for client in self.clients]
        until(
            lambda: all(
                client.rounds >= old + rounds or not client.is_alive()
                for client, old in zip(self.clients, before, strict=True)
            ),
            60.0, "the replies of all clients",
        )  # fmt: skip
        self.assertEqual([client.wrong for client in self.clients], [[]] * CLIENTS)

    def errors(self) -> list[str]:
        """
        @return: the errors that clients have got.
        """
        return [error for client in self.clients for error in client.errors]

    def owners(self) -> dict[int, Node]:
        """
        @return: the slots of the keys of the first client, with their nodes.
        """
        slots = {slotOf(b"0:%d" % key) for key in range(KEYS)}
        return {slot: self.cluster.owner(slot) for slot in sorted(slots)[:8]}

    def test_changes(self) -> None:
        """
        While slots move back and forth, every reply is right, and there is no error. When a primary is killed, there
        are errors until its replica has taken over, and no wrong replies but for what Redis itself loses.
        """
        self.progress()
        primaries = self.cluster.primaries()
        for slot, source in self.owners().items():
            target = next(node for node in primaries if node is not source)
            self.cluster.migrate([slot], target)
            self.progress(3)
            self.cluster.migrate([slot], source)
        self.progress()
        self.assertEqual(self.errors(), [])
        for client in self.clients:
            client.losing = True
        victim = self.owners().popitem()[1]
        replica = self.cluster.replicas(victim)[0]
        victim.kill()
        self.progress()
        self.cluster.failover(replica)
        until(self.served, what="replies without errors")
        self.progress()
        victim.start()
        self.cluster.untilConsistent()
        self.progress()
        self.end()
        self.assertEqual([client.wrong for client in self.clients], [[]] * CLIENTS)
        unexpected = [error for error in self.errors() if not error.startswith(("ERR upstream", "CLUSTERDOWN", "["))]
        self.assertEqual(unexpected, [])

    def served(self) -> bool:
        """
        @return: whether some replies after another have no errors.
        """
        for client in self.clients:
            client.errors.clear()
        self.progress(5)
        return not self.errors()
