"""More of what machines and people's clusters hold: one public report behind each, in our words.

As in inputs.py; these are the reports whose form is a few lines.
"""

from __future__ import annotations

# NVIDIA/nvidia-container-toolkit#146: the same spec generated into both folders; the later counts.
SPEC_OF_BOTH_FOLDERS = """\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}
- {name: all, containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}
"""

# NVIDIA/nvidia-container-toolkit#38: names that are digits and a hostPath under version 0.3.0.
SPEC_OF_TOOLKIT_1_12 = """\
cdiVersion: 0.3.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: /dev/nvidia0}
"""

# NVIDIA/k8s-device-plugin#332: on WSL2 the toolkit names one device, behind which is /dev/dxg.
SPEC_OF_WSL2 = """\
cdiVersion: 0.3.0
kind: nvidia.com/gpu
containerEdits:
  mounts:
  - containerPath: /usr/lib/wsl/lib/libdxcore.so
    hostPath: /usr/lib/wsl/lib/libdxcore.so
    options: [ro, nosuid, nodev, bind]
devices:
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/dxg
"""

# moby/moby#47633: a device without edits, for which runtimes drop the whole file.
SPEC_WITHOUT_EDITS = """\
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [LD=test]
devices:
- name: demo1
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}
"""

# NixOS/nixpkgs#284507 and #420638: the spec is JSON in /run/cdi, which /var/run leads to.
SPEC_OF_NIXOS = """\
{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[
{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/nvidia0"}]}},
{"name":"all","containerEdits":{"deviceNodes":[{"path":"/dev/nvidia0"}]}}],
"containerEdits":{"mounts":[{"hostPath":"/nix/store/aa-nvidia-x11/lib/libcuda.so",
"containerPath":"/nix/store/aa-nvidia-x11/lib/libcuda.so"}]}}
"""

# NVIDIA/k8s-device-plugin#406 and k3s-io/k3s#4391: what k3s renders when it finds the runtime.
K3S_CONTAINERD = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  enable_selinux = false
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia"]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia".options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
"""

# bottlerocket-os/bottlerocket#3718: GPUs by volume mounts, and none by the variable.
BOTTLEROCKET_RUNTIME = """\
accept-nvidia-visible-devices-as-volume-mounts = true
accept-nvidia-visible-devices-envvar-when-unprivileged = false
[nvidia-container-cli]
root = "/"
path = "/usr/bin/nvidia-container-cli"
"""

# NVIDIA/k8s-device-plugin#615: a ConfigMap as people write it by hand, five spaces deep.
FIVE_SPACES = """\
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: time-slicing-config-all
  namespace: nvidia-device-plugin
data:
  any: |-
     version: v1
     flags:
       migStrategy: "none"
       failOnInitError: false
       plugin:
         passDeviceSpecs: false
         deviceListStrategy: envvar
     sharing:
       timeSlicing:
         renameByDefault: true
         resources:
         - name: nvidia.com/gpu
           replicas: 4
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: nvidia-device-plugin-daemonset
spec: {}
"""

# NVIDIA/k8s-device-plugin#1433: renameByDefault in the wrong place, and more shares than we give.
MISPLACED_FLAG = """\
version: v1
flags:
  migStrategy: none
  renameByDefault: true
sharing:
  timeSlicing:
    resources:
      - name: nvidia.com/gpu
        replicas: 16384
"""

# NVIDIA/k8s-device-plugin#463: indented with tabs, which YAML does not allow.
TABS = "version: v1\nsharing:\n\ttimeSlicing:\n\tresources:\n\t- name: nvidia.com/gpu\n"

# NVIDIA/gpu-operator#412: two configurations of other names in one ConfigMap.
TWO_SLICES = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: nvidia-time-slicing-config, namespace: kube-system}
data:
  slice-4: |-
    version: v1
    sharing:
      timeSlicing:
        failRequestsGreaterThanOne: true
        resources: [{name: nvidia.com/gpu, replicas: 4}]
  slice-10: |-
    version: v1
    sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 10}]}}
"""

# The values of NVIDIA's chart in what deploys it: Flux's HelmRelease, k3s' HelmChart (its
# documentation, "Helm"), an Application of Argo CD.
_VALUES = """\
config:
  map:
    default: |
      version: v1
      sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 6}]}}
"""


def _indented(spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}\n" for line in _VALUES.splitlines())


DEPLOYED_CHARTS = (
    f"kind: HelmRelease\nspec:\n  values:\n{_indented(4)}",
    f"kind: HelmChart\nspec:\n  chart: nvidia-device-plugin\n  valuesContent: |-\n{_indented(4)}",
    f"kind: Application\nspec:\n  source:\n    helm:\n      values: |\n{_indented(8)}",
    f"kind: Application\nspec:\n  source:\n    helm:\n      valuesObject:\n{_indented(8)}",
    f"USER-SUPPLIED VALUES:\n{_VALUES}",
)

# GoogleCloudPlatform/container-engine-accelerators#564: the profiles of an RTX PRO 6000, and the
# names of their resources.
RTX_PRO_PROFILES = (
    ("1g.24gb", "nvidia.com/mig-1g.24gb"),
    ("1g.24gb+me", "nvidia.com/mig-1g.24gb.me"),
    ("1g.24gb+gfx", "nvidia.com/mig-1g.24gb.gfx"),
    ("1g.24gb+me.all", "nvidia.com/mig-1g.24gb.me.all"),
    ("1g.24gb-me", "nvidia.com/mig-1g.24gb-me"),
    ("2g.48gb+gfx", "nvidia.com/mig-2g.48gb.gfx"),
    ("4g.96gb+gfx", "nvidia.com/mig-4g.96gb.gfx"),
)

# Syllo/nvtop#110 and NVIDIA/dcgm-exporter#418: utilisation beyond 100 %.
IMPOSSIBLE_PERCENT = (101, 250, 808_334_905, 4_294_967_295)

# Project-HAMi/HAMi-core#79: a process that is said to use 17 TB of a GPU.
IMPOSSIBLE_BYTES = 17 * 10**12

# volcano-sh/devices#29: GPUs were drained, and what is left counts from 0 with other device nodes.
DRAINED = ((0, 1), (1, 4), (2, 5))

# NVIDIA/k8s-device-plugin#231 and #2038: NVML counts a GPU that it cannot read ("GPU is lost").
LOST = "error nvmlDeviceGetHandleByIndex_v2 1 15"

# NVIDIA/k8s-device-plugin#399: a MIG instance of which the memory is not to be read (error 4).
FORBIDDEN_MEMORY = ("error nvmlDeviceGetMemoryInfo 1 4", "error nvmlDeviceGetMemoryInfo_v2 1 4")

# NVIDIA/k8s-device-plugin#1431 and pando85/homelab#4110: libraries that an upgrade replaced under
# the loaded module. NVML names its version without the last part.
REPLACED = ("570.172.08", "570.195.03")

# aws/eks-node-monitoring-agent#245 and leptonai/gpud#80: rows that could not be remapped, or wait
# for a reset, without an XID.
REMAP_WITHOUT_XID = ((False, True), (True, False))
