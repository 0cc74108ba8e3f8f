# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.suggestions}.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.suggestions import suggestClient, suggestServer
from txconnpool.net.syntax import checkClient, checkServer

#: Wrong endpoint strings, and what to write for a server and for an address to listen on.
WRONG = (
    ("11212", "tcp:127.0.0.1:11212", "tcp:11212:interface=127.0.0.1"),
    (":11212", "tcp:127.0.0.1:11212", "tcp:11212:interface=127.0.0.1"),
    ("*:11212", "tcp:127.0.0.1:11212", "tcp:11212:interface=127.0.0.1"),
    ("0.0.0.0:22121", "tcp:127.0.0.1:22121", "tcp:22121:interface=127.0.0.1"),
    ("[::]:1", "tcp:127.0.0.1:1", "tcp:1:interface=127.0.0.1"),
    ("[::1]:11211", r"tcp:\:\:1:11211", r"tcp6:11211:interface=\:\:1"),
    ("tcp6:::1:11211", r"tcp:\:\:1:11211", r"tcp6:11211:interface=\:\:1"),
    ("[fd00::7:8]:1", r"tcp:fd00\:\:7\:8:1", r"tcp6:1:interface=fd00\:\:7\:8"),
    ("10.0.0.1:11211", "tcp:10.0.0.1:11211", "tcp:11211:interface=10.0.0.1"),
    ("10.0.0.1:11211:1", "tcp:10.0.0.1:11211 weight=1", "tcp:11211:interface=10.0.0.1"),
    ("10.0.0.1:11211:3 one", "tcp:10.0.0.1:11211 weight=3 label=one", "tcp:11211:interface=10.0.0.1"),
    ("tcp://10.0.0.1:11211", "tcp:10.0.0.1:11211", "tcp:11211:interface=10.0.0.1"),
    ("memcached://cache.example:11211/", "tcp:cache.example:11211", "tcp:11211:interface=ADDRESS"),
    ("redis://127.0.0.1:6380", "tcp:127.0.0.1:6380", None),
    ("valkeys://cache.example", "tls:cache.example:6379", None),
    ("redis://[::1]", r"tcp:\:\:1:6379", None),
    ("redis://127.0.0.1/0", "tcp:127.0.0.1:6379 with an option for the database", None),
    ("rediss://u:p@h:1/2?x=y", "tls:h:1 with an option for the login and one for the database", None),
    ("localhost:1", "tcp:localhost:1", "tcp:1:interface=127.0.0.1"),
    ("cache-1:1", "tcp:cache-1:1", "tcp:1:interface=ADDRESS"),
    ("/run/x.sock", "unix:/run/x.sock", "unix:/run/x.sock"),
    ("unix:///run/x.sock", "unix:/run/x.sock", "unix:/run/x.sock"),
    ("cache.example", "tcp:cache.example:11211", None),
    ("tcp:cache-1", "tcp:cache-1:11211", None),
    ("::1", r"tcp:\:\:1:11211", None),
    ("tcp6:1:interface=::1", None, r"tcp6:1:interface=\:\:1"),
    ("tcp:1:interface=::", None, "tcp:1:interface=127.0.0.1"),
    ("ssl:cache.example:11211", "tls:cache.example:11211", None),
    ("tls:443", "tls:443:11211", "ssl:443:privateKey=FILE:certKey=FILE:interface=127.0.0.1"),
    ("no", None, None),
    ("", None, None),
    ("=", None, None),
    ("udp:1", None, None),
    ("fd:3", None, None),
    ("10.0.0.1:99999", None, None),
    ("smtp:a:b", None, None),
)


class SuggestionTests(SynchronousTestCase):
    """
    Tests for L{suggestClient} and L{suggestServer}.
    """

    def test_one(self) -> None:
        """
        What to write is suggested where it is clear.
        """
        for text, client, server in WRONG:
            for found, right in ((suggestClient(text), client), (suggestServer(text), server)):
                self.assertEqual(found, None if right is None else f"did you mean {right}?", text)

    def test_right(self) -> None:
        """
        What is suggested is right, and does not listen on all addresses.
        """
        for _, client, server in WRONG:
            if client is not None:
                checkClient(client.partition(" ")[0])
            if server is not None:
                checkServer(server)
                self.assertTrue(server.startswith("unix:") or re.search(r"interface=(?!0\.0\.0\.0|(\\:)*$)", server))

    def test_several(self) -> None:
        """
        Several addresses in one text are suggested one by one.
        """
        for text in ("tcp:a:1,tcp:b:2", "a:1, b:2", "tcp:a:1 tcp:b:2", "a:1;b:2,"):
            self.assertEqual(
                suggestClient(text),
                "expected each by itself, on a line or in an option of its own: tcp:a:1 and tcp:b:2",
                text,
            )
        self.assertEqual(
            suggestServer("tcp:1,127.0.0.1:2"),
            "expected each by itself, on a line or in an option of its own: tcp:1:interface=127.0.0.1 and "
            "tcp:2:interface=127.0.0.1",
        )
        self.assertIsNone(suggestClient("tcp:a:1,?"))
        self.assertIsNone(suggestClient("tcp:a:1 foo"))
