# Copyright txconnpool contributors. See LICENSE.
"""
Tests with real servers and real processes, and the tools that these tests share.

A test is skipped, with the reason, if a program that it needs is not installed.
"""
