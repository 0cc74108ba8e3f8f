# -*- test-case-name: tests.test_bugs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Bugs that other pooling proxies and pools have had, and what keeps each of them from being ours.

A bug is in this list because it cost somebody data, answers or a night. For each there is a test that would fail if we
had it, or a reason why there is nothing to test. The tests are elsewhere, in the modules that test what they are about;
this one holds that none of them goes away unnoticed.
"""

from __future__ import annotations

import inspect
from typing import NamedTuple

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase


class Bug(NamedTuple):
    """
    A line of the list.

    @ivar number: stays what it is, so that other texts may refer to it.
    @ivar what: what went wrong, and where.
    @ivar tests: those that would fail, below C{tests.test_}.
    @ivar reason: why there is none, or none for the rest of it.
    """

    number: str
    what: str
    tests: tuple[str, ...] = ()
    reason: str = ""


BUGS = [
    # Answers to the wrong one
    Bug(
        "1",
        "twemproxy: a cas number of too many digits is let through, memcached answers twice, and the second answer is "
        "somebody else's",
        ("wire_exchanges.ExchangeTests.test_storage", "connection.WrongTests.test_unowedBehind"),
    ),
    Bug(
        "2",
        "twemproxy: an answer that came after its request had timed out was given to those who asked next",
        ("connection.TimeTests.test_late", "session.LossTests.test_frozen", "memcache.LossTests.test_late"),
    ),
    Bug(
        "3",
        "twemproxy: a server that answers before it has read all of a request shifts all answers by one",
        ("session.PressureTests.test_answeredUnread", "wire_memcache.AnyBytesTests.test_forwarded"),
    ),
    Bug(
        "4",
        "redis-py and many other clients: a cancelled call leaves its answer unread, and the next borrower reads it",
        (
            "pool.CancelTests.test_inFlight",
            "pool.LeaseTests.test_withConnectionFails",
            "memcache.CancelTests.test_inFlight",
            "session.VanishTests.test_stages",
        ),
    ),
    Bug(
        "5",
        "memcached's proxy: pipelined requests reversed; answers that do not match after a write that failed in part",
        (
            "session.OrderTests.test_pipelined",
            "session.OrderTests.test_pieces",
            "session.LossTests.test_order",
            "connection.RepliesTests.test_together",
            "transport.DirectTests.test_mixedSizes",
        ),
    ),
    Bug(
        "5b",
        "memcached's proxy: an error line among the values of one answer, with an END behind it",
        ("parts.PartsTests.test_errorLater", "wire_exchanges.ExchangeTests.test_strange"),
    ),
    Bug(
        "6",
        "pgbouncer: the result of the query before; data of a server that is not linked; a cancel that hits another's",
        (
            "connection.WrongTests.test_unowed",
            "connection.WrongTests.test_unowedBehind",
            "pool.CancelTests.test_shared",
            "memcache.CancelTests.test_fromACallback",
        ),
    ),
    Bug(
        "7",
        "pymemcache: a server answers noreply all the same when the line is wrong, and answers shift by one",
        (
            "wire_exchanges.ExchangeTests.test_storage",
            "wire_exchanges.ExchangeTests.test_lines",
            "memcache.ArgumentTests.test_numbers",
        ),
    ),
    Bug(
        "8",
        "PgDog: rows of somebody else when many wait for a connection",
        (
            "session.RoomTests.test_capacity",
            "chaos.ChaosTests.test_everyRequestOnce",
            "memcache.LifeTests.test_manyCalls",
        ),
    ),
    Bug(
        "9",
        "memcached 1.6.18: a noreply set with a key that is too long has its value taken for a command, and answered",
        ("wire_exchanges.ExchangeTests.test_storage",),
    ),
    Bug(
        "10",
        "mcrouter: the length of a value overflows, and a part of the value is taken for requests",
        (
            "wire_exchanges.ExchangeTests.test_storage",
            "wire_exchanges.ExchangeTests.test_meta",
            "wire_exchanges.ExchangeTests.test_strange",
        ),
    ),
    # Pieces
    Bug(
        "11",
        "twemproxy: a get fails when its answer ends where a buffer ends",
        (
            "connection.RepliesTests.test_splitAnywhere",
            "connection.RepliesTests.test_hiddenSplitAnywhere",
            "wire_exchanges.ExchangeTests.test_retrieval",
            "wire_exchanges.ExchangeTests.test_storage",
            "session.OrderTests.test_pieces",
        ),
    ),
    Bug(
        "12",
        "memcached's proxy: an END that is read later than its value, or with nothing before it, is an error",
        ("connection.RepliesTests.test_splitAnywhere", "parts.PartsTests.test_misses"),
    ),
    Bug(
        "13",
        "memcached's proxy: what was written in part is sent twice, or never, or tried for ever",
        (
            "transport.DirectTests.test_big",
            "transport.DirectTests.test_mixedSizes",
            "session.PressureTests.test_serverDoesNotRead",
            "connection.TimeTests.test_trickle",
        ),
    ),
    Bug(
        "14",
        "memcached's proxy: a timeout in the middle of a value, and the client takes what follows for the rest of it",
        (
            "session.LossTests.test_frozenInAValue",
            "session.LossTests.test_value",
            "connection.TimeTests.test_trickle",
            "memcache.LossTests.test_inTheMiddle",
        ),
    ),
    Bug(
        "15",
        "memcached's proxy: buffers overrun by many keys or a large value; memory freed twice after a wrong set",
        (
            "wire_memcache.LimitTests.test_longRetrieval",
            "wire_memcache.LimitTests.test_block",
            "session.OrderTests.test_tooLarge",
            "session.PressureTests.test_longLine",
        ),
        "Python's memory cannot be overrun or freed twice",
    ),
    Bug(
        "16",
        "mcrouter: after bytes that it did not understand a connection does nothing any more, and stays",
        ("connection.WrongTests.test_wrongForm", "session.LossTests.test_wrong", "session.OrderTests.test_each"),
    ),
    # Stuck
    Bug(
        "17",
        "predixy, twemproxy: a server that is frozen, or only slow, stops everything for minutes",
        ("session.LossTests.test_frozen", "session.LossTests.test_frozenOne", "dial.AttemptTests.test_handshakeHangs"),
    ),
    Bug(
        "18",
        "memcached's proxy: requests that are kept are never looked at again; twemproxy: a request that was split "
        "hangs when a name cannot be resolved",
        (
            "session.OrderTests.test_longRun",
            "session.PressureTests.test_backlog",
            "session.BooksTests.test_grantedInVain",
            "parts.PartsTests.test_unavailable",
            "parts.PartsTests.test_unavailableLater",
            "dial.AttemptTests.test_mistakes",
        ),
    ),
    Bug(
        "19",
        "predixy, pgbouncer: a place in the pool never comes back, until none is left; or there are more connections "
        "than may be",
        (
            "anything.MachineTests.test_anything",
            "pool.LossTests.test_bounded",
            "pool.RequestTests.test_failureFrees",
            "state.GrowTests.test_retiringCount",
        ),
    ),
    Bug(
        "20",
        "pgbouncer: bytes that are left over are not looked at; a server that is back stays down; a pause makes logins "
        "fail",
        (
            "transport.TurnTests.test_fairness",
            "state.ServersTests.test_probe",
            "session.RoomTests.test_down",
            "operate.PauseTests.test_restartedServer",
        ),
    ),
    Bug(
        "21",
        "twemproxy: when there was no file for a client, nobody was accepted ever after",
        (
            "sessions.RoomTests.test_fewFiles",
            "sessions.RoomTests.test_noFiles",
            "workers.WorkersTests.test_exhausted",
        ),
        "where no file is left at all it is Twisted that accepts: tests.real.test_attack looks at that",
    ),
    Bug(
        "22",
        "twemproxy: clients that are long gone stay connected; libmemcached: an idle connection that its server has "
        "closed counts against a server that is well",
        (
            "session.BooksTests.test_options",
            "session.CloseTests.test_halfClosedIdle",
            "connection.TransportTests.test_options",
            "state.FailureTests.test_livedForAWhile",
            "core.LossTests.test_askedInConnectionLost",
        ),
    ),
    Bug(
        "23",
        "mcrouter: threads that wait for each other, among others when new settings were wrong",
        (
            "service.ChangeTests.test_allOrNothing",
            "service.ChangeTests.test_oneAtATime",
            "workers.WorkersTests.test_workerCannot",
            "workers.WorkersTests.test_endedMeanwhile",
        ),
        "there are no threads; workers wait for nobody but their parent",
    ),
    # Storms, counts, leaks, crashes
    Bug(
        "24",
        "pgbouncer, mcrouter: floods of connections; twemproxy: each request dials until there are as many as may be",
        (
            "state.FailureTests.test_backsOff",
            "state.FailureTests.test_noHotLoop",
            "state.GrowTests.test_demand",
            "state.GrowTests.test_shared",
            "pool.LossTests.test_idle",
        ),
    ),
    Bug(
        "25",
        "twemproxy: gauges that miss a connection, or fall below nothing; a counter that never counts",
        (
            "core.StartTests.test_repr",
            "report.ReadTests.test_states",
            "report.ReadTests.test_clients",
            "report.ReadTests.test_monotonic",
            "report.ReadTests.test_everyCounter",
        ),
    ),
    Bug(
        "26",
        "twemproxy and others: memory is lost with each timeout or split request, or never given back",
        (
            "session.PressureTests.test_soft",
            "unread.UnreadTests.test_memoryGivenBack",
            "session.PressureTests.test_keptInSmallPieces",
            "parts.PartsTests.test_counted",
            "pool.LifeTests.test_collected",
            "waiters.WaitersTests.test_leftAway",
            "transport.TurnTests.test_nothingKept",
        ),
        "how much a process takes under attack is measured by tests.real.test_attack",
    ),
    Bug(
        "27",
        "twemproxy: crashes by a get without a key, a quit with more behind it, many keys at once, a server that is "
        "down, or all of them ejected",
        (
            "wire_memcache.AnyBytesTests.test_requests",
            "wire_exchanges.ExchangeTests.test_retrieval",
            "wire_exchanges.ExchangeTests.test_others",
            "parts.PartsTests.test_unavailable",
            "sessions.EverywhereTests.test_down",
            "session.RoomTests.test_serverRemoved",
        ),
    ),
    Bug(
        "28",
        "pgbouncer: orders of the console that need no authority",
        (
            "admin.PasswordTests.test_stranger",
            "admin.PasswordTests.test_wrong",
            "admin.AdminServiceTests.test_private",
            "config.SettingsTests.test_admin",
        ),
    ),
    Bug(
        "29",
        "Redis proxies: what needs a connection of its own crashes, overtakes what was asked before, or costs a new "
        "one each time; redis-py: a cancel while a connection is reset loses it",
        (
            "sessions.EverywhereTests.test_order",
            "parts.PartsTests.test_order",
            "pool.CancelTests.test_lease",
            "pool.CancelTests.test_atHandOver",
            "pool.LeaseTests.test_resetFails",
            "pool.LeaseTests.test_lostInReset",
        ),
        "memcached has no commands that block or subscribe, so no session has a connection of its own; nobody waits "
        "for a reset who could cancel it",
    ),
    Bug(
        "30",
        "Envoy: what is pipelined behind a login is refused, because the login is checked elsewhere meanwhile",
        (
            "session.GateTests.test_admitted",
            "wire_auth.GateTests.test_behind",
            "dial.AttemptTests.test_handshakeAwaited",
            "login.GreetingTests.test_login",
        ),
    ),
]


class BugsTests(SynchronousTestCase):
    """
    Tests for the list.
    """

    def test_numbers(self) -> None:
        """
        Every bug is in it once.
        """
        numbers = [str(number) for number in range(1, 31)]
        numbers.insert(5, "5b")
        self.assertEqual([bug.number for bug in BUGS], numbers)

    def test_covered(self) -> None:
        """
        Each has a test or a reason.
        """
        self.assertEqual([bug.number for bug in BUGS if not (bug.tests or bug.reason)], [])

    def test_there(self) -> None:
        """
        The tests are there: each name is that of a method which trial runs.
        """
        for bug in BUGS:
            for name in bug.tests:
                case, _, method = f"tests.test_{name}".rpartition(".")
                self.assertTrue(issubclass(namedAny(case), SynchronousTestCase), name)
                self.assertTrue(method.startswith("test_"), name)
                self.assertTrue(inspect.isfunction(getattr(namedAny(case), method, None)), name)
