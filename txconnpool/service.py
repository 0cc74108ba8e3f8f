# Copyright txconnpool contributors. See LICENSE.
"""
The pool and the proxy as services, for any C{MultiService}.
"""

from __future__ import annotations

from txconnpool.operate.service import ProxyService
from txconnpool.pool.service import PoolService

__all__ = ["PoolService", "ProxyService"]


def __dir__() -> list[str]:
    return __all__
