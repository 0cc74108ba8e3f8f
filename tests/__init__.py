# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool}. Each package of txconnpool has its tests in a package of the same name. C{real} has tests with
real servers, and C{bench} has benchmarks.
"""
