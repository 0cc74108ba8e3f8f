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
    @ivar tests: those that would fail, below C{tests}.
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
        (
            "wire.memcache.test_exchanges.ExchangeTests.test_storage",
            "pool.test_connection.WrongTests.test_unowedBehind",
        ),
    ),
    Bug(
        "2",
        "twemproxy: an answer that came after its request had timed out was given to those who asked next",
        (
            "pool.test_connection.TimeTests.test_late",
            "proxy.test_session.LossTests.test_frozen",
            "memcache.test_pool.LossTests.test_late",
        ),
    ),
    Bug(
        "3",
        "twemproxy: a server that answers before it has read all of a request shifts all answers by one",
        (
            "proxy.test_session.PressureTests.test_answeredUnread",
            "wire.memcache.test_dialect.AnyBytesTests.test_forwarded",
        ),
    ),
    Bug(
        "4",
        "redis-py and many other clients: a cancelled call leaves its answer unread, and the next borrower reads it",
        (
            "pool.test_library.CancelTests.test_inFlight",
            "pool.test_library.LeaseTests.test_withConnectionFails",
            "memcache.test_pool.CancelTests.test_inFlight",
            "proxy.test_session.VanishTests.test_stages",
        ),
    ),
    Bug(
        "5",
        "memcached's proxy: pipelined requests reversed; answers that do not match after a write that failed in part",
        (
            "proxy.test_session.OrderTests.test_pipelined",
            "proxy.test_session.OrderTests.test_pieces",
            "proxy.test_session.LossTests.test_order",
            "pool.test_connection.RepliesTests.test_together",
            "net.test_transport.DirectTests.test_mixedSizes",
        ),
    ),
    Bug(
        "5b",
        "memcached's proxy: an error line among the values of one answer, with an END behind it",
        ("proxy.test_parts.PartsTests.test_errorLater", "wire.memcache.test_exchanges.ExchangeTests.test_strange"),
    ),
    Bug(
        "6",
        "pgbouncer: the result of the query before; data of a server that is not linked; a cancel that hits another's",
        (
            "pool.test_connection.WrongTests.test_unowed",
            "pool.test_connection.WrongTests.test_unowedBehind",
            "pool.test_library.CancelTests.test_shared",
            "memcache.test_pool.CancelTests.test_fromACallback",
        ),
    ),
    Bug(
        "7",
        "pymemcache: a server answers noreply all the same when the line is wrong, and answers shift by one",
        (
            "wire.memcache.test_exchanges.ExchangeTests.test_storage",
            "wire.memcache.test_exchanges.ExchangeTests.test_lines",
            "memcache.test_pool.ArgumentTests.test_numbers",
        ),
    ),
    Bug(
        "8",
        "PgDog: rows of somebody else when many wait for a connection",
        (
            "proxy.test_session.RoomTests.test_capacity",
            "pool.test_chaos.ChaosTests.test_everyRequestOnce",
            "memcache.test_pool.LifeTests.test_manyCalls",
        ),
    ),
    Bug(
        "9",
        "memcached 1.6.18: a noreply set with a key that is too long has its value taken for a command, and answered",
        ("wire.memcache.test_exchanges.ExchangeTests.test_storage",),
    ),
    Bug(
        "10",
        "mcrouter: the length of a value overflows, and a part of the value is taken for requests",
        (
            "wire.memcache.test_exchanges.ExchangeTests.test_storage",
            "wire.memcache.test_exchanges.ExchangeTests.test_meta",
            "wire.memcache.test_exchanges.ExchangeTests.test_strange",
        ),
    ),
    # Pieces
    Bug(
        "11",
        "twemproxy: a get fails when its answer ends where a buffer ends",
        (
            "pool.test_connection.RepliesTests.test_splitAnywhere",
            "pool.test_connection.RepliesTests.test_hiddenSplitAnywhere",
            "wire.memcache.test_exchanges.ExchangeTests.test_retrieval",
            "wire.memcache.test_exchanges.ExchangeTests.test_storage",
            "proxy.test_session.OrderTests.test_pieces",
        ),
    ),
    Bug(
        "12",
        "memcached's proxy: an END that is read later than its value, or with nothing before it, is an error",
        ("pool.test_connection.RepliesTests.test_splitAnywhere", "proxy.test_parts.PartsTests.test_misses"),
    ),
    Bug(
        "13",
        "memcached's proxy: what was written in part is sent twice, or never, or tried for ever",
        (
            "net.test_transport.DirectTests.test_big",
            "net.test_transport.DirectTests.test_mixedSizes",
            "proxy.test_session.PressureTests.test_serverDoesNotRead",
            "pool.test_connection.TimeTests.test_trickle",
        ),
    ),
    Bug(
        "14",
        "memcached's proxy: a timeout in the middle of a value, and the client takes what follows for the rest of it",
        (
            "proxy.test_session.LossTests.test_frozenInAValue",
            "proxy.test_session.LossTests.test_value",
            "pool.test_connection.TimeTests.test_trickle",
            "memcache.test_pool.LossTests.test_inTheMiddle",
        ),
    ),
    Bug(
        "15",
        "memcached's proxy: buffers overrun by many keys or a large value; memory freed twice after a wrong set",
        (
            "wire.memcache.test_dialect.LimitTests.test_longRetrieval",
            "wire.memcache.test_dialect.LimitTests.test_block",
            "proxy.test_session.OrderTests.test_tooLarge",
            "proxy.test_session.PressureTests.test_longLine",
        ),
        "Python's memory cannot be overrun or freed twice",
    ),
    Bug(
        "16",
        "mcrouter: after bytes that it did not understand a connection does nothing any more, and stays",
        (
            "pool.test_connection.WrongTests.test_wrongForm",
            "proxy.test_session.LossTests.test_wrong",
            "proxy.test_session.OrderTests.test_each",
        ),
    ),
    # Stuck
    Bug(
        "17",
        "predixy, twemproxy: a server that is frozen, or only slow, stops everything for minutes",
        (
            "proxy.test_session.LossTests.test_frozen",
            "proxy.test_session.LossTests.test_frozenOne",
            "pool.test_dialing.AttemptTests.test_handshakeHangs",
        ),
    ),
    Bug(
        "18",
        "memcached's proxy: requests that are kept are never looked at again; twemproxy: a request that was split "
        "hangs when a name cannot be resolved",
        (
            "proxy.test_session.OrderTests.test_longRun",
            "proxy.test_session.PressureTests.test_backlog",
            "proxy.test_session.BooksTests.test_grantedInVain",
            "proxy.test_parts.PartsTests.test_unavailable",
            "proxy.test_parts.PartsTests.test_unavailableLater",
            "pool.test_dialing.AttemptTests.test_mistakes",
        ),
    ),
    Bug(
        "19",
        "predixy, pgbouncer: a place in the pool never comes back, until none is left; or there are more connections "
        "than may be",
        (
            "pool.test_anything.MachineTests.test_anything",
            "pool.test_library.LossTests.test_bounded",
            "pool.test_library.RequestTests.test_failureFrees",
            "pool.test_state.GrowTests.test_retiringCount",
        ),
    ),
    Bug(
        "20",
        "pgbouncer: bytes that are left over are not looked at; a server that is back stays down; a pause makes logins "
        "fail",
        (
            "net.test_transport.TurnTests.test_fairness",
            "pool.test_state.ServersTests.test_probe",
            "proxy.test_session.RoomTests.test_down",
            "operate.test_operate.PauseTests.test_restartedServer",
        ),
    ),
    Bug(
        "21",
        "twemproxy: when there was no file for a client, nobody was accepted ever after",
        (
            "proxy.test_sessions.RoomTests.test_fewFiles",
            "proxy.test_sessions.RoomTests.test_noFiles",
            "operate.workers.test_supervisor.WorkersTests.test_exhausted",
        ),
        "where no file is left at all it is Twisted that accepts: tests.real.test_attack looks at that",
    ),
    Bug(
        "22",
        "twemproxy: clients that are long gone stay connected; libmemcached: an idle connection that its server has "
        "closed counts against a server that is well",
        (
            "proxy.test_session.BooksTests.test_options",
            "proxy.test_session.CloseTests.test_halfClosedIdle",
            "pool.test_connection.TransportTests.test_options",
            "pool.test_state.FailureTests.test_livedForAWhile",
            "pool.test_engine.LossTests.test_askedInConnectionLost",
        ),
    ),
    Bug(
        "23",
        "mcrouter: threads that wait for each other, among others when new settings were wrong",
        (
            "operate.test_service.ChangeTests.test_allOrNothing",
            "operate.test_service.ChangeTests.test_oneAtATime",
            "operate.workers.test_supervisor.WorkersTests.test_workerCannot",
            "operate.workers.test_supervisor.WorkersTests.test_endedMeanwhile",
        ),
        "there are no threads; workers wait for nobody but their parent",
    ),
    # Storms, counts, leaks, crashes
    Bug(
        "24",
        "pgbouncer, mcrouter: floods of connections; twemproxy: each request dials until there are as many as may be",
        (
            "pool.test_state.FailureTests.test_backsOff",
            "pool.test_state.FailureTests.test_noHotLoop",
            "pool.test_state.GrowTests.test_demand",
            "pool.test_state.GrowTests.test_shared",
            "pool.test_library.LossTests.test_idle",
        ),
    ),
    Bug(
        "25",
        "twemproxy: gauges that miss a connection, or fall below nothing; a counter that never counts",
        (
            "pool.test_engine.StartTests.test_repr",
            "operate.test_statistics.ReadTests.test_states",
            "operate.test_statistics.ReadTests.test_clients",
            "operate.test_statistics.ReadTests.test_monotonic",
            "operate.test_statistics.ReadTests.test_everyCounter",
        ),
    ),
    Bug(
        "26",
        "twemproxy and others: memory is lost with each timeout or split request, or never given back",
        (
            "proxy.test_session.PressureTests.test_soft",
            "proxy.test_memory.UnreadTests.test_memoryGivenBack",
            "proxy.test_session.PressureTests.test_keptInSmallPieces",
            "proxy.test_parts.PartsTests.test_counted",
            "pool.test_library.LifeTests.test_collected",
            "pool.test_waiting.WaitersTests.test_leftAway",
            "net.test_transport.TurnTests.test_nothingKept",
        ),
        "how much a process takes under attack is measured by tests.real.test_attack",
    ),
    Bug(
        "27",
        "twemproxy: crashes by a get without a key, a quit with more behind it, many keys at once, a server that is "
        "down, or all of them ejected",
        (
            "wire.memcache.test_dialect.AnyBytesTests.test_requests",
            "wire.memcache.test_exchanges.ExchangeTests.test_retrieval",
            "wire.memcache.test_exchanges.ExchangeTests.test_others",
            "proxy.test_parts.PartsTests.test_unavailable",
            "proxy.test_sessions.EverywhereTests.test_down",
            "proxy.test_session.RoomTests.test_serverRemoved",
        ),
    ),
    Bug(
        "28",
        "pgbouncer: orders of the console that need no authority",
        (
            "operate.test_console.PasswordTests.test_stranger",
            "operate.test_console.PasswordTests.test_wrong",
            "operate.test_console.AdminServiceTests.test_private",
            "config.test_settings.SettingsTests.test_admin",
        ),
    ),
    Bug(
        "29",
        "Redis proxies: what needs a connection of its own crashes, overtakes what was asked before, or costs a new "
        "one each time; redis-py: a cancel while a connection is reset loses it",
        (
            "proxy.test_sessions.EverywhereTests.test_order",
            "proxy.test_parts.PartsTests.test_order",
            "pool.test_library.CancelTests.test_lease",
            "pool.test_library.CancelTests.test_atHandOver",
            "pool.test_library.LeaseTests.test_resetFails",
            "pool.test_library.LeaseTests.test_lostInReset",
        ),
        "memcached has no commands that block or subscribe, so no session has a connection of its own; nobody waits "
        "for a reset who could cancel it",
    ),
    Bug(
        "30",
        "Envoy: what is pipelined behind a login is refused, because the login is checked elsewhere meanwhile",
        (
            "proxy.test_session.GateTests.test_admitted",
            "wire.memcache.test_auth.GateTests.test_behind",
            "pool.test_dialing.AttemptTests.test_handshakeAwaited",
            "config.test_credentials.GreetingTests.test_login",
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
                case, _, method = f"tests.{name}".rpartition(".")
                self.assertTrue(issubclass(namedAny(case), SynchronousTestCase), name)
                self.assertTrue(method.startswith("test_"), name)
                self.assertTrue(inspect.isfunction(getattr(namedAny(case), method, None)), name)
