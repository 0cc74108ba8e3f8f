# -*- test-case-name: tests.net.test_clock -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Make a reactor's clock independent of changes of the system's clock.

Twisted's reactors schedule timers by the system's clock. If the clock is set back by an hour, no timer fires for an
hour, so that no timeout detects a server that hangs. If it is set forward, all timeouts expire at once.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase


def steady(reactor: Any) -> None:
    """
    Make a reactor use the monotonic clock from now on. This is for a process that belongs to txconnpool, since it
    changes the reactor for the whole process.

    The value of C{reactor.seconds()} continues without a jump, so running timers stay correct. C{memory:} compares the
    expiration dates that clients send with this time; memcached uses a monotonic clock for that too.

    @param reactor: a reactor of Twisted; any other object is not changed.
    """
    if isinstance(reactor, ReactorBase):
        monotonic = time.monotonic
        offset = reactor.seconds() - monotonic()
        reactor.seconds = lambda: offset + monotonic()
