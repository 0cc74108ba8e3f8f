# Copyright txconnpool contributors. See LICENSE.
"""
Attacks with messages of TLS itself.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import resource
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.attacks import ATTACKERS, SecurityTestCase
from tests.real.servers import HOST, connect, everything, exchange, freePort, until
from txconnpool.proxy.sessions import SPARE

#: The number of messages that are made at once.
TOGETHER = 500

_POINTER = ctypes.c_void_p


def _library(name: str, *functions: tuple[str, Any, list[Any]]) -> Any:
    """
    @return: a library with these functions; C{None} if it is not installed, or has not all of them.
    """
    try:
        library = ctypes.CDLL(ctypes.util.find_library(name))
        for function, result, arguments in functions:
            found = getattr(library, function)
            found.restype, found.argtypes = result, arguments
    except (OSError, AttributeError, TypeError):
        return None
    return library


_ssl = _library(
    "ssl",
    ("TLS_client_method", _POINTER, []),
    ("SSL_CTX_new", _POINTER, [_POINTER]),
    ("SSL_CTX_free", None, [_POINTER]),
    ("SSL_new", _POINTER, [_POINTER]),
    ("SSL_free", None, [_POINTER]),
    ("SSL_set_bio", None, [_POINTER, _POINTER, _POINTER]),
    ("SSL_connect", ctypes.c_int, [_POINTER]),
    ("SSL_do_handshake", ctypes.c_int, [_POINTER]),
    ("SSL_key_update", ctypes.c_int, [_POINTER, ctypes.c_int]),
)
_crypto = _library(
    "crypto",
    ("BIO_new", _POINTER, [_POINTER]),
    ("BIO_s_mem", _POINTER, []),
    ("BIO_read", ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_int]),
    ("BIO_write", ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_int]),
)


class KeyUpdater:
    """
    An attacker who changes the keys of his connection again and again, and asks the proxy to do so too. Python's C{ssl}
    has no function for that. He has the methods of L{Attacker<tests.real.attacks.Attacker>}.

    @ivar lost: how often he was disconnected.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._context = _ssl.SSL_CTX_new(_ssl.TLS_client_method())
        self._session: Any = None
        self._left = b""
        self.lost = -1

    def step(self) -> None:
        """
        Send as much as the proxy accepts without waiting.
        """
        try:
            if self._socket is None:
                self._connect()
            assert self._socket is not None
            if len(self._left) < TOGETHER:
                for _ in range(TOGETHER):
                    assert _ssl.SSL_key_update(self._session, 1) == 1
                    _ssl.SSL_do_handshake(self._session)
                self._left += self._output()
            self._left = self._left[self._socket.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _connect(self) -> None:
        self.lost += 1
        self._left = b""
        self._socket = connect((HOST, self._port))
        self._session = _ssl.SSL_new(self._context)
        self._input, self._written = (_crypto.BIO_new(_crypto.BIO_s_mem()) for _ in range(2))
        _ssl.SSL_set_bio(self._session, self._input, self._written)
        while _ssl.SSL_connect(self._session) != 1:
            self._socket.sendall(self._output())
            data = self._socket.recv(1 << 14)
            if not data:
                raise ConnectionResetError
            _crypto.BIO_write(self._input, data, len(data))
        self._socket.sendall(self._output())
        self._socket.setblocking(False)

    def _output(self) -> bytes:
        """
        @return: the bytes to send.
        """
        buffer, found = ctypes.create_string_buffer(1 << 16), b""
        while (size := _crypto.BIO_read(self._written, buffer, 1 << 16)) > 0:
            found += buffer.raw[:size]
        return found

    def close(self) -> None:
        """
        Disconnect.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._session is not None:
            _ssl.SSL_free(self._session)
            self._session = None


class TLSTestCase(SecurityTestCase):
    """
    Base class of tests with a proxy that has TLS on all kinds of ports.
    """

    skip = missingTLS or SecurityTestCase.skip

    def arguments(self) -> list[str]:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        host = Certificate(Path(directory.name), HOST)
        password = Path(directory.name) / "password"
        password.write_text("secret\n")
        password.chmod(0o600)
        self.ports = clients, statistics, console = freePort(), freePort(), freePort()
        end = f":interface={HOST}:privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"
        return [
            *("--listen", f"ssl:{clients}{end}"),
            *("--stats", f"ssl:{statistics}{end}"),
            *("--admin", f"ssl:{console}{end}", "--admin-password-file", str(password)),
        ]


class CrowdTests(TLSTestCase):
    """
    Tests for more connections than there are file descriptors.
    """

    def test_noHandshake(self) -> None:
        """
        Clients that do not begin the handshake leave descriptors for a client that is connected, and for operators.
        They do not fill the log.
        """
        clients, statistics, _ = self.ports
        context = ssl._create_unverified_context()
        used = self.descriptors()
        limits: Any = resource.prlimit(self.proxy.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.proxy.pid, resource.RLIMIT_NOFILE, (used + SPARE + 20, limits[1]))
        with connect(self.proxy.address) as old:
            for _ in range(10):
                for _ in range(50):
                    self.addCleanup(connect((HOST, clients)).close)
                with context.wrap_socket(connect((HOST, statistics))) as visitor:
                    visitor.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                    self.assertTrue(everything(visitor).startswith(b"HTTP/1.1 200 "))
                self.assertEqual(exchange(old, b"get zzz\r\n", b"END\r\n"), b"END\r\n")
        self.assertNotIn("EMFILE", self.proxy.log)
        self.assertNotIn("Traceback", self.proxy.log)
        self.assertEqual(self.proxy.log.count("clients are refused"), 1)


class KeyUpdateTests(TLSTestCase):
    """
    Tests for attackers who change the keys of TLS 1.3 again and again.
    """

    skip = TLSTestCase.skip or (None if _ssl and _crypto else "there is no libssl to call")

    def anyLost(self, attackers: list[KeyUpdater]) -> bool:
        """
        Let the attackers go on.

        @return: whether one of them was disconnected.
        """
        for each in attackers:
            each.step()
        return any(each.lost > 0 for each in attackers)

    def test_keyUpdates(self) -> None:
        """
        Neither clients nor visitors of the other ports hold up other clients with it.
        """
        for port in self.ports:
            attackers = [KeyUpdater(port) for _ in range(ATTACKERS)]
            self.attack(*attackers)  # type: ignore[arg-type]
            until(lambda: self.anyLost(attackers), what="the end of an attacker's connection")  # noqa: B023
            for each in attackers:
                each.close()
        self.assertNotIn("Traceback", self.proxy.log)
