"""The etcd registry: flannel's keys in an etcd cluster say which node owns which subnet.

`client`, `session` and `stream` alone import grpc, which costs a daemon 30 MB: import them only where etcd is the
registry.
"""

import os

# grpc writes lines of its own to stderr, in its own form, about what we report as errors. It looks when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
