"""The sandbox's command: bubblewrap with namespaces of its own and a root that holds Python and nothing else.

| what | how |
| --- | --- |
| files | an empty root, read-only; the interpreter, its standard library and the system's shared libraries in it |
| private folder | `/tmp`, in memory, of limited size |
| network, processes, IPC, host name | new namespaces; no `/proc`, no `/dev` but null, zero and random |
| user | root becomes a user of no name before a program starts; any other user gets a user namespace |
| privileges | none, and none to be gained; the system calls of `seccomp` are refused |
| end | with this process, as a tree |
"""

import os
import shutil
import sys
import sysconfig
from itertools import count
from pathlib import Path

from dasd_resources.sandbox.confinement import MAX_DISK_BYTES

TOOL = "bwrap"
MOUNTED = "/sandbox"  # where our own code is, inside
INSIDE = Path(__file__).parent / "inside"
START = "import sys; sys.path.insert(0, {path!r}); from dasd_resources.sandbox.inside.supervisor import main; main()"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_FIRST_UID = 2_000_000_000  # above what systems give out, so that no process, file or limit is shared
_SESSIONS_AT_ONCE = 64
_sessions = count()


def tool() -> str | None:
    """The path of bubblewrap, if it is installed."""
    return shutil.which(TOOL)


def private_uid() -> int | None:
    """The user that a session of root's becomes, one for each; None for anybody else, who has no choice."""
    if os.getuid() != 0:
        return None
    return _FIRST_UID + os.getpid() * _SESSIONS_AT_ONCE + next(_sessions) % _SESSIONS_AT_ONCE


def sandboxed(program: str, packages: tuple[str, ...], seccomp: int) -> list[str]:
    """The command that starts the supervisor in a sandbox. program: of bubblewrap. seccomp: a descriptor."""
    command = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--cap-drop", "ALL"]
    if os.getuid() == 0:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user"]
    command += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--clearenv", *_environment(), *_root(packages)]
    command += ["--seccomp", str(seccomp), "--chdir", "/tmp", "--", interpreter(), *flags()]
    return [*command, "-c", START.format(path=MOUNTED)]


def interpreter() -> str:
    """Python itself, not a virtual environment's link to it."""
    return str(Path(sys.executable).resolve())


def flags() -> list[str]:
    """Neither the environment nor a user's packages decide what Python does; it writes no bytecode."""
    return ["-I", "-B"]


def packages_folders() -> tuple[str, ...]:
    """Where installed packages are."""
    return tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def packages_inside(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Where they are in the sandbox: an environment may lie below /tmp, where the private folder would hide it."""
    return tuple(f"{MOUNTED}/packages/{number}" for number in range(len(packages)))


def _environment() -> list[str]:
    values = {
        "PATH": "/nonexistent",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib",
        "OPENBLAS_NUM_THREADS": "1",  # a thread takes 30 MB of address space
        "PYTHONHASHSEED": "0",
    }
    return [part for name, value in values.items() for part in ("--setenv", name, value)]


def _root(packages: tuple[str, ...]) -> list[str]:
    inside = f"{MOUNTED}/dasd_resources/sandbox/inside"
    shown = {path: path for path in (*_library_folders(), *_python())}
    shown |= dict(zip(packages, packages_inside(packages), strict=True))
    parts = _folders([*shown.values(), *_DEVICES, inside])
    for path, there in shown.items():
        parts += ["--ro-bind", path, there]
    for link in ("/lib", "/lib64"):
        if Path(link).is_symlink():
            parts += ["--symlink", os.readlink(link), link]
    for path in [f"{folder}/{name}" for folder in _standard_libraries() for name in ("site-packages", "dist-packages")]:
        if Path(path).is_dir():
            parts += ["--tmpfs", path]
    for device in _DEVICES:
        parts += ["--dev-bind", device, device]
    parts += ["--ro-bind", str(INSIDE), inside]
    parts += ["--perms", "1777", "--size", str(MAX_DISK_BYTES), "--tmpfs", "/tmp"]
    return [*parts, "--remount-ro", "/"]


def _folders(paths: list[str]) -> list[str]:
    """The folders above these paths, which bubblewrap would make for its own user alone."""
    above = dict.fromkeys(
        str(folder) for path in paths for folder in reversed(Path(path).parents) if folder != Path("/")
    )
    return [part for folder in [*above, "/tmp"] for part in ("--perms", "0755", "--dir", folder)]


def _library_folders() -> list[str]:
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = ["/usr/lib64", f"/usr/lib/{multiarch}"]
    folders += [
        folder for folder in ("/lib64", f"/lib/{multiarch}") if not Path(folder).resolve().is_relative_to("/usr")
    ]
    return [folder for folder in folders if Path(folder).is_dir() and folder.rstrip("/") not in ("/usr/lib", "/lib")]


def _python() -> list[str]:
    """The interpreter, its standard library, and its own shared library where that is not the system's."""
    libraries = [str(file) for file in Path(sys.base_prefix, "lib").glob("libpython*.so*")]
    return [interpreter(), *_standard_libraries(), *([] if sys.base_prefix == "/usr" else libraries)]


def _standard_libraries() -> list[str]:
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix, "installed_base": sys.base_prefix}
    base["installed_platbase"] = sys.base_exec_prefix
    return list(dict.fromkeys(sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")))
