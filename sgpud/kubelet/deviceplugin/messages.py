"""Converts between core's values and messages of the device plugin API v1beta1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import NoReturn, TypeVar

import grpc
from attrs import field, frozen
from google.protobuf.message import DecodeError, Message

from sgpud.core.allocation.injection import Injection
from sgpud.core.intset import IntSet
from sgpud.core.planning.plan import GpuShares, Pool
from sgpud.core.sharing.share_id import SEPARATOR
from sgpud.kubelet.api import deviceplugin_pb2 as api

_M = TypeVar("_M", bound=Message)

_HEALTHY = b"\x12\x07Healthy"
_UNHEALTHY = b"\x12\x09Unhealthy"


def plugin_options(*, prefers: bool, asks: bool = False) -> bytes:
    """The answer of GetDevicePluginOptions.

    `prefers`: it matters which ids the kubelet chooses; `asks`: it is to ask before a container
    starts.
    """
    return api.DevicePluginOptions(
        pre_start_required=asks, get_preferred_allocation_available=prefers
    ).SerializeToString()


_VARINT, _DELIMITED = 0, 2
_FIXED = {_VARINT: 0, 1: 8, _DELIMITED: 0, 5: 4}
"""Wire types, with the bytes of a field that are always there."""
_GROUPS = (3, 4)
_LONGEST_VARINT = 70
"""Bits that a varint can have."""


BLOCK = 100
"""Shares that are encoded together, and kept: after a reload only the others are encoded."""

Blocks = dict[tuple[bytes, int, int], bytes]
"""A GPU's part, in its order, by what follows each id, the first number and the end."""


@frozen
class ListFragment:
    """One GPU's part of a list message, and what it was made of."""

    uuid: str
    healthy: IntSet
    unhealthy: IntSet
    numa: int | None
    blocks: Blocks = field(eq=False)


@frozen
class ListMessage:
    """A ListAndWatchResponse: a repeated field, so it is its GPUs' parts one after the other."""

    fragments: tuple[ListFragment, ...]
    data: bytes


def offers(request: bytes, device_id: str) -> bool:
    """Whether an id is among the available ones of an encoded PreferredAllocationRequest.

    It is looked for in the bytes (field 1 with its length, below 128): they hold thousands of ids,
    and making strings of all of them takes most of the time of an answer.
    """
    encoded = device_id.encode()
    return b"\x0a" + bytes([len(encoded)]) + encoded in request


def list_message(pool: Pool, previous: ListMessage | None = None) -> ListMessage:
    """The pool's list message. GPUs that are as in `previous` are not encoded again."""
    known = {fragment.uuid: fragment for fragment in previous.fragments} if previous else {}
    fragments = tuple(_fragment(group, pool, known.get(group.uuid)) for group in pool.lists)
    if previous is not None and previous.fragments == fragments:
        return previous
    parts = chain.from_iterable(fragment.blocks.values() for fragment in fragments)
    return ListMessage(fragments, b"".join(parts))


def _fragment(group: GpuShares, pool: Pool, known: ListFragment | None) -> ListFragment:
    healthy = group.healthy
    unhealthy = group.listed - healthy
    numa = group.gpu.numa if pool.numa and group.gpu else None
    if known and (known.healthy, known.unhealthy, known.numa) == (healthy, unhealthy, numa):
        return known
    topology = b""
    if numa is not None:
        node = api.NUMANode(ID=numa).SerializeToString()
        info = b"\x0a" + bytes([len(node)]) + node
        topology = b"\x1a" + bytes([len(info)]) + info
    kept = known.blocks if known else {}
    blocks: Blocks = {}
    for numbers, health in ((healthy, _HEALTHY), (unhealthy, _UNHEALTHY)):
        rest = health + topology
        for start, stop in _blocks(numbers):
            known_block = kept.get((rest, start, stop))
            blocks[rest, start, stop] = known_block or _devices(
                group.uuid, range(start, stop), rest
            )
    return ListFragment(group.uuid, healthy, unhealthy, numa, blocks)


def _blocks(numbers: IntSet) -> Iterator[tuple[int, int]]:
    """The numbers as ranges that end at every multiple of BLOCK."""
    for start, stop in numbers.ranges:
        edges = [start, *range(start - start % BLOCK + BLOCK, stop, BLOCK), stop]
        yield from pairwise(edges)


def _devices(uuid: str, numbers: Iterable[int], rest: bytes) -> bytes:
    """Encoded Devices: field 1 of the response, each with its id (field 1) and `rest`.

    Written by hand, since an object per share takes the reactor 38 ms for 16 000 shares. Every
    length is below 128 and so one byte: an id has at most 63 characters.
    """
    start = uuid + SEPARATOR
    end = rest.decode("ascii")
    heads = {}
    for digits in range(1, 11):
        size = len(start) + digits
        if size + 2 + len(end) < 128:  # noqa: PLR2004 - the largest length of one byte is 127
            heads[digits] = f"\x0a{chr(size + 2 + len(end))}\x0a{chr(size)}{start}"
    texts = map(str, numbers)
    return "".join([heads[len(text)] + text + end for text in texts]).encode("ascii")


def has_few_fields(message: bytes, most: int) -> bool:
    """Whether a message has at most `most` fields on its outer level, seen without parsing it.

    Two million empty containers fit into 4 MB, and take minutes and gigabytes as objects. A message
    that is cut off counts as far as it goes: parsing it fails at the same place.
    """
    at = found = 0
    try:
        while at < len(message) and found <= most:
            tag, at = _varint(message, at)
            kind = tag & 7
            if kind in _GROUPS:
                return False  # the kubelet's messages never had one
            if kind not in _FIXED:
                break  # parsing it fails
            size = _FIXED[kind]
            if kind == _DELIMITED:
                size, at = _varint(message, at)
            elif kind == _VARINT:
                _, at = _varint(message, at)
            at += size
            found += 1
    except IndexError:
        pass
    return found <= most


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and where it ends; IndexError where the message ends before."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift >= _LONGEST_VARINT:  # noqa: PLR2004 - the bit that says: one more
            return value, at


def container_response(answer: Injection) -> api.ContainerAllocateResponse:
    """The part of an AllocateResponse for one container."""
    return api.ContainerAllocateResponse(
        envs=answer.envs,
        mounts=[
            api.Mount(
                container_path=mount.container, host_path=mount.host, read_only=mount.read_only
            )
            for mount in answer.mounts
        ],
        devices=[
            api.DeviceSpec(
                container_path=node.container, host_path=node.host, permissions=node.permissions
            )
            for node in answer.devices
        ],
        cdi_devices=[api.CDIDevice(name=name) for name in answer.cdi],
    )


def refuse_shape(context: grpc.ServicerContext) -> NoReturn:
    """End the call: the request is not one that a kubelet sends."""
    context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, "sgpud: the request is not one that a kubelet sends"
    )
    raise AssertionError  # abort has raised


def decoded(message: type[_M], request: bytes, context: grpc.ServicerContext, most: int) -> _M:
    """A request as this message, with at most `most` fields on its outer level.

    The call ends with INVALID_ARGUMENT if it is not one.
    """
    if not has_few_fields(request, most):
        refuse_shape(context)
    try:
        return message.FromString(request)
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "sgpud: the request cannot be decoded")
