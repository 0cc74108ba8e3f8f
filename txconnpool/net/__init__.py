# Copyright txconnpool contributors. See LICENSE.
"""
Sockets, endpoints and time.
"""
