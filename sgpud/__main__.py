"""The entry point of every `sgpud` process: the console script, the package's, `python -m sgpud`.

What concerns the whole process is done here, and by no import.
"""

from __future__ import annotations

import signal
import sys


def run() -> int:
    """Run one command; its exit status."""
    # The default action of SIGHUP would end a daemon that is still importing.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Twisted imports pyOpenSSL if it is installed: a fifth of the start, for TLS that nobody uses.
    sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]

    from sgpud.cli.main import main  # noqa: PLC0415 - after the above

    return main()


if __name__ == "__main__":
    sys.exit(run())
