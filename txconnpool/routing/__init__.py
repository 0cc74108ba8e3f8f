# Copyright txconnpool contributors. See LICENSE.
"""
Which pool gets a request: the L{IRouter<txconnpool.interfaces.IRouter>}s.
"""
