"""The messages spoken with the kubelet: the device plugin API v1beta1 and podresources v1.

The ``.proto`` files here are the source; the ``_pb2`` modules are what ``protoc`` 3.21 makes of
them, and a test holds the two together. To make them again, from the root of the repository::

    protoc -I. --python_out=. --pyi_out=. sgpud/kubelet/api/*.proto
"""
