# Copyright txconnpool contributors. See LICENSE.
"""
Benchmarks: C{python -m tests.bench}. They measure, they never fail for being slow; only a wrong answer makes them fail.
"""
