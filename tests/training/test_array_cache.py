"""The store of large arrays: bounded, computed once, and never trusted without looking."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.training.array_cache import OVERHEAD, ArrayCache, Entry, NoRoomError, size_of, to_drop

SHAPE = (5, 40, 3)
FORK = multiprocessing.get_context("fork")


def numbers(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype("float32")


def get(folder: Path, seed: int = 0, limit: int = 10**6, computed: list | None = None) -> np.ndarray:
    """The array of a seed from the store, given in pieces of two rows."""

    def compute():
        if computed is not None:
            computed.append(seed)
        yield from np.split(numbers(seed), [2, 4])

    return ArrayCache(folder, limit).get({"seed": seed}, SHAPE, compute)


def path_of(folder: Path, seed: int = 0) -> Path:
    """The file of a seed, found by what its description says."""
    found = [path for path in folder.glob("*.json") if json.loads(path.read_text())["seed"] == seed]
    return found[0].with_suffix(".npy")


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_an_array_is_computed_once_and_says_what_it_is(tmp_path):
    computed = []
    for _ in range(3):
        assert np.array_equal(get(tmp_path / "store", computed=computed), numbers())
    assert computed == [0]
    said = json.loads(path_of(tmp_path / "store").with_suffix(".json").read_text())
    assert said["seed"] == 0 and said["shape"] == list(SHAPE)
    assert total(tmp_path / "store") <= size_of(SHAPE)


def test_what_is_written_to_an_array_stays_in_the_process(tmp_path):
    get(tmp_path)[0] = 7
    assert np.array_equal(get(tmp_path, computed=[]), numbers())


def truncate(path):
    os.truncate(path, path.stat().st_size - 4)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def reshape(path):
    np.save(path, np.load(path).reshape(5, 3, 40))


def change_the_type(path):
    np.save(path, np.load(path).view("int32"))


DAMAGE = {
    "truncated": truncate,
    "a wrong bit": flip_a_bit,
    "empty": lambda path: path.write_bytes(b""),
    "no array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'shape': ("),
    "another shape": reshape,
    "another type": change_the_type,
    "gone": lambda path: path.unlink(),
    "description gone": lambda path: path.with_suffix(".json").unlink(),
    "description torn": lambda path: truncate(path.with_suffix(".json")),
    "a folder": lambda path: (path.with_suffix(".json").unlink(), path.with_suffix(".json").mkdir()),
}


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "a folder"])
def test_a_damaged_entry_is_computed_anew(tmp_path, name):
    get(tmp_path)
    path = path_of(tmp_path)
    DAMAGE[name](path)
    computed = []
    for _ in range(2):
        assert np.array_equal(get(tmp_path, computed=computed), numbers())
    assert computed == [0]
    assert sorted(each.name for each in tmp_path.iterdir()) == [".lock", path.with_suffix(".json").name, path.name]


def test_an_entry_that_cannot_be_mended_is_an_error_of_the_disk(tmp_path):
    get(tmp_path)
    DAMAGE["a folder"](path_of(tmp_path))
    with pytest.raises(OSError):
        get(tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def test_the_least_recently_used_makes_room(tmp_path):
    limit = 3 * size_of(SHAPE) + OVERHEAD  # the store rounds up
    for seed in range(3):
        get(tmp_path, seed, limit)
        os.utime(path_of(tmp_path, seed), ns=(seed, seed))
    computed = []
    kept = get(tmp_path, 0, limit, computed)  # now 1 was used longest ago
    get(tmp_path, 3, limit, computed)
    assert computed == [3]
    assert total(tmp_path) <= limit
    for seed in (0, 2, 3):
        get(tmp_path, seed, limit, computed)
    assert computed == [3]
    get(tmp_path, 1, limit, computed)
    assert computed == [3, 1]
    assert np.array_equal(kept, numbers(0))  # a dropped file lives on in those who have mapped it


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 20)), max_size=12),
    st.integers(1, 100),
    st.integers(0, 300),
)
def test_what_is_dropped_is_old_enough_and_not_more_than_needed(sizes, size, spare):
    entries = [Entry(Path(str(number)), *each) for number, each in enumerate(sizes)]
    room = size + spare
    dropped = to_drop(entries, size, room)
    kept = [entry for entry in entries if entry not in dropped]
    assert size + sum(entry.size for entry in kept) <= room
    assert all(old.used <= young.used for old in dropped for young in kept)
    if dropped:
        assert size + sum(entry.size for entry in [*kept, dropped[-1]]) > room


def test_what_exceeds_the_limit_drops_nothing(tmp_path):
    get(tmp_path, 0)
    with pytest.raises(NoRoomError, match=r"^0\.0 MB exceed the limit of 0\.0 MB$"):
        get(tmp_path, 1, limit=size_of(SHAPE) - 1)
    assert path_of(tmp_path, 0).exists()
    assert size_of(SHAPE) == 4 * 5 * 40 * 3 + OVERHEAD


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of thirty megabytes; the function makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small disk here")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_some_of_the_disk_is_left_to_others(small_disk):
    folder, _ = small_disk
    with pytest.raises(NoRoomError, match=r"would leave less than 1\.0 GB of the disk free"):
        get(folder)


def test_a_folder_that_is_only_read_gives_what_it_has(small_disk, tmp_path):
    folder, freeze = small_disk
    get(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    freeze()
    computed = []
    assert np.array_equal(get(folder, 0, computed=computed), numbers())
    with pytest.raises(OSError, match="Read-only"):
        get(folder, 1, computed=computed)
    assert computed == []


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path):
    get(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = ArrayCache(tmp_path, 10**8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.get({"seed": 0}, (10, 100_000), lambda: (np.ones((1, 100_000), "float32") for _ in range(10)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.glob("*.npy")] == [path_of(tmp_path, 1).name]
    assert not list(tmp_path.glob("*.partial"))


def in_child(work) -> multiprocessing.Process:
    child = FORK.Process(target=work)
    child.start()
    return child


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_before_any_durable_write_it_is_computed_anew(tmp_path, number):
    def die_in_the_middle():
        count = 0

        def deadly(operation):
            def call(*arguments):
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments)

            return call

        os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
        get(tmp_path)

    child = in_child(die_in_the_middle)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    computed = []
    assert np.array_equal(get(tmp_path, computed=computed), numbers())
    assert computed == [0]
    assert not list(tmp_path.glob("*.partial"))


def test_two_processes_at_once_compute_once(tmp_path, capfd):
    log, begin = tmp_path / "log", FORK.Barrier(2)

    def compute():
        with open(log, "a") as file:
            file.write("computed\n")
        time.sleep(0.5)  # long enough for the other one to come
        yield numbers()

    def work():
        begin.wait()
        array = ArrayCache(tmp_path / "store", 10**6).get({"seed": 0}, SHAPE, compute)
        os._exit(0 if np.array_equal(array, numbers()) else 1)

    children = [in_child(work), in_child(work)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert log.read_text() == "computed\n"
    assert capfd.readouterr().err.count("Waiting for another process") == 1
