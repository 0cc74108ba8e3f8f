# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the effects of memcached's requests, and for requests that are refused because of them.
"""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire import ADMIT, ANSWER, BROADCAST, CLOSE, DUMP, MORE, REPLACE, SPLIT
from txconnpool.wire.effects import EFFECTS, READS, Effects
from txconnpool.wire.memcache.auth import LoginReader
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.effects import ORDINARY, POSSIBLE
from txconnpool.wire.memcache.replies import CACHE_MEMLIMIT, LRU_CRAWLER, STATS
from txconnpool.wire.memcache.requestreader import RequestReader

#: The time in these tests, in seconds since the epoch.
NOW: Final = 1_700_000_000.0

#: Requests, and their effects as the first letters of C{@read @write @delete @admin}.
TABLE: Final = (
    (b"get a", "r"),
    (b"get a b", "r"),
    (b"get" + b" a" * 60, "r"),
    (b"gets a", "r"),
    (b"gets a b", "r"),
    (b"gat 0 a", "rw"),
    (b"gat 60 a b", "rw"),
    (b"gat -1 a", "rwd"),
    (b"gat -1" + b" a" * 60, "rwd"),
    (b"gats 60 a", "rw"),
    (b"gats -1 a b", "rwd"),
    (b"gats 2592001 a", "rwd"),
    (b"set a 0 0 1\r\nx", "w"),
    (b"set a 0 60 1\r\nx", "w"),
    (b"set a 0 60 1 noreply\r\nx", "w"),
    (b"set a 0 2592000 1\r\nx", "w"),
    (b"set a 0 1700000001 1\r\nx", "w"),
    (b"set a 0 -1 1\r\nx", "wd"),
    (b"set a 0 -1 1 noreply\r\nx", "wd"),
    (b"set a 0 2592001 1\r\nx", "wd"),
    (b"set a 0 1700000000 1\r\nx", "wd"),
    (b"add a 0 0 1\r\nx", "w"),
    (b"add a 0 -1 1\r\nx", "wd"),
    (b"replace a 0 0 1\r\nx", "w"),
    (b"replace a 0 -1 1\r\nx", "wd"),
    (b"append a 0 0 1\r\nx", "w"),
    (b"append a 0 -1 1\r\nx", "wd"),
    (b"prepend a 0 0 1\r\nx", "w"),
    (b"prepend a 0 -1 1\r\nx", "wd"),
    (b"cas a 0 0 1 7\r\nx", "w"),
    (b"cas a 0 -1 1 7\r\nx", "wd"),
    (b"cas a 0 -1 1 7 noreply\r\nx", "wd"),
    (b"incr a 1", "w"),
    (b"decr a 1 noreply", "w"),
    (b"touch a 0", "w"),
    (b"touch a 60", "w"),
    (b"touch a -1", "wd"),
    (b"touch a -1 noreply", "wd"),
    (b"touch a 999999999", "wd"),
    (b"touch a +60", "w"),
    (b"touch a 4294967295", "wd"),
    (b"touch a 2147483648", "wd"),
    (b"touch a 4294967356", "w"),
    (b"touch a \t-1\tx noreply", "wd"),
    (b"gat 4294967295 a b", "rwd"),
    (b"set a 0 4294967295 1\r\nx", "wd"),
    (b"set a 0 4294967295 1 noreply\r\nx", "wd"),
    (b"set a 0 +60 1\r\nx", "w"),
    (b"mg a T4294967295", "rwd"),
    (b"mg a T+60", "rw"),
    (b"ms a 1 T4294967295\r\nx", "wd"),
    (b"ma a T9999999999", "wd"),
    (b"delete a", "d"),
    (b"delete a 0", "d"),
    (b"delete a noreply", "d"),
    (b"flush_all", "da"),
    (b"flush_all 10 noreply", "da"),
    (b"verbosity 1", "a"),
    (b"verbosity 1 noreply", "a"),
    (b"stats", "a"),
    (b"stats conns", "a"),
    (b"version", ""),
    (b"mn", ""),
    (b"me a", "r"),
    (b"mg a", "r"),
    (b"mg a v", "r"),
    (b"mg a s v q k Ox", "r"),
    (b"mg YWJj b v", "r"),
    (b"mg a C7 v", "r"),
    (b"mg a E7 v", "r"),
    (b"mg a N30", "rw"),
    (b"mg a N30 v", "rw"),
    (b"mg a v q N30", "rw"),
    (b"mg YWJj b N30 v", "rw"),
    (b"mg a N-1 v", "rw"),
    (b"mg a R30 v", "rw"),
    (b"mg a T30", "rw"),
    (b"mg a T0 v", "rw"),
    (b"mg a T-1", "rwd"),
    (b"mg a v T-1 q", "rwd"),
    (b"mg YWJj b T-1", "rwd"),
    (b"mg a T2592001 v", "rwd"),
    (b"ms a 1\r\nx", "w"),
    (b"ms a 1 q\r\nx", "w"),
    (b"ms a 1 T30 F1 c\r\nx", "w"),
    (b"ms a 1 C7 I\r\nx", "w"),
    (b"ms YWJj 1 b\r\nx", "w"),
    *((b"ms a 1 M%c\r\nx" % mode, "w") for mode in b"EAPRS"),
    (b"ms a 1 MA N30\r\nx", "w"),
    (b"ms a 1 T-1\r\nx", "wd"),
    (b"ms a 1 q T-1\r\nx", "wd"),
    (b"ms YWJj 1 b T-1\r\nx", "wd"),
    (b"ms 1 1 T1700000000\r\nx", "wd"),
    (b"md a", "d"),
    (b"md a q", "d"),
    (b"md a C7", "d"),
    (b"md a I T30", "d"),
    (b"md a I T-1", "d"),
    (b"md a x", "d"),
    (b"md YWJj b", "d"),
    (b"ma a", "w"),
    (b"ma a v q", "w"),
    (b"ma a MD D2", "w"),
    (b"ma a N30 J1", "w"),
    (b"ma a T30", "w"),
    (b"ma a T-1 v", "wd"),
    (b"ma YWJj b T-1", "wd"),
)


def effects(letters: str) -> Effects:
    """
    @return: the effects with these first letters.
    """
    return frozenset(effect for effect in EFFECTS if effect.decode()[1] in letters)


def reader(denied: Effects = frozenset(), allowed: Effects | None = None) -> RequestReader:
    """
    @return: a reader whose time is L{NOW}.
    """
    return RequestReader(4096, denied, allowed, lambda: NOW)


def words(text: str) -> frozenset[bytes]:
    """
    @return: the words of a setting.
    """
    return frozenset(text.encode().split())


class EffectTests(SynchronousTestCase):
    """
    Tests for the effects of requests: each request of L{TABLE} with each effect denied, and with few allowed.
    """

    def check(self, wire: RequestReader, request: bytes, accepted: bool) -> None:
        """
        Check that a request is accepted with the same frame as without restrictions, or refused as a whole.
        """
        data = request + b"\r\n"
        name = request.split()[0]
        expected = reader().read(data, 0, 1)
        if not accepted:
            silent = b"noreply" in request
            refusal = b"" if silent else b"CLIENT_ERROR " + name + b" not allowed\r\n"
            expected = ANSWER, len(data), 0, refusal
        self.assertEqual(wire.read(data + b"mn\r\n", 0, 1), expected, request)

    def test_denied(self) -> None:
        """
        A request is refused if one of its effects is denied, and accepted if all others are.
        """
        for request, letters in TABLE:
            its = effects(letters)
            for effect in EFFECTS:
                self.check(reader(denied=frozenset((effect,))), request, effect not in its)
            self.check(reader(denied=EFFECTS - its), request, True)

    def test_allowed(self) -> None:
        """
        A request is accepted if exactly its effects are allowed, and refused if one of them is not.
        """
        for request, letters in TABLE:
            its = effects(letters)
            self.check(reader(allowed=its), request, True)
            for effect in its:
                self.check(reader(allowed=EFFECTS - {effect}), request, False)

    def test_named(self) -> None:
        """
        The name of a command allows what the command does without flags.
        """
        for request, letters in TABLE:
            name = request.split()[0]
            self.check(reader(allowed=frozenset((name,))), request, effects(letters) <= ORDINARY[name])
            self.check(reader(denied=frozenset((name,))), request, False)
            self.assertLessEqual(effects(letters), POSSIBLE[name])

    def test_complete(self) -> None:
        """
        The table has all commands, with all effects that they can have, but those of L{AdministrationTests}.
        """
        others = (b"quit", b"lru_crawler", b"cache_memlimit")
        found = {name: frozenset[bytes]() for name in ORDINARY if name not in others}
        for request, letters in TABLE:
            found[request.split()[0]] |= effects(letters)
        self.assertEqual(found, {name: its for name, its in POSSIBLE.items() if name not in others})


class AdministrationTests(SynchronousTestCase):
    """
    Tests for commands whose refusal is special.
    """

    def test_dumps(self) -> None:
        """
        Dumps of keys need the effect C{@admin}, or the name of the command. Without it the errors are those of
        C{memcached -X}. After that for C{lru_crawler} the client is closed.
        """
        for request, command, refusal, refused in (
            (b"stats cachedump 1 0\r\n", STATS, b"CLIENT_ERROR stats cachedump not allowed\r\n", ANSWER),
            (b"lru_crawler metadump all\r\n", LRU_CRAWLER, b"ERROR metadump not allowed\r\n", CLOSE),
            (b"lru_crawler mgdump hash\r\n", LRU_CRAWLER, b"ERROR mgdump not allowed\r\n", CLOSE),
        ):
            name = command.name.encode()
            payload = command, request, refusal, refused is CLOSE
            for wire in (reader(), reader(allowed=words("@admin")), reader(allowed=frozenset((name,)))):
                self.assertEqual(wire.read(request + b"get a\r\n", 0, 9), (DUMP, len(request), 0, payload))
            for wire in (reader(denied=words("@admin")), reader(denied=frozenset((name,))), reader(allowed=READS)):
                self.assertEqual(wire.read(request + b"get a\r\n", 0, 9), (refused, len(request), 0, refusal))

    def test_unsupported(self) -> None:
        """
        If the servers close their connections at C{lru_crawler}, it is refused.
        """
        wire = reader()
        for _ in range(2):
            wire.unsupported.closed("a", LRU_CRAWLER)
        what, _, _, line = wire.read(b"lru_crawler metadump all\r\n", 0, 1)
        self.assertEqual(
            (what, line), (ANSWER, b"ERROR lru_crawler is not supported: a closes its connections at it\r\n")
        )

    def test_upstream(self) -> None:
        """
        C{stats upstream} takes the same words as C{stats}.
        """
        self.assertEqual(reader().read(b"stats upstream cachedump 1 2\r\n", 0, 1)[3][1], b"stats cachedump 1 2\r\n")

    def test_cacheMemlimit(self) -> None:
        """
        The size of the servers' memory is changed only by clients that are allowed to by the name of the command.
        """
        every = EFFECTS | {b"cache_memlimit"}
        for wire in (reader(), reader(denied=words("@read")), reader(allowed=EFFECTS), reader(every, EFFECTS)):
            self.assertEqual(
                wire.read(b"cache_memlimit 64\r\n", 0, 1),
                (ANSWER, 19, 0, b"CLIENT_ERROR cache_memlimit not allowed\r\n"),
            )
            self.assertEqual(wire.read(b"cache_memlimit 64 noreply\r\n", 0, 1), (ANSWER, 27, 0, b""))
        wire = reader(allowed=every)
        for request, silent in (
            (b"cache_memlimit 64\r\n", False),
            (b"cache_memlimit 64 x\r\n", False),
            (b"cache_memlimit 64 noreply\r\n", True),
        ):
            what, end, _, (command, sent) = wire.read(request, 0, 1)
            self.assertEqual((what, end, sent), (BROADCAST, len(request), b"cache_memlimit 64\r\n"))
            self.assertEqual(
                (command.name, command.visible(b"OK\r\n")), ("cache_memlimit", b"" if silent else b"OK\r\n")
            )
        for bad in (b"cache_memlimit\r\n", b"cache_memlimit x\r\n", b"cache_memlimit 64 x y\r\n"):
            self.assertEqual(wire.read(bad, 0, 1), (ANSWER, len(bad), 0, b"ERROR\r\n"))
        small = b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
        self.assertEqual(CACHE_MEMLIMIT.join([b"OK\r\n", small]), small)
        self.assertEqual(CACHE_MEMLIMIT.join([b"OK\r\n", b"OK\r\n"]), b"OK\r\n")


class RefusalTests(SynchronousTestCase):
    """
    Tests for frames of restricted clients beyond single requests.
    """

    def read(self, wire: RequestReader, data: bytes) -> bytes:
        """
        Read a pipeline.

        @return: what is sent upstream, and the answers of the proxy in angle brackets.
        """
        pos, found = 0, b""
        while pos < len(data):
            what, end, count, payload = wire.read(data, pos, 10)
            if what is ANSWER:
                found += b"<%b>" % payload
            else:
                self.assertTrue(count, what)
                found += data[pos:end] if payload is None else payload
            pos = end
        return found.replace(b"\r\n", b".")

    def test_pipeline(self) -> None:
        """
        In a pipeline, refusals are in the place of the refused requests. Gets are merged as ever.
        """
        data = (
            b"get a\r\nget b\r\nmg k N30 v\r\nget c\r\nset a 0 0 1\r\nx\r\nget d\r\nmd a q\r\n"
            b"set a 0 0 1 noreply\r\nx\r\ntouch a -1\r\nmg k v\r\ngat -1 a\r\nversion\r\n"
        )
        refused = (
            b"get a b.<CLIENT_ERROR mg not allowed.>get c.<CLIENT_ERROR set not allowed.>get d."
            b"<CLIENT_ERROR md not allowed.><><CLIENT_ERROR touch not allowed.>mg k v.<CLIENT_ERROR gat not allowed.>"
            b"version."
        )
        self.assertEqual(self.read(reader(denied=words("@write @delete")), data), refused)
        self.assertEqual(self.read(reader(allowed=words("@read")), data), refused)
        self.assertEqual(self.read(reader(allowed=words("get mg")), data), refused)

    def test_getDenied(self) -> None:
        """
        Gets that could be merged are refused one by one.
        """
        refusal = b"<CLIENT_ERROR get not allowed.>"
        self.assertEqual(
            self.read(reader(denied=words("@read")), b"get a\r\nget b\r\nset a 0 0 1\r\nx\r\n"),
            refusal * 2 + b"set a 0 0 1.x.",
        )

    def test_mistakes(self) -> None:
        """
        Errors of a request, and incomplete requests, take precedence, as with denied names.
        """
        wire = reader(denied=words("@read @write @delete @admin"))
        for data, what in (
            (b"mg a T\r\n", b"CLIENT_ERROR bad token in command line format\r\n"),
            (b"touch a x\r\n", b"CLIENT_ERROR invalid exptime argument\r\n"),
            (b"gat x a\r\n", b"CLIENT_ERROR invalid exptime argument\r\n"),
            (b"gat\r\n", b"ERROR\r\n"),
            (b"set a 0 x 1\r\nx\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        ):
            self.assertEqual(wire.read(data, 0, 1)[0::3], (ANSWER, what))
        self.assertEqual(wire.read(b"set a 0 0 1\r\n", 0, 1)[0], MORE)

    def test_unknownFlags(self) -> None:
        """
        A repeated flag cannot hide another one: the request is rejected.
        """
        wire = reader(denied=words("@delete"))
        self.assertEqual(wire.read(b"mg a T30 T-1\r\n", 0, 1)[0::3], (ANSWER, b"CLIENT_ERROR duplicate flag\r\n"))

    def test_tooLarge(self) -> None:
        """
        The old value of a key whose new value is too large is deleted only for clients that may delete.
        """
        error = b"SERVER_ERROR object too large for cache\r\n"
        for request in (b"set a 0 0 5000\r\n", b"ms a 5000\r\n"):
            name = request.split()[0].decode()
            for denied, allowed in (("@delete", None), ("", f"get {name}"), ("", "@write")):
                wire = reader(words(denied), None if allowed is None else words(allowed))
                self.assertEqual(wire.read(request, 0, 1), (ANSWER, len(request) + 5002, 0, error))
            for denied, allowed in (("@read", None), ("", f"{name} @delete"), ("", "@write @delete")):
                wire = reader(words(denied), None if allowed is None else words(allowed))
                self.assertIs(wire.read(request, 0, 1)[0], REPLACE)
            refusal = f"CLIENT_ERROR {name} not allowed\r\n".encode()
            self.assertEqual(reader(words("@write")).read(request, 0, 1)[0::3], (ANSWER, refusal))
        silent = b"set a 0 0 5000 noreply\r\n"
        self.assertEqual(reader(words("@delete")).read(silent, 0, 1)[0::3], (ANSWER, b""))

    def test_accepted(self) -> None:
        """
        Requests that are split or broadcast are so if they are permitted.
        """
        wire = reader(allowed=words("@read @write flush_all"))
        self.assertIs(wire.read(b"get" + b" a" * 60 + b"\r\n", 0, 1)[0], SPLIT)
        self.assertIs(wire.read(b"gat 5" + b" a" * 60 + b"\r\n", 0, 1)[0], SPLIT)
        self.assertIs(wire.read(b"flush_all\r\n", 0, 1)[0], BROADCAST)

    def test_changed(self) -> None:
        """
        Limits that change are in force for readers of existing clients, also for the most common requests.
        """
        dialect = Memcache()
        _, _, _, wire = dialect.requestReader().read(b"s", 0, 1)
        request = b"set a 0 0 1\r\nx\r\n"
        before = wire.read(request, 0, 1)
        dialect.limit(1024, words("@write"), None)
        self.assertIs(wire.read(request, 0, 1)[0], ANSWER)
        dialect.limit(1024, frozenset(), None)
        self.assertEqual(wire.read(request, 0, 1), before)

    def test_login(self) -> None:
        """
        A login, which has the form of a set, is not restricted.
        """
        dialect = Memcache(1024, words("@write set"), words("@read"))
        login = dialect.loginReader(lambda login: login == (b"joe", b"secret"))
        _, _, _, login = login.read(b"s", 0, 1)
        self.assertIsInstance(login, LoginReader)
        self.assertIs(login.read(b"set a 0 -1 10\r\njoe secret\r\n", 0, 1)[0], ADMIT)
