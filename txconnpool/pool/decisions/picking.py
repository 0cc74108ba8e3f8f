# -*- test-case-name: tests.pool.test_picking -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The connections of a pool by phase, and the choice of one for a request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf

from txconnpool.metrics import Reason
from txconnpool.pool.decisions.actions import Action, Check, Close
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import CHECKING, DIALING, DOUBTFUL, GONE, HELD, OPEN, RETIRING, Record
from txconnpool.pool.decisions.servers import Server

#: The maximum number of requests that are put on one connection because they came together, while other connections
#: may carry less.
TOGETHER = 32


class Records:
    """
    The records of all connections of a pool. Each is in one phase, and in the collections of that phase.

    @ivar all: all records, in the order in which their dials began.
    @ivar open: those in phase C{OPEN}.
    @ivar idle: the open ones that carry nothing, in the order in which they were last known to be alive.
    @ivar doubtful: those in phase C{DOUBTFUL}.
    @ivar dialing: the number of those in phase C{DIALING}.
    @ivar doomed: how many of these will be closed as soon as they are established.
    @ivar checking: the number of those in phase C{CHECKING}.
    @ivar pausedAt: the time since which all established connections are held, or C{None}.
    @ivar ageAt: the time at which L{txconnpool.pool.decisions.ageing.Ageing} is to look at the connections next.
    """

    def __init__(self, limits: Limits) -> None:
        self.all: dict[Record, None] = {}
        self.open: list[Record] = []
        self.idle: deque[Record] = deque()
        self.doubtful: deque[Record] = deque()
        self.dialing = 0
        self.doomed = 0
        self.checking = 0
        self.pausedAt: float | None = None
        self.ageAt = inf
        self._last: Record | None = None  # the record picked last, if it may be picked again, see pick
        self.setLimits(limits)

    def setLimits(self, limits: Limits) -> None:
        """
        Apply other limits, to existing connections too.
        """
        self._lifo = limits.reuse == "lifo"
        self._depth = limits.depth
        self._ageSpan = min((span for span in (limits.idleTimeout, limits.keepAlive) if span), default=inf)
        for record in self.open:
            record.until = 0
            self._accept(record)

    @property
    def connected(self) -> int:
        """
        The number of established connections.
        """
        return len(self.all) - self.dialing

    # -- The data path

    def pick(self, exclusive: bool = False) -> Record | None:
        """
        Choose a connection that has capacity. The caller must add load to it at once.

        Requests that come together are sent together, which costs less than spreading them over connections: a
        connection that has not yet written the last request is picked again, for up to L{TOGETHER} requests.

        @param exclusive: whether it must carry nothing else.

        @return: C{None} if there is no such connection.
        """
        last = self._last
        if last is not None and 0 < last.load < last.until and last.connection.outlet.queued and not exclusive:
            return last
        idle = self.idle
        if idle:
            record = idle.pop() if self._lifo else idle.popleft()
            record.idle = False
        elif exclusive or (best := self._leastLoaded()) is None:
            return None
        else:
            record = best
        if not (exclusive or record.weight):
            record.until = min(record.load + TOGETHER, record.depth)
            self._last = record
        return record

    def _leastLoaded(self) -> Record | None:
        best = None
        least = self._depth
        if least > 1:  # with a depth of 1 only idle connections have capacity
            for record in self.open:
                if record.load < least:
                    best = record
                    least = record.load
        return best

    def hasCapacity(self, record: Record, now: float) -> Sequence[Action]:
        """
        C{record} carries nothing any more. Repeated calls do no harm.
        """
        if record.phase is OPEN:
            record.freeSince = now
            if not record.idle:
                record.idle = True
                self.idle.append(record)
        elif record.phase is RETIRING:
            return [Close(record)]
        return ()

    def engage(self, record: Record) -> None:
        """
        Take C{record} from the idle connections. A connection may carry nothing and yet not be idle: between L{pick}
        and the moment at which the caller adds load, and while its last reply is delivered.
        """
        if record.idle:
            record.idle = False
            self.idle.remove(record)

    def leastLoadedByServer(self) -> dict[Server, Record]:
        """
        @return: the connection with the least load of each server that has an open one.
        """
        return {each.server: each for each in sorted(self.open, key=lambda record: record.load, reverse=True)}

    # -- Phases

    def add(self, server: Server) -> Record:
        """
        @return: a new record, whose dial begins.
        """
        record = Record(server, self._depth)
        record.prior = server.failures
        self.all[record] = None
        self.dialing += 1
        server.count += 1
        server.dialing += 1
        return record

    def dialEnded(self, record: Record) -> None:
        """
        The dial of C{record} succeeded or failed.
        """
        self.dialing -= 1
        self.doomed -= record.doomed
        record.server.dialing -= 1

    def admit(self, record: Record, now: float) -> None:
        """
        Let C{record} be picked, unless there is a reason to hold it.
        """
        if record.held or self.pausedAt is not None:
            record.phase = HELD
            record.depth = 0
            return
        self.ageAt = min(self.ageAt, now + self._ageSpan, record.expires)
        record.phase = OPEN
        self._accept(record)
        self.open.append(record)
        if not record.load:
            record.idle = True
            self.idle.append(record)

    def _accept(self, record: Record) -> None:
        """
        Give C{record} the depth in force. A lease takes all of it.
        """
        if record.lent:
            record.load += self._depth - record.lent
            record.lent = self._depth
        record.depth = self._depth

    def hold(self, record: Record) -> None:
        """
        The server does not read what is sent to it: give C{record} no new requests.
        """
        record.held = True
        if record.phase is OPEN:
            self._leave(record, HELD)

    def unhold(self, record: Record, now: float) -> None:
        """
        The server reads again.
        """
        record.held = False
        self._reopen(record, now)

    def pause(self, now: float) -> None:
        """
        Give no connection new requests.
        """
        if self.pausedAt is None:
            self.pausedAt = now
            for record in self.open.copy():
                self._leave(record, HELD)

    def resume(self, now: float) -> None:
        """
        End a pause.
        """
        self.pausedAt = None
        for record in self.all:
            self._reopen(record, now)

    def _reopen(self, record: Record, now: float) -> None:
        if record.phase is HELD:
            record.freeSince = now
            self.admit(record, now)

    def doubt(self, record: Record) -> None:
        """
        Let C{record}, which is idle, be checked before it is picked.
        """
        self._leave(record, DOUBTFUL)
        self.doubtful.append(record)

    def check(self, record: Record) -> Check:
        """
        Begin to check C{record}.
        """
        self._leave(record, CHECKING)
        self.checking += 1
        return Check(record)

    def checked(self, record: Record, now: float) -> None:
        """
        The check of C{record} succeeded.
        """
        if record.phase is CHECKING:
            self.checking -= 1
            record.checkedAt = now
            self.admit(record, now)

    def retire(self, records: Iterable[Record], reason: Reason) -> list[Action]:
        """
        Close connections as soon as they carry nothing.
        """
        return [action for record in list(records) for action in self.discard(record, reason)]

    def discard(self, record: Record, reason: Reason) -> list[Action]:
        """
        Close one connection as soon as it carries nothing.
        """
        if record.phase in (RETIRING, GONE):
            return []
        record.reason = reason
        if record.phase is DIALING:
            self.doomed += not record.doomed
            record.doomed = True
            return []
        self._leave(record, RETIRING)
        return [] if record.load else [Close(record)]

    def forget(self, record: Record) -> None:
        """
        Remove C{record}, which has no connection any more.
        """
        self._leave(record, GONE)
        del self.all[record]
        if self._last is record:
            self._last = None
        record.server.count -= 1

    def _leave(self, record: Record, phase: str) -> None:
        """
        Take C{record} out of the collections of its phase and give it another one, in which it is not picked.
        """
        if record.phase is OPEN:
            self.open.remove(record)
            self.engage(record)
        elif record.phase is DOUBTFUL:
            self.doubtful.remove(record)
        elif record.phase is CHECKING:
            self.checking -= 1
        record.depth = record.until = 0
        record.phase = phase

    # -- Tests

    def selfCheck(self) -> None:
        """
        Check that the collections and numbers agree with the records. For tests.

        @raise AssertionError: they do not. The text names the broken invariant.
        """
        phases = [record.phase for record in self.all]
        doomed = sum(record.doomed for record in self.all if record.phase is DIALING)
        assert doomed == self.doomed, f"{self.doomed} dials are counted as doomed, not {doomed}"
        assert phases.count(DIALING) == self.dialing, f"{self.dialing} are counted as dialing, not {phases}"
        assert phases.count(CHECKING) == self.checking, f"{self.checking} are counted as checking, not {phases}"
        for phase, mine in ((OPEN, self.open), (DOUBTFUL, [*self.doubtful])):
            its = [record for record in self.all if record.phase is phase]
            assert sorted(mine, key=id) == sorted(its, key=id), f"{mine} are listed as {phase}, not {its}"
        free = [record for record in self.open if not record.load]
        assert sorted(self.idle, key=id) == sorted(free, key=id), f"{[*self.idle]} are listed as idle, not {free}"
        for record in self.all:
            assert record.idle == (record in self.idle), f"idle is wrong: {record}"
            assert 0 <= record.lent <= record.load, f"load is wrong: {record}, {record.lent} lent"
            depth = self._depth if record.phase is OPEN else 0
            assert record.phase is DIALING or record.depth == depth, f"depth is not {depth}: {record}"
        assert self._last is None or self._last in self.all, f"picked last, but gone: {self._last}"
