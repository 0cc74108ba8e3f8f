# -*- test-case-name: tests.test_plugin -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What txconnpool adds to Twisted: the C{twistd} command C{connpool}, and the endpoint string C{memory:}.

Twisted imports this module for any C{twistd} command and any endpoint string that it does not know, so it imports
nothing of txconnpool before that is used.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer

connpool = ServiceMaker(
    "txconnpool",
    "txconnpool.tap",
    "A connection pool and pooling proxy for memcached.",
    "connpool",
)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class MemoryEndpointParser:
    """
    Makes the endpoints of C{memory:} strings: see L{txconnpool.memcache.memory.MemoryParser}.
    """

    prefix = "memory"

    @staticmethod
    def parseStreamClient(reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """
        Hand over to L{txconnpool.memcache.memory.MemoryParser}.
        """
        from txconnpool.memcache.memory import MemoryParser

        return MemoryParser().parseStreamClient(reactor, *args, **kwargs)


memoryEndpointParser = MemoryEndpointParser()
