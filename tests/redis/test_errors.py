# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.errors}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool import redis
from txconnpool.errors import PoolError
from txconnpool.redis.errors import Ask, ExecAborted, Moved, NoScript, ResponseError, WrongType, errorOf


class ErrorTests(SynchronousTestCase):
    """
    Tests for L{errorOf}.
    """

    def test_kinds(self) -> None:
        """
        The first word of an error reply is its class; the text is kept.
        """
        for text, kind, code in (
            ("WRONGTYPE Operation against a key", WrongType, "WRONGTYPE"),
            ("NOSCRIPT No matching script", NoScript, "NOSCRIPT"),
            ("EXECABORT x", ExecAborted, "EXECABORT"),
            ("ERR unknown command", ResponseError, "ERR"),
            ("NEWWORD of a later server", ResponseError, "NEWWORD"),
            ("no word at all", ResponseError, ""),
            ("", ResponseError, ""),
        ):
            error = errorOf(text)
            self.assertEqual((type(error), error.code, str(error)), (kind, code, text))

    def test_redirected(self) -> None:
        """
        A redirection has the slot and the address. A text of a script, which may be any, has none.
        """
        for text, slot, address in (
            ("MOVED 3999 127.0.0.1:6381", 3999, ("127.0.0.1", 6381)),
            ("ASK 1 ::1:6381", 1, ("::1", 6381)),
            ("MOVED 1 :6381", 1, ("", 6381)),
            ("MOVED somewhere", None, None),
            ("ASK x y", None, None),
        ):
            error = errorOf(text)
            assert isinstance(error, Moved | Ask)
            self.assertEqual((error.slot, error.address), (slot, address))

    def test_base(self) -> None:
        """
        All exceptions are L{PoolError}s.
        """
        kinds = [getattr(redis, name) for name in redis.__all__]
        errors = [each for each in kinds if isinstance(each, type) and issubclass(each, Exception)]
        self.assertGreater(len(errors), 15)
        self.assertEqual([each for each in errors if not issubclass(each, PoolError)], [])
