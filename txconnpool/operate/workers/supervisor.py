# -*- test-case-name: tests.operate.workers.test_supervisor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Several processes behind the same listening sockets, for more than one processor.

The first process listens and accepts, and gives each client, as a socket, to the worker that has the fewest: so they
have equal numbers of them, and the bound on clients holds for all together. Each worker has its share of the other
bounds. When one dies another takes its place, and only its own clients have noticed.
L{txconnpool.operate.workers.worker} is the other side.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import reduce
from random import uniform
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReadDescriptor
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.config.changes import Address, CannotChange, Plan
from txconnpool.config.files import checkFiles
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.net.endpoints import Listener, raised
from txconnpool.operate.logs import relay
from txconnpool.operate.operations import OperationError, mergeRows, mergeTexts, noSession
from txconnpool.operate.reload import Changeable
from txconnpool.operate.service import cannotChange, statisticsService
from txconnpool.operate.statistics.snapshot import countersOf, mergeSnapshots, takeSnapshot
from txconnpool.operate.statistics.table import ProcessSource
from txconnpool.operate.workers.channel import Channel, ChannelError, ChannelLost, ignoreLost
from txconnpool.operate.workers.worker import ANSWERS, BATCH, CLIENTS, STDERR, STDIN, STDOUT, Facade
from txconnpool.pool.decisions.limits import Backoff
from txconnpool.proxy.listener import withBacklog
from txconnpool.proxy.memory import BufferedBytes

_log = Logger("txconnpool.workers")

#: A worker that ran for so many seconds and then died is replaced as if it were the first time.
STEADY = 60.0

#: Seconds that a worker has to tell its numbers.
PATIENCE = 1.0

#: Seconds that a worker has to end after its sessions have been closed.
GRACE = 2.0

#: Seconds until clients are accepted again when the system has no descriptor left.
EXHAUSTED = 0.5

#: Bytes of a line that a worker prints, at most.
LINE_MAX = 1 << 16

#: Sockets that keep what is sent apart, and tell when the other end is closed. Some systems have only the first.
_PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


def shares(settings: Settings, workers: int) -> Iterator[Settings]:
    """
    Divide the bounds of a process among several, so that they hold for all together. C{maxClients} stays whole: it is
    the parent that counts them.
    """
    for index in range(workers):
        yield replace(
            settings,
            pools=tuple(_share(pool, workers, index) for pool in settings.pools),
            workers=1,
            maxUnreadBytes=max(settings.maxUnreadBytes // workers, 1 << 20),
            stats=None,
            admin=None,
            adminPasswordFile=None,
        )


def _share(pool: PoolSettings, workers: int, index: int) -> PoolSettings:
    def part(whole: int) -> int:
        return whole // workers + (index < whole % workers)

    size = part(pool.poolSize)
    return replace(pool, poolSize=size, minPoolSize=min(size, part(pool.minPoolSize)), maxWaiting=part(pool.maxWaiting))


class Binding(Facade):
    """
    Of the parent: binds and listens, and leaves it to an L{Entrance} to accept.
    """

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> IListeningPort:
        """
        Bind a TCP port.
        """
        return _bound(self._reactor.listenTCP(port, factory, backlog, interface))

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        """
        Bind a UNIX socket.
        """
        return _bound(self._reactor.listenUNIX(address, factory, backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Factory) -> IListeningPort:
        """
        Use a socket that listens already.
        """
        return _bound(self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory))


def _bound(port: Any) -> IListeningPort:
    port.stopReading()
    bound: IListeningPort = port
    return bound


class _Nobody(Factory):
    """
    Of sockets from which nothing is accepted here.
    """

    noisy = False

    def __init__(self, pool: str) -> None:
        self._pool = pool

    def logPrefix(self) -> str:
        """
        @return: who listens, for Twisted's log.
        """
        return f"pool {self._pool}"


@implementer(IReadDescriptor)
class Entrance:
    """
    Accepts the clients of one listening socket.

    @ivar pool: whose clients they are.
    @ivar description: the endpoint's description.
    """

    def __init__(
        self, reactor: Any, pool: str, description: str, port: Any, welcome: Callable[[Entrance, socket.socket], object]
    ) -> None:
        """
        @param port: what is bound.
        @param welcome: called with each client, which it closes.
        """
        self.pool = pool
        self.description = description
        self._port = port
        self._reactor = reactor
        self._welcome = welcome
        self._socket = socket.socket(fileno=os.dup(port.fileno()))
        self._open = False
        self._later: IDelayedCall | None = None

    def open(self) -> None:
        """
        Accept clients.
        """
        if not self._open:
            self._open = True
            self._reactor.addReader(self)

    def shut(self) -> None:
        """
        Accept none for now; they wait in the system's queue.
        """
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def close(self) -> Deferred[None]:
        """
        Listen no more.
        """
        self.shut()
        self._socket.close()
        return maybeDeferred(self._port.stopListening)

    def fileno(self) -> int:
        """
        @return: the descriptor to watch.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        @return: who this is, for logs.
        """
        return self.pool

    def doRead(self) -> None:
        """
        Accept who is there.
        """
        for _ in range(BATCH):
            try:
                client, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("{pool}: cannot accept clients: {error}", pool=self.pool, error=error)
                self.shut()
                self._later = self._reactor.callLater(EXHAUSTED, self._again)
                return
            self._welcome(self, client)

    def _again(self) -> None:
        self._later = None
        self.open()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has ended.
        """


class Worker(ProcessProtocol):
    """
    A worker, as its parent sees it.

    @ivar number: from 1.
    @ivar ready: whether it takes clients.
    @ivar leaving: whether it is about to end.
    """

    transport: Any

    def __init__(self, number: int, settings: Settings, parent: Workers, clients: socket.socket) -> None:
        """
        @param clients: where it takes its clients from.
        """
        self.number = number
        self.ready = self.leaving = False
        self._settings = settings
        self._parent = parent
        self._clients = clients
        self._given: Counter[str] = Counter()
        self._gone: Counter[str] = Counter()
        self._printed = b""
        self.since = 0.0

    def connectionMade(self) -> None:
        """
        Tell it what it is to be.
        """
        self.since = self._parent.reactor.seconds()
        self.channel = Channel(lambda data: self.transport.writeToChild(STDIN, data), self._answer)
        self.channel.call("start", asdict(self._settings)).addCallbacks(self._started, self._notStarted)

    def _started(self, _: None) -> None:
        self._parent.started(self).addCallback(self._beReady)

    def _beReady(self, _: object) -> None:
        self.ready = True
        self._parent.readinessChanged()

    def _notStarted(self, failure: Failure) -> None:
        if not failure.check(ChannelLost):
            _log.error("worker {number} did not start: {why}", number=self.number, why=failure.getErrorMessage())
            self.transport.signalProcess("KILL")

    def _answer(self, name: str, *args: Any) -> Any:
        if name == "gone":
            self._gone = Counter(*args)
        elif name == "leaving":
            self.ready, self.leaving = False, True
            self._parent.readinessChanged()
        else:
            return self._parent.answer(name, *args)
        return None

    # -- Clients

    def clients(self, pool: str) -> int:
        """
        @return: how many clients of a pool it has.
        """
        return self._given[pool] - self._gone[pool]

    @property
    def load(self) -> int:
        """
        How many clients it has.
        """
        return self._given.total() - self._gone.total()

    def take(self, entrance: Entrance, client: socket.socket, welcome: bool) -> bool:
        """
        Give it a client.

        @param welcome: whether it is to be served, or told that there are too many.

        @return: whether it has taken it.
        """
        label = f"{'+' if welcome else '-'}{entrance.pool}\0{entrance.description}".encode()
        try:
            socket.send_fds(self._clients, [label], [client.fileno()])
        except OSError:  # it is too busy, or about to end
            return False
        self._given[entrance.pool] += welcome
        return True

    # -- The process

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Take what it says; what it prints goes to the log.
        """
        if childFD == ANSWERS:
            self.channel.dataReceived(data)
            return
        *lines, self._printed = (self._printed + data).split(b"\n")
        if len(self._printed) > LINE_MAX:
            lines, self._printed = [*lines, self._printed], b""
        for line in lines:
            relay(_log, self.number, line)

    def processEnded(self, reason: Failure) -> None:
        """
        It has ended.
        """
        self.ready = False
        self._clients.close()
        self.channel.lost()
        self._parent.ended(self, reason)

    def kill(self) -> None:
        """
        End it by force.
        """
        _log.error("worker {number} did not end in time: killing it", number=self.number)
        self.transport.signalProcess("KILL")


class Workers(Service, Changeable):
    """
    The proxy in several processes: listens in this one, and works in others.

    @ivar workers: those that run, by their numbers.
    @ivar statistics: serves them, a L{txconnpool.operate.http.StatisticsService}, or C{None}.
    """

    def __init__(self, settings: Settings, reactor: Any = None) -> None:
        """
        @param settings: the whole of it; C{settings.workers} processes share its bounds.
        @param reactor: where to run; the global reactor if not given.
        """
        Changeable.__init__(self, settings)
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self.workers: dict[int, Worker] = {}
        self._entrances: dict[tuple[str, str], Entrance] = {}
        self._shut: set[Entrance] = set()
        self._starting: set[int] = set()
        self._paused: set[str] = set()
        self._drained: set[str] = set()
        self._backoff = Backoff(initial=0.2, maximum=10.0)
        self._deaths: Counter[int] = Counter()
        self._restarts: dict[int, IDelayedCall] = {}
        self._ending: Deferred[None] | None = None
        self._killing: IDelayedCall | None = None
        self._since = time.time()
        self._told: dict[int, dict[str, Any]] = {}
        self._past: dict[str, Any] | None = None
        self.statistics = statisticsService(settings.stats, self.snapshot, reactor)
        self._hurry = False
        self._filesRead = False
        self.setName("workers")

    # -- Listening

    def privilegedStartService(self) -> None:
        """
        Bind what clients connect to, and listen for those who want statistics.

        @raise ConfigError: a file that the settings name cannot be read, or is of no use.
        @raise CannotListenError: an address is taken or not ours.
        """
        self._readFiles()
        if self.statistics is not None:
            self.statistics.privilegedStartService()
        super().privilegedStartService()
        self._bind()

    def _readFiles(self) -> None:
        if not self._filesRead:
            checkFiles(self.settings)
            self.rememberFiles()
            self._filesRead = True

    def _bind(self) -> None:
        for pool in self.settings.pools:
            for description in pool.listen:
                if (pool.name, description) not in self._entrances:
                    self._entrances[pool.name, description] = self._entrance(pool.name, description)

    def _entrance(self, pool: str, description: str) -> Entrance:
        """
        @raise CannotListenError: the address is taken or not ours.
        """
        ports: list[IListeningPort] = []
        listener = Listener(Binding(self.reactor), withBacklog(description))
        raised(listener.listen(_Nobody(pool))).addCallback(ports.append)
        (port,) = ports
        return Entrance(self.reactor, pool, description, port, self._welcome)

    def _welcome(self, entrance: Entrance, client: socket.socket) -> None:
        """
        Give a client to the worker that has the fewest.
        """
        name = entrance.pool
        workers = sorted((worker for worker in self.workers.values() if worker.ready), key=lambda each: each.load)
        most = next(pool.maxClients for pool in self.settings.pools if pool.name == name)
        welcome = sum(worker.clients(name) for worker in workers) < most
        with client:
            if not any(worker.take(entrance, client, welcome) for worker in workers):
                _log.error("{pool}: no worker takes a client", pool=name)

    def started(self, worker: Worker) -> Deferred[Any]:
        """
        A worker has started. Before it takes clients it is to do as the others were told.

        @return: fires when it does.
        """
        self._starting.discard(worker.number)
        operations: list[tuple[Any, ...]] = [("pause", pool) for pool in sorted(self._paused)]
        operations += [("drain", server, False) for server in sorted(self._drained)]
        return DeferredList([
            worker.channel.call("perform", *each).addErrback(self._notDone, worker.number) for each in operations
        ])  # fmt: skip

    def _notDone(self, failure: Failure, number: int) -> None:
        _log.warn("worker {number}: {why}", number=number, why=failure.getErrorMessage())

    def readinessChanged(self) -> None:
        """
        A worker has begun, or ceased, to take clients. While none does, clients wait in the system's queue; also, at
        first, until all do, for they would all become clients of the first one.
        """
        ready = not self._starting and any(worker.ready for worker in self.workers.values())
        for entrance in self._entrances.values():
            if ready and entrance not in self._shut:
                entrance.open()
            else:
                entrance.shut()

    # -- Workers

    def startService(self) -> None:
        """
        Start the workers.
        """
        self._readFiles()
        self._since = time.time()
        if self.statistics is not None:
            self.statistics.startService()
        super().startService()
        self._bind()
        self._starting.update(range(1, self.settings.workers + 1))
        for number in sorted(self._starting):
            self._spawn(number)
        _log.info("{count} workers share the bounds of all pools", count=self.settings.workers)

    def _share(self, number: int) -> Settings:
        return list(shares(self.settings, self.settings.workers))[number - 1]

    def _spawn(self, number: int) -> None:
        self._restarts.pop(number, None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, _PACKETS)
        ours.setblocking(False)
        worker = self.workers[number] = Worker(number, self._share(number), self, ours)
        descriptors = {STDIN: "w", STDOUT: "r", STDERR: "r", ANSWERS: "r", CLIENTS: theirs.fileno()}
        command = [sys.executable, "-m", "txconnpool.operate.workers.worker"]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
        with theirs:
            try:
                self.reactor.spawnProcess(worker, sys.executable, command, environment, childFDs=descriptors)
            except OSError as error:
                ours.close()
                del self.workers[number]
                self._starting.discard(number)
                self._replace(number, str(error))

    def ended(self, worker: Worker, reason: Failure) -> None:
        """
        A worker has ended. If it was not told to, another takes its place.
        """
        number = worker.number
        del self.workers[number]
        if number in self._told:
            ended = countersOf(self._told.pop(number))
            self._past = ended if self._past is None else mergeSnapshots(self._past, ended)
        self._starting.discard(number)
        self.readinessChanged()
        if self._ending is not None:
            if not self.workers:
                self._ending.callback(None)
            return
        if self.reactor.seconds() - worker.since > STEADY:
            self._deaths[number] = 0
        self._replace(number, reason.getErrorMessage())

    def _replace(self, number: int, reason: str) -> None:
        self._deaths[number] += 1
        delay = self._backoff.delay(self._deaths[number], uniform)
        _log.error("worker {number} ended: {reason}; another starts in {delay:.1f} s", number=number,
                   reason=reason, delay=delay)  # fmt: skip
        self._restarts[number] = self.reactor.callLater(delay, self._spawn, number)

    def answer(self, name: str, *args: Any) -> Any:
        """
        Answer a worker's call.
        """
        if name == "statistics":
            return self.snapshot()
        raise ChannelError(f"no call {name!r}")

    def snapshot(self) -> Deferred[dict[str, Any]]:
        """
        Read the numbers of all workers. One that does not answer has those it last had.

        @return: fires with the sums, with what workers have counted that have ended since.
        """
        return Deferred.fromCoroutine(self._snapshot())

    async def _snapshot(self) -> dict[str, Any]:
        def keep(told: dict[str, Any], number: int) -> None:
            if number in self.workers:
                self._told[number] = told

        await DeferredList([
            worker.channel.call("statistics").addTimeout(PATIENCE, self.reactor).addCallbacks(
                keep, lambda failure: None, (number,)
            )
            for number, worker in self.workers.items()
        ])  # fmt: skip
        lag = None if self.statistics is None else self.statistics.lag
        own = takeSnapshot(ProcessSource(self._since, BufferedBytes(0), lag), [])
        parts = [own, *self._told.values()]
        return reduce(mergeSnapshots, parts if self._past is None else [*parts, self._past])

    # -- The end

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, and let each worker end as the proxy does.

        @return: fires when the last of them has ended.
        """
        super().stopService()
        self._filesRead = False
        for restart in self._restarts.values():
            restart.cancel()
        self._restarts.clear()
        stopping = Deferred.fromCoroutine(self._stop())
        if self.statistics is not None:
            # They are there until all else has ended.
            stopping.addBoth(lambda result: self.statistics.stopService().addCallback(lambda _: result))
        return stopping

    async def _stop(self) -> None:
        entrances, self._entrances = self._entrances, {}
        await DeferredList([entrance.close() for entrance in entrances.values()])
        if not self.workers:
            return
        self._ending = Deferred()
        if self._hurry:
            self._tell("abort", GRACE)
        else:
            self._tell("stop", self.settings.drainTimeout + GRACE)
        await self._ending
        self._ending = None
        self._hurry = False
        self._spare()

    def _tell(self, call: str, timeout: float) -> None:
        """
        Have all workers end, and those that have not after C{timeout} seconds, by force.
        """
        for worker in self.workers.values():
            worker.channel.call(call).addErrback(ignoreLost)
        self._spare()
        self._killing = self.reactor.callLater(timeout, self._kill)

    def _kill(self) -> None:
        self._killing = None
        for worker in self.workers.values():
            worker.kill()

    def _spare(self) -> None:
        """
        End nobody by force, for now.
        """
        if self._killing is not None:
            self._killing.cancel()
            self._killing = None

    def status(self) -> str:
        """
        @return: how things are, in one line.
        """
        workers = self.workers.values()
        ready = sum(1 for worker in workers if worker.ready)
        return f"clients: {sum(worker.load for worker in workers)}, workers: {ready} of {self.settings.workers}"

    def abort(self) -> None:
        """
        End at once what L{stopService} waits for.
        """
        self._hurry = True
        if self._ending is not None:
            self._tell("abort", GRACE)

    # -- Changes

    def _listening(self) -> list[Address]:
        return list(self._entrances)

    async def _apply(self, change: Plan) -> None:
        """
        Put settings in force here and in all workers. What is listened on is bound first; then the workers are told,
        and told to go back if one of them cannot.
        """
        new = change.settings
        opened: dict[Address, Entrance] = {}
        try:
            for address in change.opened:
                opened[address] = self._entrance(*address)
        except Exception as error:
            await gatherResults([entrance.close() for entrance in opened.values()])
            raise cannotChange(error) from None
        moved = {(taker, each): self._entrances[giver, each] for each, giver, taker in change.moved}
        entrances = {**{address: self._entrances[address] for address in change.kept}, **moved, **opened}
        removed = [self._entrances[address] for address in change.closed]
        # Until the workers know, clients must not come in by what there was before.
        self._shut.update(moved.values(), removed)
        self.readinessChanged()
        old, self.settings = self.settings, new
        faults = await self._tellSettings()
        if faults:
            self.settings = old
            await self._tellSettings()
        elif not self.running:
            faults = "the proxy is stopping"
        self._shut.clear()
        if faults:
            self.readinessChanged()
            await gatherResults([entrance.close() for entrance in opened.values()])
            raise CannotChange(faults)
        self._entrances = entrances
        self._paused &= {pool.name for pool in new.pools}
        self._drained &= {server for pool in new.pools for server in pool.upstream}
        for (pool, _), entrance in entrances.items():
            entrance.pool = pool
        self.readinessChanged()
        await gatherResults([entrance.close() for entrance in removed])

    def perform(self, name: str, *args: Any) -> Deferred[Any]:
        """
        Perform an operation in all workers, see L{txconnpool.operate.operations.Operations.perform}. Sessions have the
        number of their worker, a dot, and their number there.

        @return: fires with rows, or lines about what was done; fails with L{OperationError}.
        """
        return Deferred.fromCoroutine(self._perform(name, *args))

    async def _perform(self, name: str, *args: Any) -> Any:
        if name == "kill":
            return await self._killSession(*args)
        # One that is about to begin is to hear of orders too, but has nothing to show yet.
        workers = [
            worker.number for worker in self.workers.values() if worker.ready or worker.leaving or name != "rows"
        ]
        done, faults = await self._call("perform", dict.fromkeys(workers, (name, *args)))
        if name == "rows":
            what, most = args
            return mergeRows(what, done, most)
        if faults or not done:
            raise OperationError(mergeTexts({**done, **faults}, "\n") if faults else "no worker runs at the moment")
        self._remember(name, *args)
        return mergeTexts(done, "\n")

    async def _killSession(self, session: str) -> str:
        number, _, inside = session.partition(".")
        for worker in self.workers.values():
            if str(worker.number) == number:
                done, _ = await self._call("perform", {worker.number: ("kill", inside)})
                if done:
                    return f"session {session} closed"
        raise noSession(session)

    def _remember(self, name: str, what: str | None, *rest: Any) -> None:
        """
        Keep what workers that start later are to do too.
        """
        pools = {pool.name for pool in self.settings.pools} if what is None else {what}
        if name == "pause":
            self._paused |= pools
        elif name == "resume":
            self._paused -= pools
        elif name == "drain":
            self._drained |= pools
        elif name == "restore":
            self._drained -= pools

    async def _tellSettings(self) -> str:
        """
        Have all workers put their shares of the settings in force. One that ends instead is followed by one that starts
        with what is in force by then.

        @return: why not, or nothing.
        """
        staying = [worker.number for worker in self.workers.values() if not worker.leaving]
        _, faults = await self._call("apply", {number: (asdict(self._share(number)),) for number in staying})
        return mergeTexts(faults, "\n") if faults else ""

    async def _call(self, name: str, calls: Mapping[int, tuple[Any, ...]]) -> tuple[dict[int, Any], dict[int, str]]:
        """
        Call workers.

        @param calls: the arguments for each of them, by its number.

        @return: what they answered, and why others could not. Those that have ended instead are in neither.
        """
        answers = [self.workers[number].channel.call(name, *args) for number, args in calls.items()]
        done: dict[int, Any] = {}
        faults: dict[int, str] = {}
        for number, (success, result) in zip(calls, await DeferredList(answers, consumeErrors=True), strict=True):
            if success:
                done[number] = result
            elif not result.check(ChannelLost):
                faults[number] = result.getErrorMessage()
        return done, faults
