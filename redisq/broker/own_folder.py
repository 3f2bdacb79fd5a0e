"""Is a folder this user's alone? Then nobody else can have put a socket, or a process number, there."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import redis
import redis.asyncio
from redis import exceptions as redis_errors

if sys.platform != "win32":
    import grp
    import pwd

__all__ = ["AsyncOwnSocket", "OwnSocket", "who_else"]


def who_else(folder: Path) -> str:
    """Say who else could put something into a folder, or another folder in its place; empty: nobody but this user and root.

    A link on the way is not followed: whoever owns it decides where it leads.
    """
    try:
        if folder != folder.resolve(strict=True):
            return f"a link leads to {folder}"
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return f"{folder} is no folder"
        if found.st_uid != os.geteuid():
            return f"{folder} belongs to user {found.st_uid}"
        if found.st_mode & 0o077:
            return f"{folder} is open to others (mode {stat.S_IMODE(found.st_mode):o})"
        for parent in folder.parents:
            found = parent.lstat()
            if found.st_uid not in (0, os.geteuid()):
                return f"{parent} belongs to user {found.st_uid}, who can put another folder in its place"
            if _others_rename_in(found):
                return f"others can put another folder in its place: {parent} has mode {stat.S_IMODE(found.st_mode):o}"
    except (OSError, RuntimeError) as error:
        return f"{folder}: {error.strerror if isinstance(error, OSError) else error}"
    return ""


def _others_rename_in(found: os.stat_result) -> bool:
    """Whether others can rename what this user has in a folder. In a sticky one, such as /tmp, they cannot."""
    if found.st_mode & stat.S_ISVTX:
        return False
    return bool(found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)))


def _is_own_group(number: int) -> bool:
    """Whether a group is root's, or has this user as its only member, as many systems give each user one."""
    if number == 0:
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    return user.pw_gid == number and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}


def _check(path: str) -> None:
    if others := who_else(Path(path).parent):
        raise redis_errors.ConnectionError(f"the socket {path} is not this user's alone: {others}")


class OwnSocket(redis.UnixDomainSocketConnection):
    """A connection to a server of this user's own. Looks at the folder each time it connects: what was there may be gone."""

    def _connect(self) -> object:
        _check(self.path)
        return super()._connect()  # type: ignore[no-untyped-call]


class AsyncOwnSocket(redis.asyncio.UnixDomainSocketConnection):
    """As `OwnSocket`, for async code."""

    async def _connect(self) -> None:
        _check(self.path)
        await super()._connect()  # type: ignore[no-untyped-call]
