"""Runs the container of a rendered manifest with podman, as a kubelet would have it run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attrs import frozen

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.deploy.rendering import ROOT, Rendered, Renderer

if TYPE_CHECKING:
    from typing_extensions import Self

WITHIN = 60.0
"""Seconds that anything may take."""
_GET = (
    "import sys, urllib.error, urllib.request\n"
    "try: answer = urllib.request.urlopen(sys.argv[1], timeout=10)\n"
    "except urllib.error.HTTPError as error: answer = error\n"
    "print(answer.status)\n"
)


@frozen
class Image:
    """An image in a storage of its own."""

    name: str
    root: str
    need_tool: Callable[[str], str]

    def call(
        self, tool: str, *words: str, timeout: float = WITHIN
    ) -> subprocess.CompletedProcess[str]:
        """Run podman or buildah on that storage."""
        return subprocess.run(
            [self.need_tool(tool), "--root", self.root, "--runroot", f"{self.root}-run", *words],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def podman(self, *words: str) -> str:
        """What podman prints; AssertionError with its complaint."""
        done = self.call("podman", *words)
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def inspect(self, form: str, name: str | None = None) -> str:
        """A part of what is known of an image."""
        return self.podman("image", "inspect", "--format", form, name or self.name)

    def run(self, *words: str) -> str:
        """What a command in the image prints, with nothing allowed to it."""
        program, *arguments = words
        return self.podman("run", "--rm", *_CLOSED, "--entrypoint", program, self.name, *arguments)


# A build machine may not raise its limits, and podman asks for high ones.
_CLOSED = (
    *("--network=none", "--read-only", "--cap-drop=all", "--pull=never"),
    *("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"),
)


class Pod:
    """One running pod."""

    def __init__(self, image: Image, name: str) -> None:
        """Take a container that has been started."""
        self.name = name
        self._image = image

    def probe(self, name: str, container: Mapping[str, Any]) -> int:
        """The status that a probe of the manifest gets."""
        (port,) = container["ports"]
        asked = container[name]["httpGet"]
        assert asked["port"] == port["name"]
        url = f"http://127.0.0.1:{port['containerPort']}{asked['path']}"
        done = self.execute("python3", "-c", _GET, url)
        return int(done.stdout) if done.returncode == 0 else 0

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command inside of it, as `kubectl exec` gives it."""
        return self._image.call("podman", "exec", self.name, *words)

    def terminate(self, grace: int) -> int:
        """SIGTERM, then SIGKILL after the pod's grace period; the exit status."""
        self._image.podman("stop", f"--time={grace}", self.name)
        return int(self._image.podman("wait", self.name))

    def logs(self) -> str:
        """What it has said."""
        done = self._image.call("podman", "logs", self.name)
        return done.stdout + done.stderr


class Machine:
    """A node's folders, a kubelet for them, and pods of the overlay `fake-gpus`."""

    def __init__(self, image: Image, need_tool: Callable[[str], str]) -> None:
        """Make the folders: directly below /tmp, since a socket's path may have 107 bytes."""
        self.root = Path(tempfile.mkdtemp(prefix="sgpud-", dir="/tmp"))
        self.manifest: Rendered = Renderer(need_tool, self.root).overlay("fake-gpus")
        self.pods: list[Pod] = []
        self._image = image
        self._numbers = count(1)
        self._config = self.root / "config-map"
        self._config.mkdir()
        self.configure(self.manifest.files["sgpud.toml"])

    def __enter__(self) -> Self:
        """Ready to use."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the pods; AssertionError if one has logged a traceback."""
        logs = [pod.logs() for pod in self.pods]
        for pod in self.pods:
            self._image.call("podman", "rm", "--force", "--time=0", pod.name)
        shutil.rmtree(self.root)
        if kind is not None:
            sys.stderr.write("\n".join(logs))
        assert "Traceback" not in "".join(logs), logs

    def kubelet(self) -> StandInKubelet:
        """The node's kubelet, not started."""
        return StandInKubelet(
            self._host("device-plugins"), self._host("pod-resources/kubelet.sock")
        )

    def configure(self, text: str) -> None:
        """Change the ConfigMap's volume as the kubelet does: a new folder, and one rename."""
        data = self._config / f"..{next(self._numbers)}"
        data.mkdir()
        for name, content in {**self.manifest.files, "sgpud.toml": text}.items():
            (data / name).write_text(content)
            if not (self._config / name).is_symlink():
                (self._config / name).symlink_to(f"..data/{name}")
        draft = self._config / "..data_tmp"
        draft.symlink_to(data.name)
        draft.rename(self._config / "..data")

    def start(self) -> Pod:
        """Start a pod."""
        name = f"{self.root.name}-{len(self.pods)}"
        self._image.podman("run", "--detach", f"--name={name}", *self._options(), self._image.name,
                           *self.manifest.container["args"])  # fmt: skip
        pod = Pod(self._image, name)
        self.pods.append(pod)
        return pod

    def _host(self, path: str) -> Path:
        folder = self.root / path
        folder.parent.mkdir(exist_ok=True)
        return folder

    def _options(self) -> Iterator[str]:
        """The security context and the volumes of the manifest, as podman takes them."""
        container = self.manifest.container
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        yield from _CLOSED
        yield f"--user={security['runAsUser']}:{security['runAsGroup']}"
        assert security["allowPrivilegeEscalation"] is False
        yield "--security-opt=no-new-privileges"
        # Of podman's own: Kubernetes mounts these three only where a manifest says so.
        yield "--read-only-tmpfs=false"
        volumes = {each["name"]: each for each in self.manifest.pod["volumes"]}
        for mount in container["volumeMounts"]:
            yield self._mount(mount, volumes[mount["name"]])

    def _mount(self, mount: Mapping[str, Any], volume: Mapping[str, Any]) -> str:
        target = mount["mountPath"]
        if "emptyDir" in volume:
            size = volume["emptyDir"]["sizeLimit"].removesuffix("i").lower()
            return f"--tmpfs={target}:rw,size={size}"
        if "configMap" in volume:
            source = self._config
        else:
            source = self._host(Path(volume["hostPath"]["path"]).name)
            source.mkdir(exist_ok=True)
        mode = "ro" if mount.get("readOnly") else "rw"
        return f"--volume={source}:{target}:{mode}"


def build_again(image: Image, base: str) -> str:
    """Build the same tree under another name; the layers of the result."""
    name = "localhost/sgpud:again"
    subprocess.run(
        [ROOT / "tools" / "image", name],
        env={**os.environ, "BASE": base, "ROOT": image.root},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return image.inspect("{{.RootFS.Layers}}", name)
