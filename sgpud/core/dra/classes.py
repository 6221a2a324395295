"""The DeviceClasses that select this driver's devices: one per resource."""

from __future__ import annotations

from typing import Any

from sgpud.core.dra.objects import API


def class_name(resource: str) -> str:
    """The class of a resource: `shared-gpu.deepomatic.com` for `deepomatic.com/shared-gpu`."""
    domain, _, name = resource.partition("/")
    return f"{name}.{domain}".lower().replace("_", "-")


def device_class(resource: str, driver: str) -> dict[str, Any]:
    """The class that maps `limits` of a resource to the driver's devices of that resource."""
    expression = (
        f'device.driver == "{driver}" && device.attributes["{driver}"].resource == "{resource}"'
    )
    return {
        "apiVersion": API,
        "kind": "DeviceClass",
        "metadata": {"name": class_name(resource)},
        "spec": {
            "extendedResourceName": resource,
            "selectors": [{"cel": {"expression": expression}}],
        },
    }
