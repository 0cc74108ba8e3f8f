# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster}.
"""
