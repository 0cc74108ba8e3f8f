# Copyright txconnpool contributors. See LICENSE.
"""
Routers, which choose the pool for a request: the L{IRouter<txconnpool.interfaces.IRouter>}s.
"""
