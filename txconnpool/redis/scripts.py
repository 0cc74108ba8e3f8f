# -*- test-case-name: tests.redis.test_scripts -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Scripts, and the locks that are made of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha1
from types import TracebackType
from typing import Any, Final, Self

from twisted.internet.defer import Deferred

from txconnpool.redis.arguments import Argument, Key, listOf
from txconnpool.redis.base import VERBS
from txconnpool.redis.errors import LockError, NoScript
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand


class Script:
    """
    A script of a server, made by C{pool.register_script}::

        add = pool.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        total = await add(keys=["counter"], args=[5])

    It is executed by its SHA-1. If the server does not know it, it is sent.

    @ivar text: its text.
    @ivar sha: the SHA-1 of that.
    """

    def __init__(self, pool: Any, script: str | bytes, safe: bool = False) -> None:
        """
        @param safe: whether an error of the script that says that it was not executed is true. It may be sent again
            then. Of a script of a program this is not known.
        """
        self._pool = pool
        self._names = ("safe evalsha", "safe eval") if safe else ("evalsha", "eval")
        self.text = script.encode() if isinstance(script, str) else script
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Iterable[Key] = (), args: Iterable[Argument] = ()) -> Any:
        """
        Execute the script.

        @return: the value of its reply.
        """
        names = listOf("keys", keys)
        words = [len(names), *names, *listOf("args", args)]
        bySha, byText = self._names
        try:
            return await self._pool._do(bySha, None, self.sha, *words)
        except NoScript:  # nothing was executed
            return await self._pool._do(byText, None, self.text, *words)


def _safe(name: str) -> RedisCommand:
    """
    @return: the command for scripts that return no error of their own, or only such that are true.
    """
    command = BY_NAME[name]
    made = RedisCommand(name, command.index, command.arity, command.flags, command.keySpecs)
    made.runsScript, made.redirectable, made.keepsRequest = False, True, True
    return made


VERBS.update({f"safe {name}": (_safe(name), (name.upper().encode(),)) for name in ("evalsha", "eval")})


#: Deletes a key whose value is a token.
RELEASE: Final = b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
#: Lets such a key expire after some milliseconds.
EXTEND: Final = (
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
)


class Lock:
    """
    A lock that several programs share, made by C{pool.lock}::

        async with pool.lock("report", timeout=30):
            await makeReport()

    It is a key whose value is a random token: only its holder can release it. It ends by itself after C{timeout}
    seconds, so that no lock is left if its holder dies. Work that takes longer has to L{extend} it.
    """

    def __init__(self, pool: Any, name: Key, timeout: float, sleep: float, blockingTimeout: float | None) -> None:
        """
        @param timeout: see L{txconnpool.redis.RedisPool.lock}, as for the other parameters.
        """
        self._pool = pool
        self._name = name
        self._milliseconds = max(1, round(timeout * 1000))
        self._sleep = sleep
        self._blockingTimeout = blockingTimeout
        self._token: bytes | None = None
        self._releasing = Script(pool, RELEASE, safe=True)
        self._extending = Script(pool, EXTEND, safe=True)

    async def acquire(self, blocking: bool = True) -> bool:
        """
        Acquire the lock, and wait while another holds it.

        @param blocking: whether to wait.

        @return: whether the lock is held now; it is not if the time to wait has passed.
        """
        if self._token is not None:
            raise LockError("the lock is held already")
        token, reactor = os.urandom(16).hex().encode(), self._pool.reactor
        end = None if self._blockingTimeout is None else reactor.seconds() + self._blockingTimeout
        while True:
            if await self._pool.set(self._name, token, px=self._milliseconds, nx=True):
                self._token = token
                return True
            if not blocking or (end is not None and reactor.seconds() + self._sleep > end):
                return False
            await self._pause()

    def _pause(self) -> Deferred[None]:
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._pool.reactor.callLater(self._sleep, done.callback, None)
        return done

    async def release(self) -> None:
        """
        Release the lock.

        @raise LockError: it is not held, or has ended before. Another one may hold it.
        """
        token, self._token = self._token, None
        if token is None:
            raise LockError("the lock is not held")
        if not await self._releasing([self._name], [token]):
            raise LockError("the lock has ended before it was released")

    async def extend(self, timeout: float) -> None:
        """
        Let the lock end C{timeout} seconds from now.

        @raise LockError: it is not held, or has ended before.
        """
        if self._token is None:
            raise LockError("the lock is not held")
        if not await self._extending([self._name], [self._token, max(1, round(timeout * 1000))]):
            self._token = None
            raise LockError("the lock has ended before it was extended")

    async def __aenter__(self) -> Self:
        if not await self.acquire():
            raise LockError("the lock was not acquired in time")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.release()
        elif self._token is not None:
            try:
                await self.release()
            except LockError:
                pass  # the error of the block says more
