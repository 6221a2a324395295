"""The installed daemon with fake GPUs, beside the stand-in kubelet of the sources.

It is started as the wrapper in /usr/bin has it, from the package's own folder.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from sgpud.testing.kubelet.stand_in import StandInKubelet

RESOURCE = "deepomatic.com/shared-gpu"
GPUS = "/usr/share/doc/sgpud/examples/gpus.toml"
WITHIN = 60.0
"""Seconds that any step may take on a slow machine."""
BAD_CONFIGURATION = 78


def main() -> None:
    """Register, place, reload a good file and a bad one, survive a kubelet's restart, end."""
    with tempfile.TemporaryDirectory(prefix="sgpud-") as name:
        folder = Path(name)
        config = folder / "sgpud.toml"
        config.write_text("")
        with StandInKubelet(folder / "device-plugins") as kubelet:
            daemon = subprocess.Popen(
                [
                    *("/usr/bin/sgpud", "run", "--config", config, "--fake-gpus", GPUS),
                    *("--plugin-dir", kubelet.plugin_dir, "--state-dir", folder / "state"),
                    *("--run-dir", folder / "run"),
                ]
            )
            try:
                _use(kubelet, config, folder / "run")
            finally:
                daemon.terminate()
                status = daemon.wait(WITHIN)
            assert status == 0, f"it ended with status {status}"


def _use(kubelet: StandInKubelet, config: Path, run: Path) -> None:
    kubelet.next_registration(timeout=WITHIN)
    whole = len(kubelet.next_devices(RESOURCE, timeout=WITHIN).healthy)
    held = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    assert held.envs["SGPUD_SHARES"] == "1", held.envs

    config.write_text("[sharing]\nduplication_factor = 10\n")
    assert _reload(run) == 0
    devices = kubelet.next_devices(RESOURCE, timeout=WITHIN)
    assert len(devices.healthy) < whole
    assert set(held.ids[RESOURCE]) <= devices.healthy

    config.write_text("[sharing]\nduplication_factor = 0\n")
    assert _reload(run) == BAD_CONFIGURATION

    kubelet.restart()
    kubelet.next_registration(timeout=WITHIN)
    assert set(held.ids[RESOURCE]) <= kubelet.next_devices(RESOURCE, timeout=WITHIN).healthy
    print(f"shared {whole} shares, and kept {held.ids[RESOURCE]} for its container")


def _reload(run: Path) -> int:
    """The status of `sgpud reload`."""
    return subprocess.run(
        ["/usr/bin/sgpud", "reload", "--run-dir", run], check=False, timeout=WITHIN
    ).returncode


if __name__ == "__main__":
    main()
