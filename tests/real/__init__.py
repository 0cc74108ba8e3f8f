# Copyright txconnpool contributors. See LICENSE.
"""
Tests against real servers and real processes, and the tools which they share.

They skip, with a reason, where the program they need is not installed.
"""
