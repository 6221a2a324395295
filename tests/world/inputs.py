"""What real machines and people's clusters hold, in our own words and values.

Each input stands for a kind of file or answer; the line above it says where its form comes from.
"""

from __future__ import annotations

# Form: `nvidia-smi -L` on Jetson (Orin, nvgpu driver): a UUID without the GPU- of other machines.
JETSON_UUID = "1833c8b5-9aa0-5382-b784-68b7e77eb186"
