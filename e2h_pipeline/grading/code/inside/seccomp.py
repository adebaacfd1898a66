"""The system calls that a program in the sandbox may make: a list of those that Python needs to compute,
by libseccomp, and nothing else.

What is not in it, in order of importance: starting a process or another program, sockets of every
kind, signals to others, reading another process, shared memory, mounts and namespaces, owners, modes and
times of files, io_uring (which would do all of that past the filter). A new system call of a
later kernel is refused too. Folders cannot be made, so that the one folder of a program is flat: what lies in
it can be counted and deleted, whatever modes a program gives it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_MASKED_EQUAL = 7
_CLONE_THREAD = 0x00010000
_SET_SECCOMP, _FILTER = 22, 2
_NO_NEW_PRIVILEGES = 38

CALLS = (
    # files that the other walls leave open
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat close close_range lseek"
    " fstat stat lstat newfstatat fstatat64 statx access faccessat faccessat2 readlink readlinkat getdents getdents64"
    " getcwd chdir fchdir unlink unlinkat rename renameat renameat2 truncate ftruncate fsync"
    " fdatasync umask flock fcntl dup dup2 dup3 pipe pipe2 sendfile copy_file_range fadvise64"
    # memory
    " mmap mprotect munmap mremap madvise brk membarrier mincore"
    # threads and waiting
    " futex set_robust_list get_robust_list rseq set_tid_address sched_yield sched_getaffinity sched_getparam"
    " sched_getscheduler sched_get_priority_max sched_get_priority_min select pselect6 poll ppoll epoll_create"
    " epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 wait4 waitid restart_syscall exit exit_group"
    # signals to itself
    " rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack alarm setitimer getitimer"
    # what it may know of itself
    " getpid gettid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid uname"
    " getrlimit getrusage times gettimeofday time clock_gettime clock_getres getrandom arch_prctl"
)
AT_ONCE = ("nanosleep", "clock_nanosleep")
"""Calls that do nothing and succeed: nobody waits for a program that sleeps."""


TESTS = ("recvmsg",)
"""What the process of the tests makes besides: it is handed the pipes of one program after the other."""


def compiled(more: tuple[str, ...] = ()) -> bytes:
    """The filter for this machine.

    Args:
        more: calls besides `CALLS`.

    Raises:
        OSError: no libseccomp, or it cannot.
    """
    library = _library()
    handle = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_REFUSE | _EPERM)))
    if not handle:
        raise OSError("libseccomp: no filter")
    for name in (*CALLS.split(), *more):
        _rule(library, handle, _ALLOW, name)
    for name in AT_ONCE:
        _rule(library, handle, _REFUSE, name)
    _rule(
        library, handle, _REFUSE | _ENOSYS, "clone3"
    )  # its flags are in memory; the C library then uses clone
    thread = _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD)
    _rule(library, handle, _ALLOW, "clone", thread)
    file = os.memfd_create("filter")
    try:
        if library.seccomp_export_bpf(handle, file):
            raise OSError("libseccomp: the filter cannot be exported")
        return os.pread(file, 1 << 20, 0)
    finally:
        os.close(file)
        library.seccomp_release(handle)


def closer(more: tuple[str, ...] = ()) -> Callable[[], None]:
    """A function that lets the process that calls it make no other calls from then on. It cannot be undone.

    All is prepared here, because each of many short processes calls it.

    Raises:
        OSError: no libseccomp, or it cannot. The function raises it where the kernel refuses.
    """
    code = compiled(more)
    kept = ctypes.create_string_buffer(code, len(code))
    whole = _Program(len(code) // 8, ctypes.cast(kept, ctypes.c_void_p))
    pointer = ctypes.c_ulong(ctypes.addressof(whole))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    nothing = (ctypes.c_ulong(0), ctypes.c_ulong(0))
    one, number, mode = ctypes.c_ulong(1), ctypes.c_int(_SET_SECCOMP), ctypes.c_ulong(_FILTER)
    if prctl(_NO_NEW_PRIVILEGES, one, *nothing, nothing[0]):
        raise OSError(ctypes.get_errno(), "no new privileges")

    def close(_kept: object = (kept, whole)) -> None:
        if prctl(number, mode, pointer, *nothing):
            raise OSError(ctypes.get_errno(), "seccomp")

    return close


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _library() -> ctypes.CDLL:
    with suppress(OSError):
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        library.seccomp_init.restype = ctypes.c_void_p
        return library
    raise OSError("no libseccomp.so.2; install the system's package libseccomp2 (Debian) or libseccomp")


def _rule(
    library: ctypes.CDLL, handle: ctypes.c_void_p, action: int, name: str, *compared: _Comparison
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:  # not on this architecture
        return
    array = (_Comparison * len(compared))(*compared)
    error = library.seccomp_rule_add_array(handle, ctypes.c_uint32(action), number, len(compared), array)
    if error:
        raise OSError(-error, f"libseccomp: no rule for {name}")
