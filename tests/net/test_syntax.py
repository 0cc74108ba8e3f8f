# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.syntax}.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.syntax import argumentsOf, checkClient, checkServer, reaches, withAbsolutePaths


class SyntaxTests(SynchronousTestCase):
    """
    Tests for L{checkClient} and L{checkServer}.
    """

    def assertWrong(self, check: Callable[[str], None], description: str, words: str) -> None:
        """
        Assert that a string is refused with an exception whose text has some words.
        """
        error = self.assertRaises(ValueError, check, description)
        self.assertIn(words, str(error), description)

    def test_client(self) -> None:
        """
        Valid strings of servers are accepted, whatever the files that they name contain.
        """
        for description in (
            "tcp:127.0.0.1:11211",
            "unix:/run/x",
            "memory:",
            "tls:h:1",
            "TLS:h:1:3",
            r"tls:\:\:1:port=1:bindAddress=127.0.0.1:trustRoots=/nonexistent\:x",
            r"tls:host=h:port=1:certificate=/nonexistent/c:privateKey=/nonexistent/k:endpoint=unix\:/run/x",
        ):
            checkClient(description)

    def test_wrongClient(self) -> None:
        """
        An invalid string of a server is refused with the reason.
        """
        for description, words in (
            ("smtp:x", "Unknown endpoint type"),
            ("tls:h", "the port is missing"),
            ("tls:h:http", "'http'"),
            ("tls:h:1:timeout=soon", "'soon'"),
            ("tls:h:1:bogus=1", "tls: has no argument 'bogus', only host, port, "),
            ("tls:h:1:host=i", "the host is given twice"),
            ("tcp:h:0", "the port is '0'"),
            ("tcp:h:1:2", "'2' is too much for tcp:"),
            ("tcp::1", "the host is ''"),
            ("unix:", "the path is ''"),
            ("unix:/x:mode=600", "unix: has no argument 'mode'"),
            ("tcp6:h:1", "Unknown endpoint type: 'tcp6'"),
            ("", "Unknown endpoint type: ''"),
            ("=", "Unknown endpoint type: ''"),
            ("tls:h:1:endpoint=smtp", "Unknown endpoint type"),
            ("tls:h:1:\\", "a backslash at the end"),
            ("ssl:h:1:hostname=h", "ssl: does not verify servers; expected tls:HOST:PORT"),
            ("SSL:h:1", "ssl: does not verify servers; expected tls:HOST:PORT"),
            ("tls:h:1:endpoint=ssl\\:h\\:1", "ssl: does not verify servers; expected tls:HOST:PORT"),
        ):
            self.assertWrong(checkClient, description, words)

    def test_server(self) -> None:
        """
        Valid strings of listeners are accepted, whatever the files that they name contain, and whatever sockets systemd
        has passed to this process.
        """
        for description in (
            "tcp:0",
            "tcp6:1:interface=\\:\\:1",
            "unix:/run/x:mode=660",
            "systemd:domain=INET:index=7",
            "systemd:domain=INET:name=x",
            "ssl:1",
            "ssl:1:/nonexistent/k:/nonexistent/c:TLSv1_2_METHOD:127.0.0.1:50",
            "ssl:port=1:privateKey=/nonexistent/k:certKey=/nonexistent/c:caCertsDir=/nonexistent",
            r"ssl:1:privateKey=/nonexistent\\:endpoint=systemd\:domain=INET\:index=7",
            "tls:/nonexistent:443",
            "haproxy:ssl:1:privateKey=/nonexistent/k",
        ):
            checkServer(description)

    def test_wrongServer(self) -> None:
        """
        An invalid string of a listener is refused with the reason.
        """
        for description, words in (
            ("smtp:x", "Unknown endpoint type"),
            ("SSL:1", "Unknown endpoint type"),
            ("tcp:x", "'x'"),
            ("unix:/x:mode=abc", "'abc'"),
            ("systemd:domain=INET", "either name= or index="),
            ("systemd:domain=INET:name=x:index=1", "either name= or index="),
            ("systemd:inet:name=x", "the domain is 'inet', not INET, INET6 or UNIX"),
            ("systemd:INET:index=x", "the index is 'x', not a number"),
            ("tcp:99999", "port 99999 is more than 65535"),
            ("tcp:1::2:3", "'3' is too much for tcp:"),
            ("tcp:1:interface=::", "the interface is given twice"),
            ("memory:", "Unknown endpoint type: 'memory'"),
            ("ssl", "the port is missing"),
            ("ssl:https", "'https'"),
            ("ssl:1:backlog=many", "'many'"),
            ("ssl:1:bogus=1", "ssl: has no argument 'bogus', only port, "),
            ("ssl:1:endpoint=smtp", "Unknown endpoint type"),
            ("tls:/x:https", "'https'"),
            ("haproxy:smtp:x", "Unknown endpoint type"),
        ):
            self.assertWrong(checkServer, description, words)

    def test_reaches(self) -> None:
        """
        A connection leads to a listener if both have the same port or path and the host is the same, or this machine.
        """
        for client, server, expected in (
            ("tcp:127.0.0.1:11211", "tcp:11211", True),
            ("tcp:localhost:11211", "tcp:11211:interface=0.0.0.0", True),
            ("tcp:host=localhost:port=11211", "tcp:port=11211", True),
            ("tcp:127.0.0.1:11211", "tcp:11211:interface=127.0.0.1", True),
            ("tcp:\\:\\:1:11211", "tcp6:11211", True),
            ("tls:10.0.0.1:11211", "ssl:11211:interface=10.0.0.1:privateKey=k", True),
            ("unix:/run/a", "unix:/run/a:mode=600", True),
            ("unix:path=/run/a", "unix:address=/run/a", True),
            ("unix:/run/a", "unix:/run/b", False),
            ("unix:/run/a", "tcp:1", False),
            ("tcp:127.0.0.1:11211", "tcp:11212", False),
            ("tcp:127.0.0.1:11211", "tcp:11211:interface=10.0.0.1", False),
            ("tcp:localhost:11211", "tcp:11211:interface=127.0.0.1", True),
            ("tcp:10.0.0.1:11211", "tcp:11211", False),
            ("tcp:127.0.0.1:0", "tcp:0", False),
            ("memory:", "memory:", False),
            ("memory:", "systemd:domain=INET:index=0", False),
        ):
            self.assertEqual(reaches(client, server), expected, (client, server))

    def test_absolutePaths(self) -> None:
        """
        Relative paths are made absolute: of UNIX sockets, of keys and certificates.
        """
        for listening, description, right in (
            (True, "unix:a.sock:mode=600", "unix:/b/a.sock:mode=600"),
            (True, "unix:address=a.sock", "unix:address=/b/a.sock"),
            (True, "unix:/a.sock", "unix:/a.sock"),
            (True, "ssl:1:k:c", "ssl:1:/b/k:/b/c"),
            (True, "ssl:1:privateKey=k:certKey=/c:caCertsDir=d", "ssl:1:privateKey=/b/k:certKey=/c:caCertsDir=/b/d"),
            (True, r"ssl:1:privateKey=/k:endpoint=unix\:a.sock", r"ssl:1:privateKey=/k:endpoint=unix\:/b/a.sock"),
            (True, "haproxy:unix:a.sock", "haproxy:unix:/b/a.sock"),
            (True, "systemd:INET:name=x", "systemd:INET:name=x"),
            (True, "tcp:1", "tcp:1"),
            (False, r"unix:a\:b", r"unix:/b/a\:b"),
            (False, "unix:timeout=1:path=a", "unix:timeout=1:path=/b/a"),
            (False, "tls:h:1:trustRoots=t:certificate=c", "tls:h:1:trustRoots=/b/t:certificate=/b/c"),
            (False, "memory:", "memory:"),
        ):
            (checkServer if listening else checkClient)(description)
            self.assertEqual(withAbsolutePaths(description, "/b", listening), right)
        self.assertEqual(withAbsolutePaths("unix:x", "/a b:c=d\\", True), r"unix:/a\ b\:c\=d\\/x")
        self.assertEqual(argumentsOf(r"unix:/a\ b\:c\=d\\/x"), (["unix", "/a b:c=d\\/x"], {}))

    def test_opensNothing(self) -> None:
        """
        Strings of the usual types are checked without opening a file or reading a directory.
        """

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(f"opened {args}")

        with mock.patch.object(builtins, "open", refuse), mock.patch.object(os, "listdir", refuse):
            for description in ("tcp:h:1", "unix:/x", "tls:h:1:trustRoots=/x"):
                checkClient(description)
            for description in ("tcp:1", "unix:/x", "ssl:1:privateKey=/x:caCertsDir=/y", "tls:/x"):
                checkServer(description)
