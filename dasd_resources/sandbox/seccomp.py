"""System calls that no program here needs: a classic BPF filter, which bubblewrap loads.

They fail with EPERM, as on a system that forbids them. Left out: a list of all that are allowed, which every release of
Python and of the C library would break.
"""

import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ARCH, _NUMBER, _FIRST_ARGUMENT = 4, 0, 16  # offsets in struct seccomp_data, of a little-endian machine
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_X32 = 0x40000000  # numbers of the x32 ABI begin here
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW…: user, pid, net, ipc, uts, cgroup, mount, time


@dataclass(frozen=True)
class Architecture:
    """Its code in audit messages, and the numbers of system calls that differ."""

    audit: int
    clone: int
    denied: tuple[int, ...]


_CLONE3 = 435
# Alike everywhere: pidfd_getfd, process_madvise, io_uring_*, the new mount calls, memfd_secret.
_NEW = (438, 440, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 447)
ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E,
        56,
        (
            *(101, 310, 311, 298, 321, 323),  # ptrace, process_vm_readv and _writev, perf_event_open, bpf, userfaultfd
            *(272, 308, 161, 155, 165, 166),  # unshare, setns, chroot, pivot_root, mount, umount2
            *(41, 319, 303, 304),  # socket, memfd_create, name_to_handle_at, open_by_handle_at
            *(248, 249, 250),  # add_key, request_key, keyctl
            *(29, 30, 31, 64, 65, 220, 68, 69, 70, 240),  # shared memory, semaphores, message queues
            *(175, 313, 176, 246, 320, 169, 167, 168, 163, 103, 179, 135, 154, 172, 173),  # modules … ioperm
        ),
    ),
    "aarch64": Architecture(
        0xC00000B7,
        220,
        (
            *(117, 270, 271, 241, 280, 282),
            *(97, 268, 51, 41, 40, 39),
            *(198, 279, 264, 265),
            *(217, 218, 219),
            *(194, 196, 195, 190, 193, 192, 186, 189, 188, 180),
            *(105, 273, 106, 104, 294, 142, 224, 225, 89, 116, 60, 92),
        ),
    ),
}


def seccomp_filter(machine: str = platform.machine()) -> bytes:
    """The filter as `struct sock_filter[]`. Raises KeyError for a machine whose system calls are not listed."""
    architecture = ARCHITECTURES[machine]
    program = [_step(_LOAD, _ARCH), _step(_EQUAL, architecture.audit, 1, 0), _step(_RETURN, _KILL)]
    program += [_step(_LOAD, _NUMBER), *_refuse(_AT_LEAST, _X32, _EPERM), *_refuse(_EQUAL, _CLONE3, _ENOSYS)]
    for number in (*architecture.denied, *_NEW):
        program += _refuse(_EQUAL, number, _EPERM)
    program += [_step(_EQUAL, architecture.clone, 0, 3), _step(_LOAD, _FIRST_ARGUMENT)]
    program += [*_refuse(_ANY_BIT, _NEW_NAMESPACES, _EPERM), _step(_RETURN, _ALLOW)]
    return b"".join(program)


def _refuse(test: int, value: int, error: int) -> list[bytes]:
    return [_step(test, value, 0, 1), _step(_RETURN, _ERROR | error)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
