#!/usr/bin/env python3
"""tools/deps.sh, on a make-believe machine: what it installs, when, and what it says when it may not.

Not here: real packages.
Read more: HACKING.md, "Building".
"""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

DEPS = os.path.join(HERE, "..", "..", "tools", "deps.sh")
REAL = ["sh", "env", "tail", "mktemp", "rm", "cat"]


def machine(missing, uid=0, sudo=False, apt_fails=False, cpu="x86_64"):
    """A PATH on which dpkg-query knows all packages but these, and apt-get writes down what it is asked."""
    path = tap.fresh_dir("bin")
    log = os.path.join(path, "log")
    scripts = {
        "dpkg-query": f'for last; do :; done\ncase " {" ".join(missing)} " in *" $last "*) exit 1 ;; esac\nprintf "ii "',
        "apt-get": f'echo "apt-get $*" >>{log}\n' + ('echo "E: no network" >&2; exit 100' if apt_fails else ""),
        "id": f"echo {uid}",
        "uname": f"echo {cpu}",
    }
    if sudo:
        scripts["sudo"] = f'[ "$1" = -n ] && exit 0\necho "sudo" >>{log}\nexec "$@"'
    for name, text in scripts.items():
        with open(os.path.join(path, name), "w", encoding="ascii") as f:
            f.write("#!/bin/sh\n" + text + "\n")
        os.chmod(os.path.join(path, name), 0o755)
    for name in REAL:
        os.symlink(shutil.which(name), os.path.join(path, name))
    return path, log


def run(bin_path, *args):
    done = subprocess.run([DEPS, *args], env={"PATH": bin_path}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout + done.stderr


def asked(log):
    if not os.path.exists(log):
        return []
    with open(log, encoding="ascii") as f:
        return f.read().splitlines()


@tap.test
def complete():
    """Nothing missing: nothing done, nothing said"""
    path, log = machine([])
    tap.equal(run(path, "test"), (0, ""))
    tap.equal(asked(log), [])


@tap.test
def as_root():
    """Missing packages, as root: one update, one installation of exactly these"""
    path, log = machine(["meson", "libssl-dev"])
    status, text = run(path, "run")
    tap.equal(status, 0, text)
    tap.equal(asked(log), ["apt-get update -q", "apt-get install -y -q --no-install-recommends meson libssl-dev"])


@tap.test
def with_sudo():
    """Missing packages, as somebody who may use sudo"""
    path, log = machine(["meson"], uid=1000, sudo=True)
    status, text = run(path, "run")
    tap.equal(status, 0, text)
    tap.equal(asked(log), ["sudo", "apt-get update -q", "sudo", "apt-get install -y -q --no-install-recommends meson"])


@tap.test
def as_nobody():
    """Missing packages and no way to install them: the list and the command to type"""
    path, log = machine(["meson", "clang"], uid=1000)
    status, text = run(path, "test")
    tap.equal(status, 1)
    tap.contains(text, "missing: meson clang", "apt-get install -y --no-install-recommends meson clang")
    tap.equal(asked(log), [])


@tap.test
def test_set():
    """Building does not ask for what only testing needs"""
    path, log = machine(["clang", "libcmocka-dev", "python3"])
    tap.equal(run(path, "run"), (0, ""))
    status, text = run(path, "test")
    tap.equal(status, 0, text)
    tap.contains(asked(log)[-1], "clang", "libcmocka-dev", "python3")


@tap.test
def cross_set():
    """The cross compiler and the emulator are for x86-64 machines"""
    path, log = machine(["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"])
    tap.equal(run(path, "run"), (0, ""))
    status, text = run(path, "test")
    tap.equal(status, 0, text)
    tap.contains(asked(log)[-1], "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user")
    path, log = machine(["gcc-aarch64-linux-gnu"], cpu="aarch64")
    tap.equal(run(path, "test"), (0, ""))


@tap.test
def extras():
    """What only some tests need is installed along with the rest, but its absence alone is no reason"""
    path, log = machine(["fdisk"])
    tap.equal(run(path, "test"), (0, ""))
    tap.equal(asked(log), [])
    path, log = machine(["fdisk", "clang"])
    status, text = run(path, "test")
    tap.equal(status, 0, text)
    tap.contains(asked(log)[-1], "clang fdisk")


@tap.test
def apt_fails():
    """apt-get fails: its own words and exit status 1"""
    path, _ = machine(["meson"], apt_fails=True)
    status, text = run(path, "run")
    tap.equal(status, 1, text)
    tap.contains(text, "E: no network", "could not install: meson")


if __name__ == "__main__":
    tap.main()
