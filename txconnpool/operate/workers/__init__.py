# Copyright txconnpool contributors. See LICENSE.
"""
The proxy in several processes, for more than one processor.

The parent process listens and accepts, and sends each client, as a socket, to the worker process with the fewest
clients. So the workers have about equal numbers of clients, and the maximum of clients holds for all together. The
other bounds are divided among the workers. A worker that ends is replaced, and only its own clients lose their
connections.

L{txconnpool.operate.workers.supervisor} runs in the parent, L{txconnpool.operate.workers.worker} in each worker.
"""
