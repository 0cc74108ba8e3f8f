# -*- test-case-name: tests.net.test_clock -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Time that does not jump.

A reactor goes by the system's clock. When that is put back by an hour, no timer goes off for an hour: a server that
hangs is not noticed, who waits for a connection waits. When it is put forward, all that is in flight is late.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase


def steady(reactor: Any) -> None:
    """
    Have a reactor count on evenly from now, whatever becomes of the system's clock. Of a process that is ours alone.

    What it says does not change by that, so that timers which are running stay right, and values in C{memory:} end at
    the dates that clients give, as those of memcached, which counts in the same way.

    @param reactor: one of Twisted's; any other is left alone.
    """
    if isinstance(reactor, ReactorBase):
        monotonic = time.monotonic
        offset = reactor.seconds() - monotonic()
        reactor.seconds = lambda: offset + monotonic()
