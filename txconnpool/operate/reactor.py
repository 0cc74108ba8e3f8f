# -*- test-case-name: tests.operate.test_reactor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The reactor of a process that belongs to txconnpool.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from txconnpool.net.clock import steady

#: The module of L{TurnReactor<txconnpool.net.reactor.TurnReactor>}.
OURS = "txconnpool.net.reactor"


def processReactor(module: str = OURS) -> Any:
    """
    Install a reactor, unless there is one already: C{twistd} has installed the one of its option C{--reactor}. Make it
    use the monotonic clock.

    @param module: the name of a module that installs a reactor. If the platform does not support it, Twisted's default
        reactor is installed.

    @return: the reactor.
    """
    if "twisted.internet.reactor" not in sys.modules:
        try:
            install = import_module(module).install
        except (ImportError, AttributeError):
            pass  # importing the reactor installs Twisted's default
        else:
            install()
    from twisted.internet import reactor

    steady(reactor)
    return reactor


def reactorName() -> str:
    """
    @return: the name of the class of the installed reactor, C{"none"} if there is none.
    """
    reactor = sys.modules.get("twisted.internet.reactor")
    return "none" if reactor is None else type(reactor).__name__
