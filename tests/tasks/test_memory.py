"""What bounds and measures memory, in processes of their own: a limit of this one would stay."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PREPARED = """
import json, mmap, tempfile, threading
from tasks import memory

def with_wall(megabytes, act):
    try:
        with memory.wall(megabytes):
            return act()
    except (MemoryError, RuntimeError, OSError) as error:
        return type(error).__name__
"""


def run(code: str) -> Any:
    """Run *code*, which leaves its answer in ``answer``, after what is prepared."""
    script = f"{PREPARED}\n{code}\nprint(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("megabytes", "answer"), [(100, 104857600), (5000, "MemoryError")])
def test_the_wall_refuses_what_goes_far_beyond(megabytes: int, answer: object) -> None:
    assert run(f"answer = with_wall(128, lambda: len(bytearray({megabytes} * 2**20)))") == answer


def test_the_wall_holds_for_many_small_requests_as_well() -> None:
    grow = """
def grow():
    held = []
    while True:
        held.append({"a": len(held)})
answer = with_wall(64, grow)
"""
    assert run(grow) == "MemoryError"


def test_the_wall_is_gone_behind_the_block() -> None:
    assert run("with_wall(64, lambda: None); answer = len(bytearray(1000 * 2**20))") == 1000 * 2**20


def test_what_was_held_before_does_not_count() -> None:
    assert (
        run(
            "before = bytearray(900 * 2**20); answer = with_wall(64, lambda: len(bytearray(2**26)))"
        )
        == 2**26
    )


def test_a_job_may_start_dozens_of_threads_and_map_large_files() -> None:
    code = """
def threads():
    gate = threading.Event()
    many = [threading.Thread(target=gate.wait) for _ in range(48)]
    for each in many: each.start()
    gate.set()
    return len(many)

def mapped():
    file = tempfile.TemporaryFile()
    file.truncate(5 * 2**30)
    return len(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

answer = [with_wall(16, threads), with_wall(16, mapped)]
"""
    assert run(code) == [48, 5 * 2**30]


def test_what_is_held_is_what_was_written_to_here_and_in_children() -> None:
    code = """
import subprocess, sys
before = memory.held_mb()
untouched = bytes(300 * 2**20)
after_asking = memory.held_mb()
held = bytearray(100 * 2**20)
held[::4096] = b"x" * len(held[::4096])
after_writing = memory.held_mb()
hog = "b = bytearray(150 * 2**20); b[::4096] = b'x' * len(b[::4096]); print(); input()"
child = subprocess.Popen(
    [sys.executable, "-c", hog], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
child.stdout.readline()
with_child = memory.held_mb()
child.communicate(b"\\n")
answer = [after_asking - before, after_writing - before, with_child - before]
"""
    asked, written, with_child = run(code)

    assert asked < 10
    assert 95 < written < 115
    assert 245 < with_child < 290
