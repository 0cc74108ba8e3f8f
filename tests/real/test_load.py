# -*- test-case-name: tests.real.test_load -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the load detects every wrong reply, and accepts every correct one.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.real import load
from tests.real.load import Load, Report
from tests.real.relay import BLACKHOLE, PASS, Relay, cut, edit, inject, reset
from tests.real.servers import HOST, Address, Memcached, Nutcracker, ServerFailed, freePort, missing, until
from tests.real.tokens import META_KINDS, Client, Request, Settings, Wrong, token


class TokenTests(SynchronousTestCase):
    """
    Tests for L{token}.
    """

    def test_different(self) -> None:
        """
        Two values with different arguments differ in all their parts.
        """
        tokens = [token(1, 2, 3, 4, 50), token(9, 2, 3, 4, 50), token(1, 9, 3, 4, 50), token(1, 2, 9, 4, 50)]
        tokens += [token(1, 2, 3, 9, 50), token(1, 2, 3, 4, 51)[:50]]
        self.assertEqual(len(set(tokens)), 6)
        self.assertEqual(len({one[25:] for one in tokens}), 6)

    def test_size(self) -> None:
        """
        A value has the requested length, but always contains one complete unit.
        """
        self.assertEqual(len(token(1, 2, 3, 4, 1000)), 1000)
        self.assertEqual(token(1, 2, 3, 4, 5), b"<1.2.3.4.5>")


class ClientTests(SynchronousTestCase):
    """
    Tests for the replies that L{Client} accepts.

    The tests create requests themselves. Key 0 of client 7 is C{load:1:7:0}.
    """

    misses = False

    def setUp(self) -> None:
        """
        Create a client without requests.
        """
        self.client = Client(7, Settings((HOST, 1), mark=1, keys=3, sizes=(5,), misses=self.misses))

    def ask(self, *requests: Request) -> None:
        """
        Add requests as if they had been sent.
        """
        for request in requests:
            if request.number > 0:
                self.client.sizes[request.number] = 5
            self.client.due.append(request)

    def answers(self, data: bytes) -> list[str]:
        """
        Feed bytes to the client.

        @return: the errors of the requests that they answer; an empty string is a success.
        """
        return [error for _, error in self.client.received(data)]

    def stored(self, number: int, key: int = 0) -> None:
        """
        Store a value.
        """
        self.ask(Request("set", [key], number))
        self.assertEqual(self.answers(b"STORED\r\n"), [""])

    def wrong(self, data: bytes) -> str:
        """
        Assert that bytes are a wrong reply.

        @return: the text of the error.
        """
        return str(self.assertRaises(Wrong, self.client.received, data))

    def value(self, number: int, key: int = 0, client: int = 7, word: bytes = b"VALUE") -> bytes:
        """
        @return: a value with its line, as in a reply.
        """
        body = token(1, client, key, number, 5)
        return b"%b load:1:%d:%d %d %d\r\n%b\r\n" % (word, client, key, number, len(body), body)

    def test_hit(self) -> None:
        """
        A read returns the stored value.
        """
        self.stored(1)
        self.ask(Request("get", [0]))
        self.assertEqual(self.answers(self.value(1) + b"END\r\n"), [""])
        self.assertEqual((self.client.missed, self.client.due), (0, deque()))

    def test_pieces(self) -> None:
        """
        Replies may arrive byte by byte, and several at once.
        """
        self.stored(1)
        self.ask(Request("get", [0]), Request("get", [1]), Request("set", [1], 2))
        data = self.value(1) + b"END\r\nEND\r\nSTORED\r\n"
        errors = [error for position in range(len(data)) for error in self.answers(data[position : position + 1])]
        self.assertEqual(errors, ["", "", ""])

    def test_miss(self) -> None:
        """
        A miss is correct for a key without a value, and wrong for a key with a confirmed value.
        """
        self.ask(Request("get", [0]))
        self.assertEqual(self.answers(b"END\r\n"), [""])
        self.assertEqual(self.client.missed, 1)
        self.stored(1)
        self.ask(Request("get", [0]))
        self.assertIn("a miss for key 0, whose confirmed value is 1", self.wrong(b"END\r\n"))

    def test_foreign(self) -> None:
        """
        A value of another client, or of a key that was not requested, is wrong even if its line is right.
        """
        self.stored(1)
        self.stored(2, key=1)
        for data in (self.value(1, client=8), self.value(2, key=1)):
            self.ask(Request("get", [0]))
            self.assertIn("belongs to another request", self.wrong(data))
            self.client.lost()

    def test_foreignValue(self) -> None:
        """
        A value of another key under a right line is wrong.
        """
        self.stored(1)
        self.ask(Request("get", [0]))
        data = self.value(1).replace(b"load:1:7:0 1", b"load:1:7:0 2")
        self.assertIn("do not belong together", self.wrong(data))

    def test_broken(self) -> None:
        """
        A value with a wrong byte, or one that is not a token, is wrong.
        """
        self.stored(1)
        self.client.sizes[1] = 100
        for data, why in (
            (b"VALUE load:1:7:0 1 11\r\n<1.7.0.1.9>\r\n", ""),
            (b"VALUE load:1:7:0 1 12\r\n<1.7.0.1.12]\r\n", "not a token"),
            (b"VALUE load:1:7:0 1 13\r\n<1.7.0.1.13>!\r\n", "broken"),
            (b"VALUE load:1:7:0 1 11\r\n<1.7.0.1.9>xx", "not a token"),
        ):
            self.ask(Request("get", [0]))
            if why:
                self.assertIn(why, self.wrong(data))
            else:
                self.assertEqual(self.answers(data), [])
            self.client.lost()

    def test_stale(self) -> None:
        """
        A value from before the last confirmed one is wrong.
        """
        self.stored(1)
        self.stored(2)
        self.ask(Request("get", [0]))
        self.assertIn("value 1 for key 0, whose confirmed value is 2", self.wrong(self.value(1) + b"END\r\n"))

    def test_many(self) -> None:
        """
        The values of several keys arrive in the order of the request, without those that are missing.
        """
        self.stored(1, key=0)
        self.stored(2, key=2)
        self.ask(Request("many", [2, 1, 0]))
        self.assertEqual(self.answers(self.value(2, 2) + self.value(1, 0) + b"END\r\n"), [""])
        self.ask(Request("many", [2, 1, 0]))
        self.assertIn("not in the order", self.wrong(self.value(1, 0) + self.value(2, 2) + b"END\r\n"))

    def test_anyOrder(self) -> None:
        """
        The values may arrive in another order if this is allowed, but none of them twice.
        """
        self.client = Client(7, Settings((HOST, 1), mark=1, keys=3, sizes=(5,), misses=self.misses, anyOrder=True))
        self.stored(1, key=0)
        self.stored(2, key=2)
        self.ask(Request("many", [2, 1, 0]))
        self.assertEqual(self.answers(self.value(1, 0) + self.value(2, 2) + b"END\r\n"), [""])
        self.ask(Request("many", [2, 1, 0]))
        self.assertIn("comes twice", self.wrong(self.value(1, 0) + self.value(2, 2) + self.value(1, 0) + b"END\r\n"))

    def test_twice(self) -> None:
        """
        A value that occurs twice in a reply is wrong.
        """
        self.stored(1)
        self.ask(Request("many", [0, 1]))
        self.assertIn("comes twice", self.wrong(self.value(1) * 2))

    def test_gets(self) -> None:
        """
        The lines of C{gets} have one more word than those of C{get}.
        """
        self.stored(1)
        self.ask(Request("gets", [0]))
        size = b" %d\r\n<" % len(token(1, 7, 0, 1, 5))
        self.assertEqual(self.answers(self.value(1).replace(size, size[:-3] + b" 99\r\n<") + b"END\r\n"), [""])
        self.ask(Request("gets", [0]))
        self.wrong(self.value(1))

    def test_delete(self) -> None:
        """
        A deleted key is missing. C{DELETED} is wrong if the key had no value, and C{NOT_FOUND} if it had one.
        """
        self.stored(1)
        self.ask(Request("delete", [0], 0), Request("get", [0]), Request("delete", [0], 0))
        self.assertEqual(self.answers(b"DELETED\r\nEND\r\nNOT_FOUND\r\n"), ["", "", ""])
        self.ask(Request("delete", [0], 0))
        self.assertIn("the key held no value", self.wrong(b"DELETED\r\n"))
        self.client.lost()
        self.stored(2)
        self.ask(Request("delete", [0], 0))
        self.wrong(b"NOT_FOUND\r\n")

    def test_error(self) -> None:
        """
        A C{SERVER_ERROR} line answers any request, and it is then unknown whether the request was executed.
        """
        self.stored(1)
        self.ask(Request("set", [0], 2), Request("get", [1]), Request("mg", [0], tag=b"O1"))
        self.assertEqual(self.answers(b"SERVER_ERROR a b\r\n" * 3), ["a b"] * 3)
        for number in (1, 2):
            self.ask(Request("get", [0]))
            self.assertEqual(self.answers(self.value(number) + b"END\r\n"), [""])
        self.ask(Request("get", [0]))
        self.assertIn("value 1 for key 0", self.wrong(self.value(1) + b"END\r\n"))

    def test_lateWrite(self) -> None:
        """
        A value that was never confirmed may appear after a later write: a suspended server may store it when it
        resumes.
        """
        self.ask(Request("set", [0], 1))
        self.client.lost()
        self.stored(2)
        for number in (2, 1):
            self.ask(Request("get", [0]))
            self.assertEqual(self.answers(self.value(number) + b"END\r\n"), [""])

    def test_failedDelete(self) -> None:
        """
        A key may be missing after a delete that was not confirmed.
        """
        self.stored(1)
        self.ask(Request("delete", [0], 0))
        self.answers(b"SERVER_ERROR x\r\n")
        self.ask(Request("get", [0]))
        self.assertEqual(self.answers(b"END\r\n"), [""])

    def test_otherErrors(self) -> None:
        """
        All requests are valid, so C{ERROR} and C{CLIENT_ERROR} are wrong, as are replies to other requests.
        """
        for line in (b"ERROR", b"CLIENT_ERROR bad data chunk", b"STORED", b"HD", b"VALUE x", b"VALUE k 0 x", b""):
            self.ask(Request("get", [0]))
            self.wrong(line + b"\r\n")
            self.client.lost()
        self.ask(Request("set", [0], 1))
        self.wrong(b"END\r\n")

    def test_endless(self) -> None:
        """
        A line without an end is wrong.
        """
        self.ask(Request("get", [0]))
        self.assertEqual(self.answers(b"x" * 4096), [])
        self.wrong(b"x")

    def test_unasked(self) -> None:
        """
        Bytes after the last expected reply are wrong.
        """
        self.ask(Request("get", [0]))
        self.assertIn("unexpected bytes", self.wrong(b"END\r\nEND\r\n"))

    def test_lost(self) -> None:
        """
        C{lost} returns the unanswered requests, and whether a part of a reply was received.
        """
        self.ask(Request("get", [0]), Request("quiet", [0], 1), Request("get", [0]))
        self.assertEqual(self.answers(b"EN"), [])
        unanswered, halved = self.client.lost()
        self.assertEqual(([request.kind for request in unanswered], halved), (["get", "get"], True))
        self.assertEqual(self.client.lost(), ([], False))
        self.ask(Request("get", [0]))
        self.assertEqual(self.answers(self.value(1) + b"END\r\n"), [""])

    def test_quiet(self) -> None:
        """
        A quiet C{set} has no reply. The C{get} after it shows whether it was executed, and if not, that is counted.
        """
        self.ask(Request("quiet", [0], 1), Request("get", [0]))
        self.assertEqual(self.answers(self.value(1) + b"END\r\n"), [""])
        self.assertEqual(self.client.ignored, 0)
        self.ask(Request("quiet", [0], 2), Request("get", [0]))
        self.assertEqual(self.answers(self.value(1) + b"END\r\n"), [""])
        self.assertEqual(self.client.ignored, 1)
        self.ask(Request("quiet", [0], 3), Request("get", [0]))
        self.wrong(self.value(9) + b"END\r\n")

    def test_quietUnknown(self) -> None:
        """
        If the C{get} after a quiet C{set} fails, or the connection is lost, it is unknown whether the C{set} was
        executed.
        """
        self.stored(1)
        self.ask(Request("quiet", [0], 2), Request("get", [0]))
        self.answers(b"SERVER_ERROR x\r\n")
        self.ask(Request("quiet", [0], 3), Request("get", [0]))
        self.answers(b"")
        self.client.lost()
        for number in (1, 2, 3):
            self.ask(Request("get", [0]))
            self.assertEqual(self.answers(self.value(number) + b"END\r\n"), [""])

    def test_early(self) -> None:
        """
        A read may see a later write of the same pipeline if that write then fails: the read was sent again on another
        connection, the write was not. If the write succeeds, the order of requests was violated.
        """
        for answer, right in ((b"SERVER_ERROR lost\r\n", True), (b"STORED\r\n", False)):
            self.setUp()
            self.ask(Request("get", [0]), Request("set", [0], 1))
            self.answers(self.value(1) + b"END\r\n")
            if right:
                self.assertEqual(self.answers(answer), ["lost"])
            else:
                self.assertIn("its effect was read by an earlier request", self.wrong(answer))

    def test_meta(self) -> None:
        """
        Replies to meta commands must contain the key and the opaque token of their request.
        """
        body = token(1, 7, 0, 1, 5)
        hit = b"VA %d kload:1:7:0 Oa\r\n%b\r\n" % (len(body), body)
        self.ask(Request("ms", [0], 1, tag=b"Oa"), Request("mg", [0], tag=b"Oa"), Request("mg", [1], tag=b"Ob"))
        self.assertEqual(self.answers(b"HD kload:1:7:0 Oa\r\n" + hit + b"EN\r\n"), ["", "", ""])
        self.ask(Request("mg", [1], tag=b"Ob"))
        self.assertEqual(self.answers(b"EN kload:1:7:1 Ob\r\n"), [""])
        self.ask(Request("mg", [0], tag=b"Ob"))
        self.wrong(hit)
        self.client.lost()
        self.ask(Request("ms", [0], 1, tag=b"Oa"))
        self.wrong(b"HD kload:1:7:0 Ob\r\n")

    def test_batch(self) -> None:
        """
        Batches are random but the same for the same seed. They have no more requests than allowed, and of the given
        kinds only.
        """

        def batches(seed: int) -> list[bytes]:
            client = Client(1, Settings((HOST, 1), mark=1, seed=seed, kinds={"get": 1, "set": 1}))
            return [client.batch(3, 0.0) for _ in range(20)]

        self.assertEqual(batches(1), batches(1))
        self.assertNotEqual(batches(1), batches(2))
        for batch in batches(1):
            words = re.findall(rb"^(\w+) ", batch, re.M)
            self.assertTrue(1 <= len(words) <= 3)
            self.assertLessEqual(set(words), {b"get", b"set"})


class MissingClientTests(ClientTests):
    """
    Tests for L{Client} if servers may lose values: only misses are treated differently.
    """

    misses = True

    def test_miss(self) -> None:
        """
        A miss is always correct, and the value from before it does not come back.
        """
        self.stored(1)
        self.ask(Request("get", [0]))
        self.assertEqual(self.answers(b"END\r\n"), [""])
        self.ask(Request("get", [0]))
        self.wrong(self.value(1) + b"END\r\n")

    def test_delete(self) -> None:
        """
        C{NOT_FOUND} is always correct.
        """
        self.stored(1)
        self.ask(Request("delete", [0], 0))
        self.assertEqual(self.answers(b"NOT_FOUND\r\n"), [""])


class LoadTests(SynchronousTestCase):
    """
    Tests for L{Load} with a real memcached, through a relay that injects faults.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start memcached and the relay.
        """
        self.memcached = Memcached("-t", "1").start()
        self.addCleanup(self.memcached.stop)
        self.relay = Relay(self.memcached.address).start()
        self.addCleanup(self.relay.stop)

    def load(
        self, address: Address | None = None, clients: int = 10, seconds: float = 30.0, **settings: object
    ) -> Load:
        """
        Start a load.
        """
        made = Load(address or self.relay.address, clients=clients, seconds=seconds, **settings)
        self.addCleanup(made.kill)
        return made.start()

    def assertClean(self, report: Report) -> None:
        """
        Assert that all requests succeeded.
        """
        self.assertEqual(report["wrong"], [])
        for what in ("wrongs", "stuck", "lost", "halved", "closed", "refused", "ignored", "lastError"):
            self.assertEqual(report[what], 0, what)
        self.assertEqual(report["errors"], {})
        self.assertEqual(report["connected"], report["clients"])
        self.assertGreater(report["ok"], report["clients"])

    def test_clean(self) -> None:
        """
        memcached answers all kinds of requests of many clients correctly, including meta commands.
        """
        begun = time.monotonic()
        report = self.load(self.memcached.address, 200, 0.5, kinds=META_KINDS).report()
        self.assertGreater(time.monotonic(), begun + 0.5)
        self.assertClean(report)
        self.assertGreater(report["missed"], 0)
        self.assertEqual(sum(second["ok"] for second in report["timeline"]), report["ok"])
        self.assertTrue(0 < report["median"] <= report["p99"] <= report["slowest"])
        self.assertTrue(begun < report["begun"] < report["ended"] < time.monotonic())

    def test_nutcracker(self) -> None:
        """
        twemproxy passes the load if nothing fails.
        """
        with Nutcracker(upstream=[self.memcached.address]) as nutcracker:
            self.assertClean(load.run(nutcracker.address, clients=50, seconds=0.5))

    test_nutcracker.skip = missing("memcached", "nutcracker")  # type: ignore[attr-defined]

    def test_unix(self) -> None:
        """
        A load can use a UNIX socket, even if the queue of its listener is short.
        """
        with Memcached("-t", "1", "-b", "2", address="memcached.sock") as memcached:
            self.assertClean(self.load(memcached.address, 100, 0.3).report())

    def test_requests(self) -> None:
        """
        A load can end after a number of requests for each client.
        """
        report = self.load(requests=20, kinds={"get": 1}).report()
        self.assertEqual(report["ok"], 10 * 20)
        self.assertClean(report)

    def test_finish(self) -> None:
        """
        A load can be ended early, and it waits for the outstanding replies.
        """
        self.assertClean(self.load(pause=0.01).finish())

    def spoilt(self, change: Callable[[bytes], bytes]) -> Report:
        """
        Run a load while replies are changed.
        """
        running = self.load(kinds={"get": 1, "set": 1, "delete": 1}, sizes=(10,))
        self.relay.set(edit(change))
        until(lambda: self.relay.accepted > 12, what="clients that come back after a wrong answer")
        return running.finish()

    def test_swapped(self) -> None:
        """
        Replies in the wrong order are wrong.
        """
        pattern = re.compile(rb"(STORED\r\n)((?:VALUE .*\r\n.*\r\n)?END\r\n)")
        report = self.spoilt(lambda data: pattern.sub(rb"\2\1", data))
        self.assertGreater(report["wrongs"], 0)
        self.assertTrue(report["wrong"])

    def test_crossed(self) -> None:
        """
        A reply that belongs to another client is wrong.
        """
        last = [b""]

        def cross(data: bytes) -> bytes:
            if data.startswith(b"VALUE"):
                data, last[0] = last[0] or data, data
            return data

        self.assertIn("belongs to another request", " ".join(self.spoilt(cross)["wrong"]))

    def test_unasked(self) -> None:
        """
        Unexpected bytes are wrong.
        """
        running = self.load()
        self.relay.set(inject(b"END\r\n", times=3))
        until(lambda: self.relay.accepted >= 13)
        self.assertEqual(running.finish()["wrongs"], 3)

    def test_restart(self) -> None:
        """
        When a server is killed and restarted, connections are lost, new ones are refused, and then requests succeed
        again. No reply is wrong if misses are allowed.
        """
        running = self.load(self.memcached.address, misses=True)
        self.memcached.kill()
        self.memcached.start()
        until(lambda: int(self.memcached.stats()["curr_connections"]) > 10)
        until(lambda: int(self.memcached.stats()["cmd_get"]) > 1000)
        report = running.finish()
        self.assertEqual((report["wrong"], report["stuck"]), ([], 0))
        self.assertEqual(report["closed"], 10)
        self.assertGreaterEqual(report["lost"], report["halved"])
        self.assertTrue(report["begun"] < report["lastError"] < report["resumed"][1] < report["ended"])
        self.assertTrue(report["resumed"][0] <= report["resumed"][1])

    def test_lostValues(self) -> None:
        """
        A server that loses its values is wrong unless misses are allowed.
        """
        running = self.load(self.memcached.address, kinds={"get": 3, "set": 1}, pause=0.001)
        until(lambda: int(self.memcached.stats()["cmd_set"]) > 500)
        with socket.create_connection(self.memcached.address) as client:  # type: ignore[arg-type]
            client.sendall(b"flush_all\r\n")
            until(lambda: int(self.memcached.stats()["cmd_flush"]) > 0)
        asked = int(self.memcached.stats()["cmd_get"])
        until(lambda: int(self.memcached.stats()["cmd_get"]) > asked + 500)
        self.assertIn("a miss for key", " ".join(running.finish()["wrong"]))

    def test_stuck(self) -> None:
        """
        Requests that are never answered are stuck, and their clients connect again.
        """
        running = self.load(timeout=0.3, kinds={"get": 1}, depth=1)
        self.relay.set(BLACKHOLE)
        until(lambda: self.relay.accepted >= 20)
        self.relay.set(PASS)
        report = running.finish()
        self.assertGreaterEqual(report["stuck"], 10)
        self.assertEqual(report["wrong"], [])

    def test_halved(self) -> None:
        """
        Connections that are lost in the middle of a reply are counted.
        """
        self.relay.set(cut(after=3, times=4))
        running = self.load(pause=0.01)
        until(lambda: self.relay.accepted >= 14)
        report = running.finish()
        self.assertEqual((report["closed"], report["halved"], report["idle"]), (4, 4, 0))
        self.assertGreaterEqual(report["lost"], 4)

    def test_refused(self) -> None:
        """
        If no server listens, all connections are refused, and the load still begins and ends.
        """
        report = self.load((HOST, freePort()), seconds=0.3).report()
        self.assertEqual((report["connected"], report["ok"]), (0, 0))
        self.assertGreaterEqual(report["refused"], 10)
        self.assertEqual(report["resumed"], [0.0, 0.0])

    def test_turnedAway(self) -> None:
        """
        The reply that there are too many connections counts as a refused connection.
        """
        self.relay.set(inject(b"ERROR Too many open connections\r\n", times=2))
        report = self.load(seconds=0.3, reconnect=False).report()
        self.assertEqual((report["turnedAway"], report["refused"], report["wrong"]), (2, 2, []))
        self.assertGreater(report["ok"], 0)

    def test_noReconnect(self) -> None:
        """
        Clients do not connect again if C{reconnect} is false.
        """
        running = self.load(reconnect=False)
        self.relay.set(reset())
        until(lambda: self.relay.connections == 0)
        report = running.finish()
        self.assertEqual((report["closed"], self.relay.accepted), (10, 10))

    def test_dead(self) -> None:
        """
        The death of the child process is an error.
        """
        running = self.load()
        os.kill(running.pid, signal.SIGKILL)
        self.assertRaises(ServerFailed, running.report)

    def test_badSettings(self) -> None:
        """
        Unknown settings and unknown kinds of requests are errors.
        """
        self.assertRaises(TypeError, Load, self.relay.address, colour="blue")
        self.assertRaises(ValueError, Load, self.relay.address, kinds={"dance": 1})
