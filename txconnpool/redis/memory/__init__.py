# Copyright txconnpool contributors. See LICENSE.
"""
A small Redis embedded in the process, for tests of programs without a server: see L{txconnpool.testing.FakeRedis}.

C{data} has the databases, C{server} the connections, and the other modules the commands. Replies are those of Redis
7.0, byte for byte.
"""

from __future__ import annotations
