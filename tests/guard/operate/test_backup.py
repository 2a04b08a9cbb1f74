"""A guard can be brought back from a backup, and what was lost since is known."""

import shutil
import tarfile
from pathlib import Path

import pytest

from titer.core.errors import SpecError
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.audit.verify import verified
from titer.guard.context import Context
from titer.guard.home import Home
from titer.guard.operate.backup import backup, restore
from titer.guard.operate.keeper import Keeper


def _append(context: Context) -> None:
    event = audit_event(Kind.ACCESSED, action="R", agent="ines", at=0.0)
    context.journal.write(lambda connection: chain.append(connection, event, 0.0))


def test_a_running_guard_is_backed_up_and_comes_back_whole(context: Context, home: Home, tmp_path: Path) -> None:
    _append(context)
    Keeper(context).sign()
    file = tmp_path / "guard.tar.gz"
    assert set(backup(home, file, with_keys=True)) == {"guard.toml", "checkpoints.jsonl", "keys", "guard.db"}
    assert file.stat().st_mode & 0o077 == 0
    again = restore(file, tmp_path / "again")
    assert verified(again) == (1, [])
    assert again.keys.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("context")
def test_keys_are_not_in_a_backup_unless_they_are_asked_for(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.gz"
    backup(home, file)
    with tarfile.open(file) as archive:
        assert not [name for name in archive.getnames() if "key" in name or "pem" in name]


def test_rows_that_came_after_the_backup_are_named_as_lost(context: Context, home: Home, tmp_path: Path) -> None:
    _append(context)
    Keeper(context).sign()
    backup(home, tmp_path / "guard.tar.gz", with_keys=True)
    _append(context)
    Keeper(context).sign()
    again = restore(tmp_path / "guard.tar.gz", tmp_path / "again")
    shutil.copy(home.checkpoints, again.checkpoints)
    _rows, problems = verified(again)
    assert problems == [
        "the chain ends at row 1, but was signed with 2 rows: some were cut off, or an old copy restored"
    ]


@pytest.mark.usefixtures("context")
def test_nothing_is_written_over_and_what_is_no_backup_is_refused(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "guard.tar.gz"
    backup(home, file)
    with pytest.raises(SpecError, match="is there already"):
        backup(home, file)
    with pytest.raises(SpecError, match="is not empty"):
        restore(file, home.root)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(SpecError, match="no backup"):
        restore(tmp_path / "text", tmp_path / "other")


def test_an_archive_that_reaches_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "evil", arcname="../evil-out")
    with pytest.raises(SpecError, match="no backup"):
        restore(tmp_path / "evil.tar.gz", tmp_path / "in" / "side")
    assert not (tmp_path / "in" / "evil-out").exists()
