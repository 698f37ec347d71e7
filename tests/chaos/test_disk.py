"""A small disk can be filled to the last byte, and freed."""

import errno
from pathlib import Path

import pytest

from tests.chaos.disk import Disk


def test_a_full_disk_takes_nothing_until_it_is_freed(tmp_path: Path) -> None:
    with Disk(tmp_path / "disk", size_mb=4) as disk:
        if not disk.is_small:
            pytest.skip("mounting is not allowed here")
        (disk.path / "there").write_bytes(b"x" * 4096)

        disk.fill()
        with pytest.raises(OSError, match="No space left") as refused:
            (disk.path / "new").write_bytes(b"x" * 4096)
        assert refused.value.errno == errno.ENOSPC
        assert (disk.path / "there").stat().st_size == 4096

        disk.free()
        assert (disk.path / "new").write_bytes(b"x" * 4096) == 4096
    assert not list(disk.path.iterdir())
