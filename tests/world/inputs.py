"""What real machines and people's clusters hold, in our own words and values.

Each input stands for a kind of file or answer; the line above it says where its form comes from.
"""

from __future__ import annotations

# Form: `nvidia-smi -L` on Jetson (Orin, nvgpu driver): a UUID without the GPU- of other machines.
JETSON_UUID = "1833c8b5-9aa0-5382-b784-68b7e77eb186"

# Forms: JETSON_UUID; a GPU's and a MIG instance's (NVML's documentation, nvmlDeviceGetUUID); a MIG
# instance's before driver 470 (NVIDIA's MIG user guide); capitals, and what else a vendor's NVML
# could print. Reports: anduril/jetpack-nixos#371, NVIDIA/k8s-device-plugin#1963.
GIVEN_UUIDS = (
    JETSON_UUID,
    "GPU-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d",
    "GPU-2F0C7C1E-8A60-4F3B-9D55-0D6F0A1B2C3D",
    "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
    "MIG-GPU-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d/11/0",
    "1833C8B5-9AA0-5382-B784-68B7E77EB186",
    "1833c8b59aa05382b78468b7e77eb186",
    "gpu-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d",
    "iGPU_0.1833c8b5",
)

# Forms: how people and tools write the UUID beside it: from an inventory in capitals, from a list
# without prefixes, from another tool with one.
UUID_SPELLINGS = (
    ("2F0C7C1E-8A60-4F3B-9D55-0D6F0A1B2C3D", "GPU-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d"),
    ("GPU-2F0C7C1E-8A60-4F3B-9D55-0D6F0A1B2C3D", "GPU-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d"),
    ("gpu-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d", "GPU-2f0c7c1e-8a60-4f3b-9d55-0d6f0a1b2c3d"),
    (f"GPU-{JETSON_UUID}", JETSON_UUID),
    (JETSON_UUID.upper(), JETSON_UUID),
    ("mig-5c89852c-d268-c3f3-1b07-005d5ae1dc3f", "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"),
)

# Form: what `nvidia-ctk cdi generate` writes (toolkit 1.14 and later), one GPU, with an index, a
# UUID and `all`, by its documentation and by specs that people post.
TOOLKIT_SPEC = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib64]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib64/libcuda.so.550.54.15
    hostPath: /usr/lib64/libcuda.so.550.54.15
    options: [ro, nosuid, nodev, bind]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia3
    - path: /dev/dri/card1
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia3
  name: GPU-00000003-0000-4000-8000-000000000000
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia3
  name: all
kind: nvidia.com/gpu
"""

# Form: a spec of a NIC vendor that people write by hand, with YAML's anchors.
FOREIGN_SPEC = """\
cdiVersion: "0.6.0"
kind: example-nic.com/net
containerEdits: &edits
  deviceNodes: [{path: /dev/nic0}]
devices:
- {name: port0, containerEdits: *edits}
"""

# Form: containerd's configuration as RKE2 renders it when it finds NVIDIA's runtime (RKE2's
# documentation of GPU operator integration).
RKE2_CONTAINERD = """\
version = 3
[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]
  BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
  SystemdCgroup = true
"""

# Form: a ConfigMap of the GPU operator's time slicing as `kubectl get -o yaml` prints it: block
# scalars with |+ and |2-, and a long line as a folded, quoted text.
KUBECTL_CONFIG_MAP = """\
apiVersion: v1
data:
  any: |+
    version: v1
    sharing:
      timeSlicing:
        resources:
        - name: nvidia.com/gpu
          replicas: 4

  rtx: |2-
      # the desktops
    version: v1
    sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 8}]}}
  mig: "version: v1\\nflags:\\n  migStrategy: mixed\\nsharing:\\n  timeSlicing:\\n    resources:\\
    \\n    - name: nvidia.com/mig-1g.24gb.gfx\\n      replicas: 3\\n"
  notes: "Ask: the platform team: before you change this [sic"
kind: ConfigMap
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"v1","data":{},"kind":"ConfigMap","metadata":{"name":"time-slicing"}}
  name: time-slicing
  namespace: gpu-operator
"""

# Form: GB10 (DGX Spark): NVML's memory info ends with error 3, not supported, on a GPU that shares
# the machine's memory; the other readings are there, and the PCI domain is not 0. Reports:
# NVIDIA/k8s-device-plugin#1482, kubernetes-sigs/dra-driver-nvidia-gpu#1073.
UNIFIED = "NVIDIA GB10"
UNIFIED_PCI = "0000000F:01:00.0"

# Form: a spec of the toolkit with the one device `all`, in a kind of its own, on a node that pods
# ask for GPUs by UUID. Reports: NVIDIA/nvidia-container-toolkit#1239 and #1895.
MANAGEMENT_SPEC = """\
cdiVersion: 0.5.0
kind: management.nvidia.com/gpu
devices:
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia3
    - path: /dev/nvidiactl
"""

# Form: the machine configuration of Talos for NVIDIA's runtime as containerd's default, merged from
# a .part file (Talos documentation, NVIDIA GPU and Containerd).
TALOS_CONTAINERD = """\
[plugins]
  [plugins."io.containerd.cri.v1.runtime"]
    [plugins."io.containerd.cri.v1.runtime".containerd]
      default_runtime_name = "nvidia"
"""

# Form: values of NVIDIA's device plugin chart (k8s-device-plugin, README, "config.map").
CHART_VALUES = """\
migStrategy: mixed
config:
  map:
    default: |
      version: v1
      sharing:
        timeSlicing:
          renameByDefault: true
          resources: &slices
          - name: nvidia.com/gpu
            replicas: 7
tolerations:
- key: nvidia.com/gpu
  operator: Exists
"""
