"""The stand-in kubelet as kubelet.service of a booted machine: writes when it had its first list.

Its argument is the file for {"socket": ..., "listed": ..., "healthy": ...}, seconds of the
clock that systemd's timestamps use.
"""

import json
import sys
import threading
import time
from pathlib import Path

from sgpud.testing.kubelet.stand_in import StandInKubelet

RESOURCE = "deepomatic.com/shared-gpu"
FOLDER = Path("/var/lib/kubelet")


def main(target: Path) -> None:
    """Serve until killed."""
    kubelet = StandInKubelet(FOLDER / "device-plugins", FOLDER / "pod-resources" / "kubelet.sock")
    began = time.monotonic()
    kubelet.start()
    devices = kubelet.next_devices(RESOURCE, timeout=60)
    found = {"socket": began, "listed": devices.at, "healthy": len(devices.healthy)}
    draft = target.with_suffix(".draft")
    draft.write_text(json.dumps(found))
    draft.replace(target)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
