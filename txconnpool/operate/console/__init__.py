# Copyright txconnpool contributors. See LICENSE.
"""
The console: an operator administers the proxy by lines of text, for instance with C{nc}.

A reply is any number of lines of text, then one that begins with C{OK} or C{ERROR}.
"""
