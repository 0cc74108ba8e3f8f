# Copyright txconnpool contributors. See LICENSE.
"""
Benchmarks: C{python -m tests.bench}. They fail if a reply is wrong, never because a result is slow.
"""
