# Copyright txconnpool contributors. See LICENSE.
"""
Transports, endpoints, TLS and clocks.
"""
