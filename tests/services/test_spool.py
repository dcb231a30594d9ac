"""Records on disk: what was taken is replayed, once it can be, whoever died meanwhile."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.records import Record
from flask_aibridge.services.spool.file import DAMAGED, SUFFIX, UNFINISHED, SpoolFile
from flask_aibridge.services.spool.format import HEADER, frame
from flask_aibridge.services.spool.spool import MAX_PROCESSES, Spool
from tests.services.switched_services import end, new_id, prompt, run_beside_the_tests, usage

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    spool = Spool(folder)
    yield spool
    spool.close()


def replayed(spool: Spool, *, orphans: bool = True, max_records: int = 100) -> list[Record]:
    """Everything that the spool has, as a store takes it."""
    found: list[Record] = []
    while batch := spool.batch(max_records, 2**20, orphans=orphans):
        found += batch
        spool.stored(batch)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def left_behind(folder: Path, records: Sequence[Record]) -> Path:
    """A file with records that no process holds."""
    spool = Spool(folder)
    assert spool.append(records).taken == len(records)
    spool.close()
    return next(folder.glob("*" + SUFFIX))


def some_records() -> list[Record]:
    interception = new_id()
    return [prompt(interception, "Grüße, 世界"), usage(interception), end(interception)]


def test_nothing_is_made_before_the_first_record(spool: Spool, folder: Path) -> None:
    """A process whose store never fails has no spool."""
    assert replayed(spool) == []
    spool.sync()
    spool.close()

    assert not folder.exists()


def test_records_come_back_as_they_were(spool: Spool) -> None:
    """Every field of every kind, in the order they were appended."""
    records = some_records()
    assert spool.append(records) == (3, False)

    assert spool.records == 3
    assert replayed(spool) == records
    assert spool.records == 0


def test_a_spool_that_was_closed_takes_records_at_once(folder: Path) -> None:
    """A file that could be made a moment ago says nothing against another: only a failure has it left alone."""
    spool = Spool(folder, clock=lambda: 0.0)
    for _ in range(3):
        assert spool.append(some_records()) == (3, False)
        spool.close()
    assert len(files(folder)) == 3


def test_files_are_for_their_owner_alone(spool: Spool, folder: Path) -> None:
    """0600 in 0700, whatever the umask; a folder that is too open is closed."""
    folder.mkdir(mode=0o755)
    umask = os.umask(0)
    try:
        spool.append(some_records())
    finally:
        os.umask(umask)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in files(folder)] == [0o600]


def test_a_replayed_file_is_deleted(spool: Spool, folder: Path) -> None:
    """But not before all of it is stored."""
    spool.append(some_records())
    batch = spool.batch(100, 2**20, orphans=False)

    assert len(files(folder)) == 1
    assert spool.batch(100, 2**20, orphans=False) is batch  # the same until it is stored
    spool.stored(list(batch))  # not this one
    assert spool.batch(100, 2**20, orphans=False) is batch
    spool.stored(batch)
    assert spool.batch(100, 2**20, orphans=False) == ()
    assert files(folder) == []


def test_batches_are_bounded(spool: Spool) -> None:
    """In records, and in bytes but for one record."""
    spool.append([usage(new_id()) for _ in range(10)])
    for limits, expected in (((4, 2**20), 4), ((100, 1), 1)):
        batch = spool.batch(*limits, orphans=False)
        assert len(batch) == expected
        spool.stored(batch)
    assert len(replayed(spool)) == 5


def test_records_may_come_while_others_are_replayed(spool: Spool, folder: Path) -> None:
    """They go to another file, and are replayed after it."""
    first, second = some_records(), some_records()
    spool.append(first)
    spool.batch(1, 2**20, orphans=False)
    spool.append(second)

    assert len(files(folder)) == 2
    assert replayed(spool) == [*first[0:1], *first[1:], *second]
    assert files(folder) == []


def test_what_is_left_behind_is_found_by_another_process(folder: Path, spool: Spool) -> None:
    """Also after it was replayed in part: from the beginning, which does no harm."""
    records = some_records()
    left_behind(folder, records)
    other = Spool(folder)
    first = other.batch(1, 2**20, orphans=True)
    assert first == records[:1]
    other.stored(first)
    assert other.batch(1, 2**20, orphans=True) == records[1:2]
    other.close()

    assert replayed(spool, orphans=False) == []
    assert replayed(spool) == records
    assert files(folder) == []


def test_the_file_of_a_living_owner_is_left_alone(folder: Path, spool: Spool) -> None:
    """Also where the owner is in the same process, and while it is being replayed."""
    owner = Spool(folder)
    owner.append(some_records())
    assert replayed(spool) == []
    owner.batch(1, 2**20, orphans=False)
    assert replayed(spool) == []
    owner.close()

    assert len(replayed(spool)) == 3


def test_every_cut_of_a_file_keeps_the_whole_records(folder: Path, spool: Spool, tmp_path: Path) -> None:
    """Torn at any byte, even in its header."""
    records = some_records()
    ends = [len(HEADER)]
    for record in records:
        spool.append([record])
        ends.append(spool.size)
    spool.close()
    [file] = files(folder)
    data = file.read_bytes()
    assert len(data) == ends[-1]
    for cut in range(len(data) + 1):
        torn = tmp_path / f"torn{cut}"
        torn.mkdir(mode=0o700)
        (torn / f"x{SUFFIX}").write_bytes(data[:cut])
        reader = Spool(torn)
        assert replayed(reader) == records[: sum(each <= cut for each in ends) - 1 if cut >= ends[0] else 0]
        assert files(torn) == []  # nothing that was taken is in the rest


def test_a_torn_tail_is_logged(folder: Path, spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    """With the number of bytes that are left out."""
    file = left_behind(folder, some_records())
    file.write_bytes(file.read_bytes() + frame("TokenUsage", "{}")[:7])

    assert len(replayed(spool)) == 3
    assert "7 bytes are left out" in caplog.text


def test_a_damaged_file_is_replayed_and_kept(
    folder: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever byte is wrong, all other records come out, and nobody reads the file again."""
    records = some_records()
    file = left_behind(folder, records)
    data = file.read_bytes()
    middle = data.index(b"TokenUsage") + 15
    file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])

    assert replayed(spool) == [records[0], records[2]]
    assert [each.name for each in files(folder)] == [file.name + DAMAGED]
    assert "is damaged" in caplog.text
    assert "Grüße" not in caplog.text
    assert replayed(spool) == []


@pytest.mark.parametrize(
    "payload",
    [
        ("TokenUsage", "{}"),
        ("TokenUsage", "no JSON"),
        ("APIKey", "{}"),
        ("Scopes", "{}"),
        ("Nothing", "{}"),
        ("os.system", "ls"),
    ],
)
def test_a_record_that_is_none_is_not_lost(folder: Path, spool: Spool, payload: tuple[str, str]) -> None:
    """Its file is set aside; the others are replayed."""
    records = some_records()
    file = left_behind(folder, records)
    file.write_bytes(file.read_bytes() + frame(*payload))

    assert replayed(spool) == records
    assert files(folder) == [file.with_name(file.name + DAMAGED)]


def test_something_else_under_a_spools_name_is_set_aside(folder: Path, spool: Spool) -> None:
    """It is not deleted, and not read."""
    folder.mkdir(mode=0o700)
    (folder / f"x{SUFFIX}").write_text("my diary, which is longer than a header")

    assert replayed(spool) == []
    assert [each.read_text()[:8] for each in files(folder)] == ["my diary"]


def test_a_file_of_a_later_version_is_left_to_it(folder: Path, spool: Spool) -> None:
    """An older process that still runs beside newer ones does not touch it."""
    file = left_behind(folder, some_records())
    data = file.read_bytes()
    file.write_bytes(HEADER[:-1] + b"\x02" + data[len(HEADER) :])

    assert replayed(spool) == []
    assert replayed(spool) == []
    assert files(folder) == [file]


def test_links_pipes_and_folders_are_passed_over(folder: Path, spool: Spool, tmp_path: Path) -> None:
    """Nothing outside is read or deleted, and a pipe keeps nobody waiting."""
    file = left_behind(tmp_path / "elsewhere", some_records())
    folder.mkdir(mode=0o700)
    (folder / f"link{SUFFIX}").symlink_to(file)
    os.mkfifo(folder / f"pipe{SUFFIX}")
    (folder / f"folder{SUFFIX}").mkdir()

    assert replayed(spool) == []
    assert file.exists()
    assert len(files(folder)) == 3


def test_a_folder_that_is_a_link_is_refused(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever could put it there could read the records."""
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    spool = Spool(folder)

    assert spool.append(some_records()) == (0, False)
    assert "No spool file can be made" in caplog.text
    assert files(tmp_path / "elsewhere") == []
    assert replayed(spool) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a folder away")
def test_a_folder_of_another_user_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files in it would be found by nobody."""
    folder.mkdir()
    os.chown(folder, 12345, 12345)

    assert Spool(folder).append(some_records()) == (0, False)
    assert "belongs to another user" in caplog.text


def test_the_size_is_bounded(folder: Path) -> None:
    """Of this process' files together, also while one is being replayed; what does not fit is told apart."""
    spool = Spool(folder, max_bytes=1000)
    records = [usage(new_id()) for _ in range(20)]
    taken = spool.append(records)
    assert 0 < taken.taken < 20
    assert taken.full
    assert spool.size <= 1000
    spool.batch(1, 1, orphans=False)
    assert spool.append(records[:1]) == (0, True)

    assert replayed(spool) == records[: taken.taken]
    assert spool.append(records[:1]) == (1, False)
    spool.close()


def test_part_of_the_size_can_be_left_to_others(folder: Path) -> None:
    """Starts leave room for the ends of what runs."""
    spool = Spool(folder, max_bytes=1000)
    while spool.append([usage(new_id())], leaving=400).taken:
        pass

    assert 1000 >= spool.room >= 400 - 250
    assert spool.append([usage(new_id())]).taken
    spool.close()


def test_the_folder_is_bounded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Processes that die one after another do not fill the disk."""
    folder.mkdir(mode=0o700)
    (folder / "old.spool.damaged").write_bytes(bytes(MAX_PROCESSES * 1000))
    now = [0.0]
    spool = Spool(folder, max_bytes=1000, clock=lambda: now[0])
    assert spool.append(some_records()) == (0, True)
    assert spool.room == 0
    assert "is full" in caplog.text
    (folder / "old.spool.damaged").unlink()
    assert spool.append(some_records()) == (0, True)  # it is not looked at with every record
    now[0] += 2

    assert spool.append(some_records()[:1]) == (1, False)
    spool.close()


def test_a_record_that_cannot_be_spooled_is_an_error(spool: Spool) -> None:
    """And nothing of its batch is appended."""
    with pytest.raises(InvalidRecord):
        spool.append([end(new_id()), usage("no id")])
    assert spool.records == 0


def test_an_unfinished_file_is_swept_away(folder: Path, spool: Spool) -> None:
    """A process died before it had written anything."""
    folder.mkdir(mode=0o700)
    (folder / f"x{SUFFIX}{UNFINISHED}").write_bytes(b"")

    assert replayed(spool) == []
    assert files(folder) == []


def test_many_threads_may_append(spool: Spool) -> None:
    """No record is lost, none is torn."""
    records = [[usage(new_id()) for _ in range(50)] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda part=part: [spool.append([r]) for r in part]) for part in records
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {record.id for record in replayed(spool)} == {record.id for part in records for record in part}


@contextmanager
def process(what: str, folder: Path, number: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that spools, and the ids that it says were taken."""
    with run_beside_the_tests("spool_process", what, str(folder), str(number)) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().split()
        finally:
            running.kill()


def test_a_killed_process_loses_nothing(folder: Path, spool: Spool) -> None:
    """SIGKILL between append and replay; as long as it lives, its file is its own."""
    with process("plain", folder, 20) as (running, taken):
        assert replayed(spool) == []
        running.kill()
        running.wait()

        assert [record.id for record in replayed(spool)] == taken
        assert len(taken) == 20


def test_a_child_does_not_keep_its_parents_file(folder: Path, spool: Spool) -> None:
    """The parent is killed, its child lives on: what the parent spooled is found all the same."""
    with process("forking", folder, 5) as (running, taken):
        running.kill()
        running.wait()

        assert [record.id for record in replayed(spool)] == taken
        assert len(taken) == 5


def test_a_full_disk_costs_no_record_that_was_taken(folder: Path, spool: Spool) -> None:
    """A write that the kernel cuts short is taken back; with room again, the file goes on where it was whole."""
    with process("limited", folder, 20) as (running, taken):
        running.kill()
        running.wait()

        assert [record.id for record in replayed(spool)] == taken
        assert 2 < len(taken) < 20
    assert files(folder) == []


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a small file system"
)
def test_a_file_system_without_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A real one: nothing raises, the log says it once, and all that was taken comes back."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        spool = Spool(disk / "spool")
        records = [prompt(new_id(), "x" * 1000) for _ in range(100)]
        taken = [record for record in records if spool.append([record]).taken]
        assert 10 < len(taken) < 70
        assert spool.append(records[-2:]) == (0, True)
        assert caplog.text.count("cannot be written") == 1

        assert replayed(spool) == taken
        assert spool.append(records[:1]).taken == 1
        spool.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_batch_that_fits_in_part_is_taken_in_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write keeps the whole records and cuts the rest off, even where that fails."""
    spool, records, pwrite = Spool(folder), [usage(new_id()) for _ in range(3)], os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: max(12, len(data) // 2)], at))
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    assert spool.append(records) == (1, True)
    monkeypatch.undo()
    assert spool.append(records[1:]).taken == 2

    assert replayed(spool) == records
    assert files(folder) == []


def test_a_fork_that_python_was_not_told_of(
    spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process' id tells, too."""
    spool.append([end(new_id())])
    monkeypatch.setattr(os, "getpid", lambda: -7)

    assert spool.append([end(new_id())]).taken
    assert spool.records == 1
    assert len(files(folder)) == 2
    assert len(replayed(spool)) == 2  # the other belongs to nobody now


def test_what_cannot_be_deleted_is_not_replayed_for_ever(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is emptied, and left alone."""
    left_behind(folder, some_records())
    monkeypatch.setattr(
        os, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only"))
    )

    assert len(replayed(spool)) == 3
    assert replayed(spool) == []
    assert "could not be deleted" in caplog.text
    assert [file.stat().st_size for file in files(folder)] == [len(HEADER)]


def test_what_cannot_be_read_is_left_alone(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not deleted; a later process may have more luck."""
    file = left_behind(folder, some_records())
    monkeypatch.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    assert replayed(spool) == []
    assert "could not be read" in caplog.text
    monkeypatch.undo()

    assert file.exists()
    assert len(replayed(Spool(folder))) == 3


def test_synchronising_is_for_what_was_appended(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and not again."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    spool.append(some_records())
    assert spool.has_unsynced
    spool.sync()
    assert len(synced) == 2  # the file, and the folder that names it
    assert not spool.has_unsynced
    spool.sync()

    assert len(synced) == 2


def test_a_disk_that_cannot_synchronise_is_logged(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing raises in the thread that does it."""
    monkeypatch.setattr(SpoolFile, "sync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    spool.append(some_records())
    with caplog.at_level(logging.ERROR):
        spool.sync()

    assert "synchronised" in caplog.text


def test_a_bound_that_holds_nothing_is_an_error(folder: Path) -> None:
    """Found when the spool is made."""
    with pytest.raises(ValueError, match="max_bytes"):
        Spool(folder, max_bytes=3)


def test_much_that_cannot_be_read_does_not_hide_the_rest(folder: Path, spool: Spool) -> None:
    """However many bytes there are of it."""
    spool.append([usage(new_id(), "first")])
    file = spool._file
    assert file is not None
    file.append([frame("Unknown", "x" * 3000) for _ in range(10)])
    spool.append([usage(new_id(), "last")])
    found = []
    while batch := spool.batch(1, 1000, orphans=False):
        found += [record.id for record in batch]
        spool.stored(batch)
    assert found == ["first", "last"]
    assert [path.suffix for path in folder.iterdir()] == [".damaged"]


def test_what_is_given_up_is_set_aside(folder: Path, spool: Spool) -> None:
    """The records behind it are replayed."""
    spool.append([usage(new_id(), "bad"), usage(new_id(), "good")])
    bad = spool.batch(1, 1000, orphans=False)
    spool.give_up(bad)
    good = spool.batch(1, 1000, orphans=False)
    spool.give_up(bad)  # not the present one any more
    assert [record.id for record in good] == ["good"]
    spool.stored(good)
    assert not spool.batch(1, 1000, orphans=False)
    assert [path.suffix for path in folder.iterdir()] == [".damaged"]
