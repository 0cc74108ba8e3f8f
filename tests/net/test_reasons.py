# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.reasons}.
"""

from __future__ import annotations

import errno

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import LoginFailed, WireError
from txconnpool.net.reasons import describe, kindOf


class DescribeTests(SynchronousTestCase):
    """
    Tests for L{describe} and L{kindOf}.
    """

    def test_words(self) -> None:
        """
        Each exception has a short text.
        """
        for reason, words in (
            (error.ConnectionRefusedError(errno.ECONNREFUSED), "connection refused"),
            (error.ConnectionRefusedError(), "connection refused"),
            (error.ConnectError(errno.EHOSTUNREACH), "no route to host"),
            (error.ConnectError("it rains"), "it rains"),
            (error.ConnectionDone(), "connection closed by the server"),
            (error.ConnectionLost(), "connection lost"),
            (error.ConnectionAborted(), "connection lost"),
            (ValueError("what it says"), "what it says"),
            (KeyError(), "KeyError"),
            (None, "connection lost"),
        ):
            self.assertEqual(describe(reason), words)

    def test_tls(self) -> None:
        """
        TLS errors have a short text too, and one kind for all of them.
        """
        refused = type("Error", (Exception,), {"__module__": "OpenSSL.SSL"})
        other = type("VerificationError", (Exception,), {"__module__": "service_identity.exceptions"})
        for reason, words in (
            (refused([("SSL routines", "", "certificate verify failed")]), "TLS: certificate verify failed"),
            (other("DNSMismatch(...)"), "TLS: the certificate is for another host"),
        ):
            self.assertEqual((describe(reason), kindOf(reason)), (words, "tls"))
        self.assertEqual((kindOf(ValueError()), kindOf(None)), ("other", "connection_lost"))

    def test_kinds(self) -> None:
        """
        Each kind is one word.
        """
        for reason, word in (
            (error.ConnectionRefusedError(errno.ECONNREFUSED), "connection_refused"),
            (error.ConnectionRefusedError(), "connection_refused"),
            (error.ConnectError(errno.EHOSTUNREACH), "no_route_to_host"),
            (error.TimeoutError(), "timeout"),
            (error.DNSLookupError(), "no_such_host"),
            (error.ConnectionDone(), "closed_by_server"),
            (error.ConnectionLost(), "connection_lost"),
            (error.ConnectionAborted(), "aborted"),
            (LoginFailed("no"), "login_failed"),
            (WireError("what"), "protocol_error"),
        ):
            self.assertEqual(kindOf(reason), word)
