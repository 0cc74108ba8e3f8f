# -*- test-case-name: tests.pool.test_limits -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The limits and times of a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Reuse = Literal["lifo", "fifo", "least-loaded"]


@dataclass(frozen=True)
class Backoff:
    """
    The delay after the n-th failed dial in a row: C{initial * factor ** (n - 1)}, at most C{maximum} seconds. Each
    delay is varied at random by plus or minus C{jitter}, so that many processes do not dial a server that comes back at
    the same time::

        backoff = Backoff(initial=0.5, maximum=30)     # delays of 0.5, 1, 2, 4, 8, 16, 30, 30 ... seconds
        pool = MemCachePool("tcp:127.0.0.1:11211", backoff=backoff)
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 1.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} of a Backoff must be a number, not {value!r}")
        for name, right, expected in (
            ("initial", self.initial > 0, "above 0"),
            ("factor", self.factor >= 1, "of at least 1"),
            ("maximum", self.maximum > 0, "above 0"),
            ("jitter", 0 <= self.jitter < 1, "from 0 to less than 1"),
        ):
            if not right:
                raise ValueError(f"{name} of a Backoff must be a number {expected}, not {getattr(self, name)!r}")

    def delay(self, failures: int, vary: Callable[[float, float], float]) -> float:
        """
        @param failures: the number of failed dials in a row, at least 1.
        @param vary: C{random.uniform} or a stand-in.

        @return: seconds.
        """
        # The exponent is bounded so that years of failures do not overflow a float.
        delay = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
        return delay * vary(1 - self.jitter, 1 + self.jitter)


@dataclass(frozen=True)
class Limits:
    """
    The limits and times of a pool. Times are in seconds.

    @ivar maximum: the maximum number of connections, dials in progress included. There is one more while one that is
        too old is replaced.
    @ivar minimum: the number of connections that are kept open.
    @ivar depth: the maximum number of requests in flight on one connection; 1 for protocols without pipelining.
    @ivar dials: the number of dials in progress to one server; 1 after a failed one, until one succeeds.
    @ivar maxWaiting: the maximum number of waiters, including those for which a dial is in progress; C{None}: no limit.
    @ivar waitTimeout: how long a waiter waits; C{None}: no limit.
    @ivar idleTimeout: a connection above C{minimum} is closed when it was idle for this time; 0: never.
    @ivar maxLifetime: a connection is replaced when it is this old, as soon as another one is established; 0: never.
    @ivar lifetimeJitter: the maximum fraction by which each lifetime is shortened at random, so that connections that
        were made together do not end together.
    @ivar reuse: which idle connection is picked: C{"lifo"} picks the one used last and lets the others age, C{"fifo"}
        and C{"least-loaded"} use all evenly. If none is idle, all three pick the least loaded one that has capacity.
    @ivar whenDown: waiters are refused at once when no connection is left and this number of dials in a row has failed;
        C{None}: they wait.
    @ivar checkIfIdleFor: a connection that was idle and unchecked for this time is checked before it is used; C{None}:
        never.
    @ivar keepAlive: an idle connection is checked when it was idle and unchecked for this time; 0: never.
    """

    maximum: int = 5
    minimum: int = 0
    depth: int = 1
    maxWaiting: int | None = None
    waitTimeout: float | None = 30.0
    idleTimeout: float = 600.0
    maxLifetime: float = 3600.0
    lifetimeJitter: float = 0.05
    reuse: Reuse = "lifo"
    whenDown: int | None = 3
    backoff: Backoff = field(default_factory=Backoff)
    checkIfIdleFor: float | None = None
    keepAlive: float = 0.0
    dials: int = 1

    def __post_init__(self) -> None:
        if self.maximum < 1:
            raise ValueError(f"the maximum number of connections must be at least 1, not {self.maximum}")
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(
                f"the minimum number of connections must be from 0 to the maximum, {self.maximum}, not {self.minimum}"
            )
        if self.depth < 1:
            raise ValueError(f"the number of requests in flight on a connection must be at least 1, not {self.depth}")
        if self.dials < 1:
            raise ValueError(f"the number of dials in progress must be at least 1, not {self.dials}")
        if self.maxWaiting is not None and self.maxWaiting < 1:
            # One request must be able to wait for the first connection.
            raise ValueError(f"maxWaiting must be at least 1, not {self.maxWaiting}")
        if self.whenDown is not None and self.whenDown < 1:
            raise ValueError(f"whenDown must be at least 1, not {self.whenDown}")
        for name in ("waitTimeout", "idleTimeout", "maxLifetime", "checkIfIdleFor", "keepAlive"):
            time = getattr(self, name)
            if time is not None and not time >= 0:
                raise ValueError(f"{name} must be a number of seconds from 0, not {time}")
        if not 0 <= self.lifetimeJitter < 1:
            raise ValueError(f"lifetimeJitter must be from 0 to less than 1, not {self.lifetimeJitter}")
        if self.reuse not in ("lifo", "fifo", "least-loaded"):
            raise ValueError(f"reuse must be 'lifo', 'fifo' or 'least-loaded', not {self.reuse!r}")
