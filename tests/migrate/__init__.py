# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate}.
"""
