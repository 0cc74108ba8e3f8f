# Copyright txconnpool contributors. See LICENSE.
"""
A client's requests in, and their replies out in order.
"""
