"""The vocabulary of the Python tests: register, require, clean up, print TAP.

Not here: how the command is run (cli.py), how the kernel is asked (koracle.py).
Read more: HACKING.md; testanything.org.
"""
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import koracle

_tests = []
_mounts = []
_available = {}


class Skip(Exception):
    """Raised by requires(): this machine cannot run the test."""


def test(function):
    """Decorator: the function is one test; the first line of its doc string is its name."""
    return add((function.__doc__ or function.__name__).strip().splitlines()[0].rstrip("."), function)


def add(name, function):
    _tests.append((name, function))
    return function


def in_ci():
    return os.environ.get("CI", "") not in ("", "0", "false")


def _has_root():
    return os.geteuid() == 0


def _has_loop():
    if not _has_root():
        return False
    return subprocess.run(["losetup", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _has_xattrs():
    """user.* attributes and ACLs where exports go (an ACL with the four entries that every file has)."""
    path = fresh("probe")
    with open(path, "wb"):
        pass
    try:
        os.setxattr(path, "user.probe", b"x")
        os.setxattr(path, "system.posix_acl_access", bytes.fromhex("02000000" "01000600ffffffff" "02000400d2040000"
                    "04000400ffffffff" "10000600ffffffff" "20000400ffffffff"))
        return True
    except OSError:
        return False
    finally:
        os.unlink(path)


def _has_fuse():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
        return True
    except OSError:
        return False


_CHECKS = {"fuse": _has_fuse, "xattrs": _has_xattrs, "root": _has_root, "loop": _has_loop, "kernel": koracle.available}


def requires(*what):
    """Skip the running test unless all of these are there: "root", "loop", "fuse", "kernel" (ext4 with fscrypt), "xattrs"
    (in the temporary directory), or a program.

    Where the environment variable CI is set, root, loop, fuse and kernel are not optional: the test fails."""
    for thing in what:
        if thing not in _available:
            _available[thing] = _CHECKS[thing]() if thing in _CHECKS else shutil.which(thing) is not None
        if _available[thing]:
            continue
        if in_ci() and thing in ("root", "loop", "fuse", "kernel"):
            raise AssertionError(f"needs {thing}, which a CI machine must have")
        raise Skip(f"needs {thing}")


def fail(message):
    raise AssertionError(message)


def equal(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def contains(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in {text!r}")


_work = None


def _memory_available():
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable"))


def work():
    """The temporary directory of this program; removed at its end.

    For root it is a small file system in memory: fast, and what runs amok fills that and nothing else."""
    global _work
    if _work is None:
        _work = tempfile.mkdtemp(prefix="inlay-test-")
        os.chmod(_work, 0o755)
        size = min(3 << 30, _memory_available() // 3)
        if os.geteuid() == 0 and not os.environ.get("TMPDIR") and size > 1 << 30:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "inlay-test", _work], check=False,
                                  capture_output=True)
            if done.returncode == 0:
                _mounts.append(_work)
    return _work


_serial = 0


def fresh(name="t"):
    """A path in work() that does not exist yet."""
    global _serial
    _serial += 1
    return os.path.join(work(), f"{_serial}-{name}")


def fresh_dir(name="d"):
    path = fresh(name)
    os.mkdir(path)
    return path


def mount(*args):
    """mount(8) with these arguments, the last of which is the directory; unmounted at the end at the latest."""
    subprocess.run(["mount", *args], check=True)
    _mounts.append(args[-1])
    return args[-1]


def unmount_later(directory):
    """At the end at the latest, whatever will be mounted there."""
    if directory not in _mounts:
        _mounts.append(directory)


def umount(directory):
    for _ in range(20):
        done = subprocess.run(["umount", directory], capture_output=True, check=False)
        if done.returncode == 0 or b"not mounted" in done.stderr:
            break
        time.sleep(0.1)
    else:
        subprocess.run(["umount", "-l", directory], check=False)
    if directory in _mounts:
        _mounts.remove(directory)


@contextlib.contextmanager
def mounted(image, *options):
    """The image on a fresh directory, through a loop device."""
    directory = fresh_dir("mnt")
    mount("-t", "ext4", "-o", ",".join(("loop", "noatime") + options), image, directory)
    try:
        yield directory
    finally:
        umount(directory)
        os.rmdir(directory)


_serves = {}


def served(mkfs_args, size, fill):
    """The path of an ext4 image that mke2fs fills from a directory: needs no root. fill(path) makes the directory.

    Made once per set of arguments and shared: a test that damages it takes a copy."""
    key = (mkfs_args, size, fill)
    if key not in _serves:
        source, image = fresh_dir("source"), fresh("plain.img")
        fill(source)
        with open(image, "wb") as f:
            f.truncate(size)
        kind = () if "-t" in mkfs_args else ("-t", "ext4")
        subprocess.run(["mke2fs", "-q", "-F", *kind, "-d", source, *mkfs_args, image], check=True, capture_output=True)
        subprocess.run(["rm", "-rf", "--", source], check=True)
        _serves[key] = image
    return _serves[key]


def copy(path):
    """A private copy of an image."""
    out = fresh("copy.img")
    subprocess.run(["cp", "--sparse=always", path, out], check=True)
    os.chmod(out, 0o644)
    return out


def _cleanup():
    for directory in reversed(list(_mounts)):
        umount(directory)
    if _work is not None:
        # Trees deeper than PATH_MAX defeat shutil.rmtree; rm -r copes.
        subprocess.run(["rm", "-rf", "--", _work], check=False)


def _indented(text):
    return "".join(f"# {line}\n" for line in text.rstrip().splitlines())


def _run_one(number, name, function):
    start = time.monotonic()
    try:
        function()
    except Skip as reason:
        print(f"ok {number} - {name} # SKIP {reason}", flush=True)
        return True
    except BaseException as error:  # pylint: disable=broad-except
        print(f"not ok {number} - {name}")
        if isinstance(error, AssertionError):
            where = traceback.extract_tb(error.__traceback__)
            frame = next((f for f in reversed(where) if not f.filename.endswith("tap.py")), where[-1])
            print(_indented(f"{os.path.basename(frame.filename)}:{frame.lineno}: {error}"[:4000]), end="", flush=True)
        else:
            print(_indented(traceback.format_exc()), end="", flush=True)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return False
    print(f"ok {number} - {name}", flush=True)
    if os.environ.get("TIMES"):
        print(f"# {time.monotonic() - start:.2f} s", flush=True)
    return True


def main():
    """Run the registered tests (or those whose name contains the first argument) and exit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    atexit.register(_cleanup)
    wanted = os.environ.get("ONLY", "")
    tests = [t for t in _tests if wanted in t[0]]
    print(f"1..{len(tests)}", flush=True)
    good = [_run_one(i, *t) for i, t in enumerate(tests, 1)]
    sys.exit(0 if good and all(good) else 1)
