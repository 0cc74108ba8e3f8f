# Copyright txconnpool contributors. See LICENSE.
"""
Several processes that are one proxy.
"""
