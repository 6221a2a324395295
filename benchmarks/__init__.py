"""What sgpud costs, measured from real processes over real sockets, beside two floors."""

import os

# Before gRPC is imported: that connections end is no news in a benchmark.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import sys

# As in sgpud: Twisted would import pyOpenSSL where that is installed, in the skeleton too.
sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]
