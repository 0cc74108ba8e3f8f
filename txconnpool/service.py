# Copyright txconnpool contributors. See LICENSE.
"""
The pool and the proxy as services, for any C{MultiService}.
"""

from __future__ import annotations

from txconnpool.operate.service import PoolService, ProxyService

__all__ = ["PoolService", "ProxyService"]
