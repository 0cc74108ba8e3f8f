# Copyright txconnpool contributors. See LICENSE.
"""
Run the proxy, and see inside it while it runs.
"""
