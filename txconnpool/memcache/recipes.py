# -*- test-case-name: tests.memcache.test_recipes -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Calls of a memcached client that are made of several requests, or of memcached's meta commands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.python.failure import Failure

from txconnpool.memcache.arguments import checkKeys, checkNumber, encodeKey
from txconnpool.memcache.commands import MemCacheCommands
from txconnpool.memcache.computing import Computations, Recipe
from txconnpool.memcache.errors import InvalidArgument
from txconnpool.memcache.results import Key, V, metaDone
from txconnpool.wire.memcache.classic import INT32
from txconnpool.wire.memcache.replies import MD

K = TypeVar("K", bound=Key)
T = TypeVar("T")

#: The longest time that others wait for a computation, in seconds.
COMPUTE_MAX = 24 * 3600


class MemCacheRecipes(MemCacheCommands[V]):
    """
    The calls of a memcached client that do more than one command.
    """

    _computations: Computations[V]

    def getOrCompute(
        self,
        key: Key,
        f: Callable[[], V | Awaitable[V]],
        expireTime: int | None = None,
        *,
        computeTime: int = 30,
        refreshBefore: int = 0,
    ) -> Deferred[V]:
        """
        Get the value of a key. If there is none, compute it and store it: one caller computes, all others wait for the
        value, those in other processes too. If the cache cannot be reached, each process computes the value itself.

        Other processes need memcached 1.6. They ask again until the value is there, at most twice a second. Within a
        process, the first caller's C{f} and times count for all who wait. While a value is computed, memcached has an
        empty one in its place, which all other commands find.

        @param f: computes the value; may return a Deferred or an awaitable. If it fails, so do all calls of this
            process that wait for it, and another process may try.
        @param expireTime: the expiry time of the computed value, see
            L{set<txconnpool.memcache.commands.MemCacheCommands.set>}.
        @param computeTime: the whole seconds that others wait for the one that computes, before one of them does it.
        @param refreshBefore: if a value expires within this number of seconds, one caller computes it anew, and the
            others still get the old one; 0: it is computed when it has expired.

        @return: fires with the value.
        """
        try:
            name = encodeKey(key, self._namespace)
            seconds = self._expireTime if expireTime is None else checkNumber("expireTime", expireTime, INT32)
            checkNumber("computeTime", computeTime, (1, COMPUTE_MAX))
            checkNumber("refreshBefore", refreshBefore, (0, INT32[1]))
            if not callable(f):
                raise InvalidArgument(f"f is a function without parameters, not {f!r}")
        except InvalidArgument as error:
            return fail(error)
        return self._computations.find(name, Recipe(f, seconds, computeTime, refreshBefore))

    def invalidate(self, key: Key, staleTime: int = 30) -> Deferred[bool]:
        """
        Mark the value of a key as stale: the next call of L{getOrCompute} computes it anew, and the others still get
        the old one meanwhile. Needs memcached 1.6.

        @param staleTime: seconds until the stale value expires.

        @return: fires with whether there was one.
        """
        try:
            name = encodeKey(key, self._namespace)
            seconds = checkNumber("staleTime", staleTime, INT32)
        except InvalidArgument as error:
            return fail(error)
        return self._perform(MD, name, b"md %b I T%d\r\n" % (name, seconds), metaDone)

    def update(
        self,
        key: Key,
        f: Callable[[V | None], V | Awaitable[V]],
        expireTime: int | None = None,
        *,
        attempts: int = 10,
    ) -> Deferred[V | None]:
        """
        Replace the value of a key by one that is computed from it. If others change it meanwhile, this is tried again.

        @param f: called with the value, or with C{None} if there is none. Returns the new value, or a Deferred or an
            awaitable.
        @param expireTime: see L{set<txconnpool.memcache.commands.MemCacheCommands.set>}.
        @param attempts: how often it is tried.

        @return: fires with the new value, or with C{None} if others have changed it in each attempt.
        """

        async def attempt() -> V | None:
            for _ in range(attempts):
                flags, cas, old = await self.gets(key)
                new: V = await maybeDeferred(partial(cast(Callable[..., V], f), old))
                if old is None:
                    stored = await self.add(key, new, expireTime=expireTime)
                else:
                    stored = await self.checkAndSet(key, new, cas, flags, expireTime)
                if stored:
                    return new
            return None

        return Deferred.fromCoroutine(attempt())

    def setMultiple(
        self, values: Mapping[K, V], flags: int = 0, expireTime: int | None = None
    ) -> Deferred[dict[K, bool]]:
        """
        Store several values, all at once. The other parameters are those of
        L{set<txconnpool.memcache.commands.MemCacheCommands.set>}.

        @return: fires with C{True} for each key when all are stored. If some could not be stored, it fails with the
            first error, after the others are stored.
        """
        if not isinstance(values, Mapping):
            return fail(InvalidArgument(f"values must be a mapping of keys to values, not {values!r}"))
        return each({key: self.set(key, value, flags, expireTime) for key, value in values.items()})

    def deleteMultiple(self, keys: Iterable[K]) -> Deferred[dict[K, bool]]:
        """
        Delete several keys, all at once.

        @return: fires with whether there was each key. If some could not be deleted, it fails with the first error,
            after the others are deleted.
        """
        try:
            return each({key: self.delete(key) for key in checkKeys(keys)})
        except InvalidArgument as error:
            return fail(error)


def each(results: dict[K, Deferred[T]]) -> Deferred[dict[K, T]]:
    """
    Wait for several results.

    @return: fires with all of them when the last one is there; fails with the first error, but not earlier. If it is
        cancelled, they are.
    """

    def join(done: list[tuple[bool, Any]]) -> Any:
        failure = next((value for success, value in done if not success), None)
        return failure if isinstance(failure, Failure) else {
            key: value for key, (_, value) in zip(results, done, strict=True)
        }  # fmt: skip

    return DeferredList(list(results.values()), consumeErrors=True).addCallback(join)
