"""The skeleton: every import of sgpud's run time, a reactor and one listening server, no more."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# inotify runs ldconfig when it is imported: before gRPC has threads.
from twisted.internet import inotify, reactor  # isort: skip
import attrs
import google.protobuf.message
import grpc
import prometheus_client
import sdnotify
from twisted.application import internet, service
from twisted.logger import Logger
from twisted.web import resource, server

from sgpud.kubelet.api import deviceplugin_pb2, podresources_pb2

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def main() -> None:
    """Listen on the unix socket given, print "listening" when it does, run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    path: Path = parser.parse_args().socket
    listening = grpc.server(ThreadPoolExecutor(max_workers=8))
    listening.add_insecure_port(f"unix:{path}")
    listening.start()
    reactor.callWhenRunning(print, "listening", flush=True)
    reactor.run()
    listening.stop(grace=None).wait(5)


if __name__ == "__main__":
    main()
