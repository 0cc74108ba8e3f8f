# Copyright txconnpool contributors. See LICENSE.
"""
Tests for logins of clients and to servers, compared with a memcached that requires logins.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import HOST, PATIENCE, Memcached, Proxy, ask, freePort, missing, until
from tests.wire.memcache.test_auth import FIRST, LOGIN, WRONG

USERS = "ann:pw2\njoe:secret\ncol:a:b\n"


class LoginTestCase(SynchronousTestCase):
    """
    Base class of these tests.
    """

    skip = missing("memcached")

    def memcached(self, users: str = USERS) -> Memcached:
        """
        Start a memcached with these users, or without logins if there are none.
        """
        server = Memcached()
        if users:
            path = server.directory / "users"
            path.write_text(users, "utf-8")
            path.chmod(0o644)
            server.options = ("-Y", str(path))
        self.addCleanup(server.stop)
        return server.start()

    def proxy(self, server: Memcached, *options: str) -> Proxy:
        """
        Start a proxy in front of the memcached.
        """
        proxy = Proxy(*options, upstream=[server.address]).start()
        self.addCleanup(proxy.stop)
        return proxy

    def users(self, content: str) -> str:
        """
        @return: the setting that names the file with users and passwords.
        """
        self.path = Path(self.mktemp()).absolute()
        self.path.touch(0o600)
        self.path.write_text(content, "utf-8")
        return f"file:{self.path}"


class ListenTests(LoginTestCase):
    """
    Tests for C{listen-auth}.
    """

    attempts = 0

    def firstReply(self, server: Memcached | Proxy, data: bytes, answer: bytes | None) -> bytes | None:
        """
        Send some bytes as the first bytes of a connection.

        @param answer: the expected reply: C{None} for no reply, empty if the connection is closed.
        @return: the reply.
        """
        # Each attempt comes from another address, so that the proxy does not delay it.
        self.attempts += 1
        assert isinstance(server.address, tuple)
        with socket.create_connection(server.address, PATIENCE, (f"127.0.1.{self.attempts}", 0)) as client:
            client.sendall(data)
            if answer is None:
                client.settimeout(0.05)
            got = b""
            try:
                while len(got) < len(answer or b"."):
                    more = client.recv(1000)
                    if not more:
                        break
                    got += more
            except TimeoutError:
                return None
            except ConnectionResetError:  # the peer closed without reading everything
                pass
            return got

    def test_first(self) -> None:
        """
        memcached and the proxy give the same reply to any first request. The proxy also knows the binary protocol,
        which a memcached that asks for a password in the text protocol does not, and closes clients of HTTP.
        """
        memcached = self.memcached()
        proxy = self.proxy(memcached, "--listen-auth", self.users(USERS), "--upstream-auth", self.users("joe:secret"))
        for data, answer in FIRST:
            self.assertEqual(self.firstReply(memcached, data, answer), answer, (memcached, data))
            if data.startswith(b"GET "):
                answer = b""
            if not data.startswith(b"\x80"):
                self.assertEqual(self.firstReply(proxy, data, answer), answer, (proxy, data))

    def test_admitted(self) -> None:
        """
        Requests are executed after the login, and none before it.
        """
        proxy = self.proxy(self.memcached(users=""), "--listen-auth", self.users(USERS))
        self.assertEqual(
            ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"CLIENT_ERROR bad authentication token format\r\n"
        )
        found = ask(proxy.address, LOGIN + b"get a\r\n" + b"set a 0 0 1\r\nx\r\n" + b"get a\r\n", end=b"x\r\nEND\r\n")
        self.assertEqual(found, b"STORED\r\nEND\r\nSTORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")

    def test_nowhere(self) -> None:
        """
        No log contains a password, not even a wrong one.
        """
        proxy = self.proxy(self.memcached(users=""), "--listen-auth", self.users(USERS))
        ask(proxy.address, WRONG)
        shown = ask(proxy.address, LOGIN + b"stats proxy\r\n", end=b"END\r\n").decode() + proxy.log
        proxy.stop()
        shown += proxy.log
        self.assertIn("STAT pool default", shown)
        self.assertIn("STAT auth_cmds 2\r\nSTAT auth_errors 1\r\n", shown)
        for word in ("secret", "pw2", "wrong"):
            self.assertNotIn(word, shown)


class UpstreamTests(LoginTestCase):
    """
    Tests for C{upstream-auth}.
    """

    def test_login(self) -> None:
        """
        The proxy logs in, and its clients need not.
        """
        proxy = self.proxy(self.memcached(), "--upstream-auth", self.users("joe:secret\n"))
        self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
        self.assertEqual(ask(proxy.address, b"get a auth\r\n", end=b"END\r\n"), b"VALUE a 0 1\r\nx\r\nEND\r\n")

    def test_environment(self) -> None:
        """
        The password may come from an environment variable.
        """
        self.addCleanup(os.environ.pop, "TXCONNPOOL_TEST_LOGIN")
        os.environ["TXCONNPOOL_TEST_LOGIN"] = "col:a:b"
        proxy = self.proxy(self.memcached(), "--upstream-auth", "env:TXCONNPOOL_TEST_LOGIN")
        self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")

    def test_wrong(self) -> None:
        """
        With a wrong password the server is down, with that reason. When the server requires no password any more, it is
        up again.
        """
        memcached = self.memcached()
        for options, reason in (
            (["--upstream-auth", self.users("joe:wrong")], b"authentication failure"),
            ([], b"authentication failure: the server asks for a password, and upstream-auth is not set"),
        ):
            proxy = self.proxy(memcached, *options)
            down = b"SERVER_ERROR upstream unavailable: %s (%s)\r\n" % (reason, memcached.endpoint.encode())
            self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), down)
            self.assertIn(f"default: {memcached.endpoint} is down: {reason.decode()}\n", proxy.log)
            self.assertNotIn("wrong", proxy.log)
        memcached.kill()
        memcached.options = ()
        memcached.start()
        until(lambda: ask(proxy.address, b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n", what="the server being up again")

    def test_notAsked(self) -> None:
        """
        A memcached that requires no password does not get it, so that no client can read it there.
        """
        memcached = self.memcached(users="")
        proxy = self.proxy(memcached, "--upstream-auth", self.users("joe:secret"))
        self.assertEqual(ask(proxy.address, b"get auth\r\n"), b"END\r\n")
        self.assertEqual(memcached.stats()["cmd_set"], "0")
        line = f"default: {memcached.endpoint} asks for no password: upstream-auth is not used"
        self.assertEqual(proxy.log.count(line), 1)

    def test_frozen(self) -> None:
        """
        A server that requires the password and then does not answer is down after C{connect-timeout}.
        """
        listener = socket.create_server((HOST, freePort()))
        self.addCleanup(listener.close)
        host, port = listener.getsockname()
        options = (
            "--upstream-auth",
            self.users("joe:secret"),
            "--connect-timeout",
            "2",
            "--wait-timeout",
            f"{PATIENCE:g}",
        )
        proxy = Proxy(*options, upstream=[(host, port)]).start()
        self.addCleanup(proxy.stop)
        listener.settimeout(PATIENCE)
        server, _ = listener.accept()
        self.addCleanup(server.close)
        self.assertEqual(server.recv(100), b"version\r\n")
        server.sendall(b"CLIENT_ERROR unauthenticated\r\n")
        self.assertEqual(server.recv(100), b"set auth 0 0 10\r\njoe secret\r\n")
        down = b"SERVER_ERROR upstream unavailable: connect timed out: "
        self.assertEqual(ask(proxy.address, b"get a\r\n")[: len(down)], down)


class CommandTests(LoginTestCase):
    """
    Tests for C{allow-commands} and C{deny-commands}.
    """

    def test_denied(self) -> None:
        """
        A denied command is rejected with an error that names it, and the connection stays open.
        """
        proxy = self.proxy(self.memcached(users=""), "--deny-commands", "flush_all set")
        requests = b"flush_all\r\nset a 0 0 1\r\nx\r\nadd a 0 0 1\r\ny\r\nget a\r\n"
        refused = b"CLIENT_ERROR flush_all not allowed\r\nCLIENT_ERROR set not allowed\r\n"
        done = b"STORED\r\nVALUE a 0 1\r\ny\r\nEND\r\n"
        self.assertEqual(ask(proxy.address, requests, end=b"END\r\n"), refused + done)

    def test_allowed(self) -> None:
        """
        If C{allow-commands} is set, all other commands are rejected.
        """
        proxy = self.proxy(self.memcached(users=""), "--allow-commands", "get,version")
        self.assertEqual(
            ask(proxy.address, b"stats proxy\r\nmg a v\r\nget a\r\n", end=b"END\r\n"),
            b"CLIENT_ERROR stats not allowed\r\nCLIENT_ERROR mg not allowed\r\nEND\r\n",
        )
