# -*- test-case-name: tests.pool.test_forks -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What happens to pools in a child process after C{os.fork}.

The child has copies of all objects, and shares the sockets with its parent. If it used a connection, or closed it, the
parent would receive replies to requests that it has not sent, or lose the connection. So in the child each pool that
was started is without connections, and its use is an error. The parent goes on unharmed.
"""

from __future__ import annotations

import os
from typing import Any, Final
from weakref import WeakSet

#: The text of the error for requests in a child process.
FORKED: Final = "the pool belongs to the parent process: after fork() make another one in the child"

_started: WeakSet[Any] = WeakSet()


def watch(pool: Any) -> None:
    """
    A pool was started: call its method C{forked} in each child process.
    """
    _started.add(pool)


def _inChild() -> None:
    for pool in list(_started):
        pool.forked()
    _started.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_inChild)
