# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.clients}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.redis.clients import Reading, factsOf
from txconnpool.wire.redis.dialect import Redis

#: What is 0 for all clients.
BUFFERS = "qbuf-free=0 argv-mem=0 obl=0 oll=0"

#: The description of a client of C{Reading} that has done nothing yet.
PLAIN = (
    "addr=127.0.0.1:1 laddr=127.0.0.1:6380 name= age=1 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 "
    f"{BUFFERS} omem=0 tot-mem=0 "
    "user=default redir=-1 resp=2"
)


class ClientTests(SynchronousTestCase):
    """
    Tests for a client that asks about itself and others.
    """

    def setUp(self) -> None:
        """
        Make three other clients: 1 is in a transaction, 2 subscribes, and 3 is blocked.
        """
        dialect = Redis()
        others = [Reading(dialect) for _ in range(3)]
        others[0].ask("client setname a", "select 5", "multi", "get k", "get k")
        others[1].ask("hello 3 auth default x", "client tracking on", "subscribe x y", "psubscribe *")
        facts = [
            factsOf(others[0].reader, "127.0.0.1:11", kept=7, unread=8, visible=False),
            factsOf(others[1].reader, "[::1]:12", age=99.0, ending=True),
            factsOf(others[2].reader, "127.0.0.1:6380", blocked=True),
        ]
        self.reading = Reading(dialect, others=facts)

    def ask(self, text: str) -> str:
        """
        @return: the reply to a request.
        """
        (event,) = self.reading.ask(text)
        return event.removeprefix("< ")

    def ids(self, text: str) -> list[int]:
        """
        @return: the numbers of the clients that a reply has.
        """
        return [int(word[3:]) for word in self.ask(text).split() if word.startswith("id=")]

    def test_info(self) -> None:
        """
        A client gets its own line.
        """
        self.assertEqual(self.ask("client info").split(" ", 1)[1], f"id=4 {PLAIN}")
        self.reading.ask("hello 3")
        self.assertRegex(self.ask("client info"), r"^=\d+ txt:id=4 .*resp=3$")

    def test_list(self) -> None:
        """
        All clients are listed, in the order in which they came, without addresses that others may not see.
        """
        lines = self.ask("client list").splitlines()
        self.assertEqual(
            [lines[0].split(" ", 1)[1], *lines[1:]],
            [
                "id=1 addr= laddr= name=a age=1 idle=0 flags=x db=5 sub=0 psub=0 ssub=0 multi=2 qbuf=7 "
                f"{BUFFERS} omem=8 tot-mem=15 user=default redir=-1 resp=2",
                "id=2 addr=[::1]:12 laddr=127.0.0.1:6380 name= age=99 idle=0 flags=Ptc db=0 sub=2 psub=1 ssub=0 "
                f"multi=-1 qbuf=0 {BUFFERS} omem=0 tot-mem=0 user=default redir=0 resp=3",
                "id=3 addr=127.0.0.1:6380 laddr=127.0.0.1:6380 name= age=1 idle=0 flags=bU db=0 sub=0 psub=0 ssub=0 "
                f"multi=-1 qbuf=0 {BUFFERS} omem=0 tot-mem=0 user=default redir=-1 resp=2",
                f"id=4 {PLAIN}",
            ],
        )

    def test_some(self) -> None:
        """
        Some of them are listed by type, or by their numbers in the order of these.
        """
        self.assertEqual(self.ids("client list type normal"), [1, 3, 4])
        self.assertEqual(self.ids("CLIENT LIST TYPE PUBSUB"), [2])
        self.assertEqual(self.ids("client list type master"), [])
        self.assertEqual(self.ids("client list id 4 99 1 4"), [4, 1, 4])

    def test_kill(self) -> None:
        """
        Clients are closed that match all conditions, the asking one only if it does not skip itself.
        """
        for text, events in (
            ("client kill 127.0.0.1:11", ["+OK", 1]),
            ("client kill 127.0.0.1:99", ["-ERR No such client"]),
            ("client kill 127.0.0.1:1", ["+OK", 4]),
            ("client kill id 2", [":1", 2]),
            ("client kill id 4", [":0"]),
            ("client kill id 4 skipme no", [":1", 4]),
            ("CLIENT KILL TYPE PUBSUB", [":1", 2]),
            ("client kill type replica", [":0"]),
            ("client kill addr [::1]:12", [":1", 2]),
            ("client kill laddr 127.0.0.1:6380 type normal", [":2", 1, 3]),
            ("client kill user default skipme yes", [":3", 1, 2, 3]),
            ("client kill maxage 50", [":1", 2]),
            ("client kill maxage 2 id 1", [":0"]),
        ):
            with self.subTest(text):
                first, *closed = events
                expected = [f"< {first}", *(f"CLOSE {number}" for number in closed)]
                self.assertEqual(self.reading.ask(text), expected)

    def test_invalid(self) -> None:
        """
        Other options are errors of Redis.
        """
        for text, reply in (
            ("client list x", "syntax error"),
            ("client list id", "syntax error"),
            ("client list id x", "Invalid client ID"),
            ("client list id 99999999999999999999", "Invalid client ID"),
            ("client list type x", "Unknown client type 'x'"),
            ("client list type normal id 1", "syntax error"),
            ("client kill id 0", "client-id should be greater than 0"),
            ("client kill id x", "client-id should be greater than 0"),
            ("client kill id 1 id", "syntax error"),
            ("client kill x y", "syntax error"),
            ("client kill type x", "Unknown client type 'x'"),
            ("client kill user x", "No such user 'x'"),
            ("client kill skipme x", "syntax error"),
            ("client kill maxage x", "maxage is not an integer or out of range"),
            ("client kill maxage 0", "maxage should be greater than 0"),
        ):
            self.assertEqual(self.ask(text), f"-ERR {reply}", text)

    def test_users(self) -> None:
        """
        The user is the one as which a client has logged in last.
        """
        reading = Reading(check=lambda login: login in ((b"me", b"x"), (b"default", b"y")))
        reading.ask("auth me x")
        self.assertIn("user=me", reading.ask("client info")[0])
        self.assertEqual(reading.ask("client kill user me skipme no"), ["< :1", "CLOSE 1"])
        self.assertEqual(reading.ask("client kill user other"), ["< :0"])
        reading.ask("hello 2 auth default y")
        self.assertIn("user=default", reading.ask("client info")[0])
        reading.ask("auth me x", "reset")
        self.assertEqual(reading.ask("client info"), ["< -NOAUTH Authentication required."])

    def test_silent(self) -> None:
        """
        A client without replies gets none, but its request is carried out.
        """
        self.reading.ask("client reply off")
        self.assertEqual(self.reading.ask("client list", "client kill id 1"), ["< ", "< ", "CLOSE 1"])

    def test_forbidden(self) -> None:
        """
        Requests about other clients are C{@admin}; those about the client itself are always answered.
        """
        for denied, allowed in ((b"@admin", None), (b"client|list client|kill", None), (b"", b"@read")):
            words = frozenset(allowed.split()) if allowed is not None else None
            reading = Reading(Redis(denied=frozenset(denied.split()), allowed=words))
            for name in ("client|list", "client|kill"):
                text = name.replace("|", " ") + " id 1"
                self.assertEqual(
                    reading.ask(text), [f"< -ERR unknown command '{name}': this proxy does not allow it"], text
                )
            self.assertIn("id=1 ", reading.ask("client info")[0])
        self.assertIn("id=1 ", Reading(Redis(allowed=frozenset((b"client|list",)))).ask("client list")[0])
