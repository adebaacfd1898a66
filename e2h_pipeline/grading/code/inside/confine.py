"""How a process of the sandbox gives up what it could do: for good, before it reads a program."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Mapping

import landlock  # type: ignore[import-not-found]  # beside this file, which runs as a plain script
import places  # type: ignore[import-not-found]

_KEEP_CAPABILITIES = 8
_HEADER_VERSION = 0x20080522
_READ_ANYTHING = 1 << 2  # CAP_DAC_READ_SEARCH: Python may lie in a home folder that only its owner can enter
_NEW_USERS = 0x10000000
_FIRST_USER = 0x70000000  # no system gives a person a number like this
_OPEN_FILES, _SIGNALS = 64, 64
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def leave_root(folder: str) -> bool:
    """Become a user that owns nothing but `folder`, where this is the system's root; else a user of a
    namespace of its own, where the system allows that.

    Returns:
        Whether the threads of this user are those of the sandbox alone, so that they can be limited.
    """
    if os.geteuid():
        return ctypes.CDLL(None).unshare(_NEW_USERS) == 0
    user = _FIRST_USER + os.getpid()
    try:
        os.chown(folder, user, user)
    except OSError:  # root of a container of an ordinary user, which has no such numbers
        return False
    kernel = ctypes.CDLL(None, use_errno=True)
    kernel.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(_HEADER_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(_READ_ANYTHING, _READ_ANYTHING, 0, 0, 0, 0)
    if kernel.capset(ctypes.byref(header), ctypes.byref(data)):
        raise OSError(ctypes.get_errno(), "capset")
    return True


def close_files(folder: str) -> None:
    """Landlock: files of Python can be read, `folder` can be written, and no more.

    Raises:
        OSError: the kernel refused, or has no Landlock.
    """
    read = landlock.READ_FILE | landlock.READ_DIR
    write = read | landlock.WRITE_FILE | landlock.TRUNCATE | landlock.MAKE_REG | landlock.REMOVE_FILE
    allowed = dict.fromkeys(places.python_folders(), read)
    allowed |= dict.fromkeys(_DEVICES, landlock.READ_FILE | landlock.WRITE_FILE)
    landlock.restrict_all({**allowed, folder: write})


def limit(limits: Mapping[str, float], count_threads: bool) -> None:
    """The kernel's limits of each process from here on: memory, size of a file, open files, threads.

    Args:
        count_threads: as `leave_root` says. Where they cannot be counted, memory limits them.
    """
    memory = int(limits["memory_bytes"])
    threads = ((resource.RLIMIT_NPROC, int(limits["threads"])),) if count_threads else ()
    for what, value in (
        *threads,
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, int(limits["file_bytes"])),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_SIGPENDING, _SIGNALS),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))
    sys.dont_write_bytecode = True


def limit_cpu(seconds: float) -> None:
    """The kernel's limit of CPU time. The zygote is more exact; this holds if that is stopped."""
    most = int(seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
