# -*- test-case-name: tests.test_bugs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Known bugs of other pooling proxies and pools, for tests to name.

A bug is listed because it cost its users data, replies or availability. A test that would fail if txconnpool had it is
decorated with L{covers}. L{tests.test_bugs} asserts that every bug has such a test, or a reason why there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tests.redisbugs import REDIS_BUGS

_F = TypeVar("_F", bound=Callable[..., Any])


class Bug(NamedTuple):
    """
    One bug of another program.

    @ivar number: identifies the bug; never changes, so that other texts may refer to it.
    @ivar what: the programs and their failure.
    @ivar reason: why there is no test, or no test for a part of it.
    """

    number: str
    what: str
    reason: str = ""


BUGS = [
    # Replies to the wrong request
    Bug(
        "1",
        "twemproxy: a cas number with too many digits is forwarded; memcached replies twice, and the second reply "
        "goes to another client",
    ),
    Bug(
        "2",
        "twemproxy: a reply that came after its request had timed out was given to the next request",
    ),
    Bug(
        "3",
        "twemproxy: a server that replies before it has read the whole request shifts all later replies by one",
    ),
    Bug(
        "4",
        "redis-py and many other clients: a cancelled call leaves its reply unread, and the next user of the "
        "connection reads it",
    ),
    Bug(
        "5",
        "memcached's proxy: the order of pipelined requests is reversed; replies do not match their requests after a "
        "partial write",
    ),
    Bug(
        "5b",
        "memcached's proxy: an error line among the values of one reply, followed by END, is misread",
    ),
    Bug(
        "6",
        "pgbouncer: a client gets the result of the query before, or data of a server that it is not linked to; a "
        "cancel stops another client's query",
    ),
    Bug(
        "7",
        "pymemcache: a server answers a malformed request in spite of noreply, and later replies shift by one",
    ),
    Bug(
        "8",
        "PgDog: rows of another client when many wait for a connection",
    ),
    Bug(
        "9",
        "memcached 1.6.18: after a noreply set with too long a key, its value is executed as a command, and answered",
    ),
    Bug(
        "10",
        "mcrouter: the length of a value overflows, and a part of the value is parsed as requests",
    ),
    # Replies in pieces
    Bug(
        "11",
        "twemproxy: a get fails when its reply ends where a buffer ends",
    ),
    Bug(
        "12",
        "memcached's proxy: an END that is read later than its value, or that has no value before it, is an error",
    ),
    Bug(
        "13",
        "memcached's proxy: after a partial write, bytes are sent twice, or never, or the write is repeated without "
        "end",
    ),
    Bug(
        "14",
        "memcached's proxy: after a timeout in the middle of a value, the client takes the bytes that follow for the "
        "rest of it",
    ),
    Bug(
        "15",
        "memcached's proxy: many keys or a large value overrun a buffer; memory is freed twice after a malformed set",
        "Python's memory cannot be overrun or freed twice",
    ),
    Bug(
        "16",
        "mcrouter: after bytes that it cannot parse, a connection hangs, and is never closed",
    ),
    # Hangs
    Bug(
        "17",
        "predixy, twemproxy: a frozen or slow server stalls all clients for minutes",
    ),
    Bug(
        "18",
        "memcached's proxy: queued requests are never resumed; twemproxy: a split request hangs when a name cannot be "
        "resolved",
    ),
    Bug(
        "19",
        "predixy, pgbouncer: a slot of the pool is lost for good, until none is left; or the pool exceeds its maximum",
    ),
    Bug(
        "20",
        "pgbouncer: buffered bytes are never processed; a server that has recovered stays marked as down; a pause "
        "makes logins fail",
    ),
    Bug(
        "21",
        "twemproxy: after it once had no file descriptor for a client, it never accepted another",
        "when no file descriptor is left at all, it is Twisted that accepts: tests.real.test_attack checks that",
    ),
    Bug(
        "22",
        "twemproxy: clients that are long gone stay connected; libmemcached: an idle connection closed by its server "
        "counts as a failure of that server",
    ),
    Bug(
        "23",
        "mcrouter: deadlocks between threads, for example after wrong new settings",
        "there are no threads; workers wait only for their parent",
    ),
    # Storms, counts, leaks, crashes
    Bug(
        "24",
        "pgbouncer, mcrouter: floods of new connections; twemproxy: each request dials until the maximum is reached",
    ),
    Bug(
        "25",
        "twemproxy: gauges that miss a connection, or fall below zero; a counter that never counts",
    ),
    Bug(
        "26",
        "twemproxy and others: each timeout or split request leaks memory; memory is never given back",
        "the memory of a process under attack is measured by tests.real.test_attack",
    ),
    Bug(
        "27",
        "twemproxy: crashes by a get without a key, by requests behind a quit, by many keys at once, when a server is "
        "down, or when all are ejected",
    ),
    Bug(
        "28",
        "pgbouncer: console commands that need no authorization",
    ),
    Bug(
        "29",
        "Redis proxies: a command that needs a connection of its own crashes, overtakes earlier requests, or costs a "
        "new connection each time; redis-py: a cancel during the reset of a connection loses that connection",
        "memcached has no commands that block or subscribe, so no session has a connection of its own; no caller "
        "waits for a reset, so none can cancel it",
    ),
    Bug(
        "30",
        "Envoy: requests pipelined behind a login are refused, because the login is checked asynchronously",
    ),
    *(Bug(*each) for each in REDIS_BUGS),
]

_NUMBERS = frozenset(bug.number for bug in BUGS)


def covers(*numbers: str) -> Callable[[_F], _F]:
    """
    Mark a test as one that would fail if txconnpool had these bugs.

    @param numbers: numbers from L{BUGS}.

    @raise ValueError: there is no bug with such a number.
    """
    unknown = [number for number in numbers if number not in _NUMBERS]
    if unknown:
        raise ValueError(f"no such bugs: {', '.join(unknown)}")

    def mark(test: _F) -> _F:
        test.bugs = numbers  # type: ignore[attr-defined]
        return test

    return mark


def covered(test: object) -> tuple[str, ...]:
    """
    @return: the numbers of the bugs that a test covers.
    """
    return getattr(test, "bugs", ())
