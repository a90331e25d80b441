from __future__ import annotations

import mmap
import socket

from replicad.host.machine import instance_name, resident_bytes


def test_instance_name() -> None:
    """An instance is called what its platform calls it, at its host; without a platform, by its host."""
    host = socket.gethostname()
    assert instance_name({}) == host
    assert instance_name({"RENDER_INSTANCE_ID": ""}) == host
    assert instance_name({"POD_NAME": host}) == host
    assert instance_name({"K_REVISION": "web-00042", "FLY_MACHINE_ID": "e286"}) == f"e286@{host}"


def test_resident_bytes() -> None:
    """Resident memory grows with what is used.

    The block is mapped, not allocated: what earlier tests gave back to the allocator would be used again for it.
    """
    before = resident_bytes()
    with mmap.mmap(-1, 32 << 20) as block:
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1
        assert 16 << 20 < resident_bytes() - before < 64 << 20
