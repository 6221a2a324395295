"""What kubectl and helm make of deploy/, as documents."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = "registry.example.com/sgpud"
CHART = DEPLOY / "helm" / "sgpud"
OVERLAYS = ("gke", "nvidia-runtime", "fake-gpus")
MONITORING = ("pod-monitor", "alerts", "dashboard")
COMPONENTS = {
    "gke": ("who-uses-what", "api-server", *MONITORING),
    "nvidia-runtime": (
        *("who-uses-what", "api-server", *MONITORING),
        *("mig-monitoring", "cdi", "memory-limits"),
    ),
    "fake-gpus": ("api-server", *MONITORING),
}
"""The components that an overlay can have."""
VALUES = {
    "who-uses-what": {"whoUsesWhat": "true"},
    "api-server": {"apiServer": "true"},
    "pod-monitor": {"podMonitor.enabled": "true"},
    "alerts": {"alerts.enabled": "true"},
    "dashboard": {"dashboard.enabled": "true"},
    "mig-monitoring": {"migMonitoring": "true"},
    "cdi": {"cdi": "true"},
    "dra": {"dra": "true"},
    "memory-limits": {"memoryLimits": "true"},
}
"""The chart's values that do what a component does."""

Manifest = Mapping[str, Any]


class Rendered:
    """The objects of one installation."""

    def __init__(self, name: str, text: str) -> None:
        """Take what a tool printed."""
        self.name = name
        self.objects: list[Manifest] = [each for each in yaml.safe_load_all(text) if each]

    def one(self, kind: str, name: str | None = None) -> Manifest:
        """The only object of a kind, or the one of a name."""
        (found,) = (
            each
            for each in self.objects
            if each["kind"] == kind and name in (None, each["metadata"]["name"])
        )
        return found

    @cached_property
    def pod(self) -> Manifest:
        """The DaemonSet's pod."""
        spec: Manifest = self.one("DaemonSet")["spec"]["template"]["spec"]
        return spec

    @cached_property
    def container(self) -> Manifest:
        """The container of sgpud itself."""
        (found,) = (each for each in self.pod["containers"] if each["name"] == "sgpud")
        return dict(found)

    @property
    def files(self) -> Mapping[str, str]:
        """The entries of the ConfigMap that the pod mounts."""
        data: Mapping[str, str] = self.one("ConfigMap", "sgpud")["data"]
        return data


class Renderer:
    """Renders each installation once."""

    def __init__(self, need_tool: Callable[[str], str], folder: Path) -> None:
        """Take where commands come from, and a folder for overlays that are made here."""
        self._need_tool = need_tool
        self._folder = folder.resolve()
        self._known: dict[tuple[str, ...], Rendered] = {}

    def overlay(self, name: str, components: Sequence[str] = ()) -> Rendered:
        """An overlay through `kubectl kustomize`, with components on top."""
        key = ("overlay", name, *components)
        if key not in self._known:
            folder = DEPLOY / "overlays" / name
            if components:
                folder = self._with_components(folder, components)
            text = self._run("kubectl", "kustomize", str(folder))
            self._known[key] = Rendered(" ".join(key), text)
        return self._known[key]

    def written(self, name: str, kustomization: str) -> Rendered:
        """An overlay that somebody writes into a copy of deploy/overlays."""
        deploy = self._folder / name
        shutil.copytree(DEPLOY, deploy, symlinks=True)
        folder = deploy / "overlays" / "mine"
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(kustomization)
        shutil.copy(DEPLOY / "overlays" / "gke" / "sgpud.toml", folder)
        return Rendered(name, self._run("kubectl", "kustomize", str(folder)))

    def chart(self, flavour: str, components: Sequence[str] = (), *more: str) -> Rendered:
        """The chart through `helm template`, with the values of those components."""
        key = ("chart", flavour, *components, *more)
        if key not in self._known:
            values = {"flavour": flavour, "image.repository": IMAGE}
            for component in components:
                values |= VALUES[component]
            sets = [word for pair in values.items() for word in ("--set", "=".join(pair))]
            text = self.helm("template", "sgpud", str(CHART), "--namespace=sgpud", *sets, *more)
            self._known[key] = Rendered(" ".join(key), text)
        return self._known[key]

    def helm(self, *words: str) -> str:
        """What helm prints."""
        return self._run("helm", *words)

    def refused(self, *words: str) -> str:
        """What helm says when it refuses."""
        done = self._call("helm", *words)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def _with_components(self, overlay: Path, components: Sequence[str]) -> Path:
        folder = self._folder / "-".join([overlay.name, *components])
        folder.mkdir()
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(overlay, folder)],
            "components": [
                os.path.relpath(DEPLOY / "components" / each, folder) for each in components
            ],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return folder

    def _run(self, *words: str) -> str:
        done = self._call(*words)
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr.lower(), done.stderr
        return done.stdout

    def _call(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._need_tool(tool), *words],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "HOME": str(self._folder), "KUBECONFIG": os.devnull},
        )  # fmt: skip
