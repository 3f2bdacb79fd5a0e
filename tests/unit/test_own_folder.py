"""Whose a folder is."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from redisq.broker.own_folder import who_else


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private folder in a private folder."""
    folder = tmp_path.resolve() / "parent" / "folder"
    folder.mkdir(mode=0o700, parents=True)
    folder.parent.chmod(0o755)
    return folder


def test_folder_that_only_its_owner_can_enter_is_safe(folder: Path) -> None:
    assert who_else(folder) == ""


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o750, 0o701, 0o1777, 0o710])
def test_folder_that_others_can_enter_is_not_safe(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    assert who_else(folder) == f"{folder} is open to others (mode {mode:o})"


@pytest.mark.parametrize(("mode", "safe"), [(0o777, False), (0o757, False), (0o1777, True), (0o755, True), (0o711, True)])
def test_folder_is_safe_only_where_others_cannot_replace_it(folder: Path, mode: int, safe: bool) -> None:
    folder.parent.chmod(mode)
    assert (who_else(folder) == "") is safe
    if not safe:
        assert f"others can put another folder in its place: {folder.parent} has mode" in who_else(folder)
        assert who_else(folder.parent) != ""


def test_folder_of_another_user_is_not_safe_and_neither_is_one_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 4242)
    assert who_else(folder) == f"{folder} belongs to user {owner}"


def test_link_is_not_safe_wherever_it_stands(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert who_else(link) == f"a link leads to {link}"
    outer = folder.parent.parent / "outer"
    outer.symlink_to(folder.parent)
    assert who_else(outer / "folder") == f"a link leads to {outer / 'folder'}"


def test_what_is_not_there_and_what_is_no_folder_is_not_safe(folder: Path) -> None:
    assert "No such file" in who_else(folder / "none")
    (folder / "file").touch()
    assert "is no folder" in who_else(folder / "file")


@pytest.mark.parametrize(
    ("group", "members", "safe"), [("ann", [], True), ("ann", ["ann"], True), ("ann", ["bob"], False), ("staff", [], False)]
)
def test_group_that_has_only_this_user_is_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, members: list[str], safe: bool
) -> None:
    """Many systems give each user a group of its own, and let it write in the user's folders."""
    folder.parent.chmod(0o775)
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        found = real(path)
        return os.stat_result((*found[:5], 4242, *found[6:])) if path == folder.parent else found

    monkeypatch.setattr(Path, "lstat", lstat)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_gid=4242, pw_name="ann"))
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=group, gr_mem=members))
    assert (who_else(folder) == "") is safe
