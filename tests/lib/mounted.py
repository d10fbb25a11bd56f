"""A volume with plain and encrypted directories, mounted by the command and by the kernel, for the exercisers.

Not here: a mount by the command as such (live.py); what is done in it (tests/mount).
Read more: doc/inlay.1, "MOUNTING".

With TWIN_BOTH_KERNEL=1 in the environment the kernel stands in for the command: whatever is then found is a fault of
the test.
"""
import contextlib
import os
import signal
import subprocess

import cli
import koracle
import live
import tap

BOTH_KERNEL = os.environ.get("TWIN_BOTH_KERNEL", "") not in ("", "0")


def requires():
    tap.requires("root", "loop", "kernel")
    if not BOTH_KERNEL:
        live.available()


def program(name):
    """One of the programs that are built for tests."""
    build = os.environ.get("INLAY_BUILD") or os.path.dirname(os.path.dirname(cli.command()))
    return os.path.join(build, "tests", name)


def at_once(name, runs, limit):
    """Runs of such a program, all at the same time. Each must end well; returns what they say."""
    running = [subprocess.Popen([program(name), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True) for args in runs]
    said = []
    try:
        for args, process in zip(runs, running):
            out, err = process.communicate(timeout=limit)
            if process.returncode:
                tap.fail(f"{name} {' '.join(map(str, args))}: exit {process.returncode}\n" +
                         (out[-1200:] + err[-2800:]).decode(errors="replace"))
            said.append(out)
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return said


def volume(size, key, *mkfs, policy=(), name="ours.img"):
    """A new image with the directories plain, locked, mixed, mixed/plain and mixed/locked."""
    image = tap.fresh(name)
    cli.good("mkfs", "--size", size, *mkfs, image)
    for path in ("plain", "locked", "mixed", "mixed/plain", "mixed/locked"):
        cli.good("mkdir", f"{image}:/{path}")
    cli.good("encrypt", *policy, f"{image}:/locked", f"{image}:/mixed/locked", keys=[key])
    return image


@contextlib.contextmanager
def by_kernel(image, key, *options):
    with tap.mounted(image, *options) as root:
        with open(key, "rb") as f:
            koracle.add_key(root, f.read())
        yield root


@contextlib.contextmanager
def by_inlay(image, key, limit):
    """limit: seconds, after which the server is killed and the test fails."""
    if BOTH_KERNEL:
        with by_kernel(image, key) as root:
            yield root
        return
    with live.mounted(image, "-o", "allow_other,dev,suid", keys=[key], limit=limit) as mount:
        yield mount.dir


def lines_of(path):
    with open(path, encoding="latin-1") as f:
        return f.read().splitlines()


def same(ours, theirs, what):
    """The same lines; else some of those that differ, with what was before the first one."""
    bad = [i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]]
    if not bad:
        tap.equal(len(ours), len(theirs), what + ": lines")
        return
    text = [f"{what}: {len(bad)} lines of {len(ours)} differ"]
    text += ["  " + line[:200] for line in ours[max(0, bad[0] - 6):bad[0]]]
    for i in bad[:6]:
        text += ["  ours:   " + _around(ours[i], theirs[i]), "  theirs: " + _around(theirs[i], ours[i])]
    tap.fail("\n".join(text))


def _around(line, other):
    """So much of it that one sees what it is about, and where it differs."""
    at = next((i for i, (a, b) in enumerate(zip(line, other)) if a != b), min(len(line), len(other)))
    start = max(60, at - 60)
    return line[:200] if at < 140 else f"{line[:60]} ... {line[start:at + 80]}"
