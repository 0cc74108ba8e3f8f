# Copyright txconnpool contributors. See LICENSE.
"""
Tests of L{txconnpool}: one module per module, C{real} against real servers, C{bench} for measuring.
"""
