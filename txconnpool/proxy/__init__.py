# Copyright txconnpool contributors. See LICENSE.
"""
The sessions of clients: their requests are forwarded to servers, and the replies are written in the order of the
requests.
"""
