# -*- test-case-name: tests.operate.test_command -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The proxy as a process of its own, under C{twistd} or C{twist}: signals, reload, exit.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from txconnpool.config.changes import CannotChange, summary
from txconnpool.config.settings import ConfigError, Settings
from txconnpool.net.listening import describeListenError
from txconnpool.operate.console.service import ConsoleService
from txconnpool.operate.systemd import Notifier

_log = Logger("txconnpool.command")

T = TypeVar("T")


class CannotStart(Exception):
    """
    The command cannot start. The text of this exception is one line for the operator.
    """


class Signals:
    """
    Signal handlers that can be taken back.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._before: dict[signal.Signals, Any] = {}

    def handle(self, number: signal.Signals, handler: Callable[[], object]) -> None:
        """
        Call C{handler} in a turn of the reactor, after each signal of this number.
        """
        before = signal.signal(number, lambda number, frame: self._reactor.callFromThread(handler))
        self._before.setdefault(number, before)

    def restore(self) -> None:
        """
        Restore the handlers that were there before the first L{handle}.
        """
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()


class CommandService(MultiService):
    """
    The service of the command C{twistd connpool}, which has the process to itself: when a part of it cannot listen, the
    process exits with one line; SIGHUP reads the settings again; a second signal during a stop ends the stop at once.

    An application that embeds L{ProxyService<txconnpool.service.ProxyService>} has exceptions and methods instead.

    @ivar reactor: the reactor.
    """

    def __init__(
        self,
        proxy: Any,
        load: Callable[[], Settings],
        reactor: Any,
        observer: Callable[[], ILogObserver] | None = None,
    ) -> None:
        """
        @param proxy: the L{ProxyService<txconnpool.operate.service.ProxyService>} or
            L{SupervisorService<txconnpool.operate.workers.supervisor.SupervisorService>}. The caller makes it a child
            of this service.
        @param load: reads the settings again.
        @param observer: makes the log observer of the application; C{None}: C{twistd} makes its own.
        """
        super().__init__()
        self.reactor = reactor
        self._observer = observer
        self._notifier = Notifier(lambda: str(proxy.status()), reactor)
        self._proxy = proxy
        self._load = load
        self._signals = Signals(reactor)
        self._stopping = False
        self._immediately = False

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of the application, and give it the log observer.
        """
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer())
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """
        Listen. Only C{twistd} calls this.

        @raise CannotStart: an address cannot be listened on, or a file that the settings name cannot be read.
        """
        self._startOrExit(super().privilegedStartService)

    def startService(self) -> None:
        """
        Start. Under C{twist}, also listen.

        @raise CannotStart: an address cannot be listened on, or a file that the settings name cannot be read.
        """
        self._startOrExit(super().startService)
        self._proxy.serving().addCallbacks(self._serves, self._failed)

    def _serves(self, _: None) -> None:
        self._notifier.startService()

    def _failed(self, _: Failure) -> None:
        """
        No client can be served: end the process with exit code 1. The log has the reason.
        """
        atexit.register(_exitWithFailure)
        self.shutdown(True)

    def _startOrExit(self, start: Callable[[], None]) -> None:
        """
        Start, or end the process with one line.

        @raise CannotStart: ends the process, after twistd's own cleaning up. The line is printed by C{sys.excepthook}
            or, when twistd has become a daemon, by its parent process, to which twistd sends the exception.
        """
        # Whoever sees that the process listens may send SIGHUP, which would end it.
        self._signals.handle(signal.SIGHUP, self._hangUp)
        try:
            start()
        except (CannotListenError, OSError) as error:
            problem = describeListenError(error)
            if problem is None:
                raise
            text = f"cannot listen on {problem}; choose another endpoint with --{self._failedOption()}"
        except ConfigError as error:
            text = str(error)
        else:
            return
        self._signals.restore()
        _log.error("{text}", text=text)
        sys.excepthook = _printError
        raise CannotStart(text)

    def _failedOption(self) -> str:
        """
        @return: the option with the address that cannot be listened on.
        """
        statistics = self._proxy.statistics
        if not all(each.listening for each in self if isinstance(each, ConsoleService)):
            return "admin"
        return "stats" if statistics is not None and statistics.port is None else "listen"

    # -- Reload

    def reload(self) -> Deferred[list[str]]:
        """
        Read the settings again, and put all of them in force, or none.

        @return: fires with a line for each change; fails with L{ConfigError} or L{CannotChange}.
        """
        self._notifier.reloading()
        changed: Deferred[list[str]] = self._proxy.change(lambda old: self._load())
        return changed.addCallbacks(self._reloaded, self._notReloaded).addBoth(self._notifyReady)

    def _notifyReady(self, result: T) -> T:
        self._notifier.ready()
        return result

    def _reloaded(self, lines: list[str]) -> list[str]:
        _log.info("reloaded, {summary}", summary=summary(lines))
        return lines

    def _notReloaded(self, failure: Failure) -> Failure:
        if failure.check(ConfigError, CannotChange):
            for line in failure.getErrorMessage().split("\n"):
                _log.error("not reloaded: {line}", line=line)
        return failure

    def _hangUp(self) -> None:
        self.reload().addErrback(self._logDefect)

    def _logDefect(self, failure: Failure) -> None:
        if not failure.check(ConfigError, CannotChange):  # these are logged already
            _log.failure("not reloaded", failure)

    # -- Stop

    def shutdown(self, now: bool) -> None:
        """
        Stop the process.

        @param now: whether to close sessions and connections without waiting for requests in flight.
        """
        self._immediately = self._immediately or now
        if not self._stopping:
            self.reactor.stop()
        elif now:
            self._proxy.abort()

    def stopService(self) -> Deferred[None]:
        """
        Stop the parts one after another, the last one first: the console is the first part, and works until the proxy
        has stopped.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        self._notifier.stopService()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._signals.handle(number, self._secondSignal)
        for part in reversed(list(self)):
            stopped = maybeDeferred(part.stopService)
            if self._immediately:
                self._proxy.abort()
            try:
                await stopped
            except Exception:
                _log.failure("{part} did not stop as it should", part=part)
        self._signals.restore()
        self._stopping = self._immediately = False

    def _secondSignal(self) -> None:
        _log.warn("a second signal: ending at once")
        self.shutdown(True)


def _printError(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """
    Print an exception as one line, to the real standard error, which twistd's log has replaced. For C{sys.excepthook}.
    """
    print(error, file=sys.__stderr__)


def _exitWithFailure() -> None:
    """
    End the process with exit code 1, at the end of the interpreter: twistd itself has no other exit code than 0 once it
    runs.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
