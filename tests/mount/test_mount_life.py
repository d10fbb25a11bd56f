#!/usr/bin/env python3
"""How a mount begins, is looked at, and ends: by umount, signals, SIGKILL under load; full volumes, devices that fail.

Not here: programs in it (test_mount_programs.py).
Read more: doc/inlay.1, "MOUNTING". With --long a server is killed a hundred times.
"""
import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import koracle as k  # noqa: E402
import live  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
ROUNDS = 100 if "--long" in sys.argv else 6
WHAT_A_DEAD_MOUNT_SAYS = ("ENOTCONN", "ECONNABORTED", "EIO", "ENODEV")


def prepared(size="64M"):
    """A volume with an encrypted directory enc, and its key."""
    image, key_file = live.volume(size), live.key()
    live.with_directory(image, key_file)
    return image, key_file


def write_synced(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        at = 0
        while at < len(data):
            at += os.write(fd, data[at:])
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path):
    with open(path, "rb") as f:
        return f.read()


@contextlib.contextmanager
def kernel_sees(image, key_file=None):
    tap.requires("loop", "kernel")
    with tap.mounted(image) as root:
        if key_file:
            k.add_key(root, read(key_file))
        yield root


def started(function, *args):
    """The function in a process of its own, which ends with 0, or with 9 where it raises. Returns its number."""
    pid = os.fork()
    if not pid:
        code = 9
        try:
            function(*args)
            code = 0
        finally:
            os._exit(code)
    return pid


def ended(pid, seconds=20):
    """Its exit code. A process that waits for a dead mount must not wait for ever."""
    end = time.monotonic() + seconds
    while True:
        got, status = os.waitpid(pid, os.WNOHANG)
        if got:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            tap.fail("a program that used the mount hangs")
        time.sleep(0.01)


# ---- killed under load -----------------------------------------------------------------------------------------------


def content(name, version=0, limit=40000):
    rng = random.Random(f"{name} {version}")
    return rng.randbytes(rng.randrange(limit))


def work_and_tell(top, who, log):
    """Changes that are synced one by one; what has been acknowledged is told in a file elsewhere, until there is an error."""
    def tell(*words):
        os.write(log, (" ".join(map(str, (who, *words))) + "\n").encode())

    here, length = os.open(top, os.O_RDONLY), 0
    for i in range(1 << 30):
        name = f"{who}-{i}"
        if i % 4 == 1:
            data = content(name, limit=9000)
            with open(f"{top}/{who}-log", "ab", buffering=0) as f:
                f.write(data)
                os.fsync(f.fileno())
            length += len(data)
            tell("append", i, length)
        elif i % 4 == 2:
            write_synced(f"{top}/{who}-new", content(name))
            os.rename(f"{top}/{who}-new", f"{top}/{who}-current")
            os.fsync(here)
            tell("replace", i)
        elif i % 4 == 3:
            os.unlink(f"{top}/{who}-{i - 3}")
            os.fsync(here)
            tell("gone", i - 3)
        else:
            write_synced(f"{top}/{name}", content(name))
            tell("new", i)


def check_acknowledged(top, told):
    """Every change that was acknowledged is there, whole. Returns how many there were."""
    gone = {(who, i) for who, what, i, *_ in told if what == "gone"}
    last = {}
    for who, what, i, *more in told:
        if what == "new" and (who, i) not in gone:
            # The next change, that nobody acknowledged, may be that it goes.
            path = f"{top}/{who}-{i}"
            if os.path.exists(path):
                tap.equal(hashlib.sha256(read(path)).digest(), hashlib.sha256(content(f"{who}-{i}")).digest(), path)
            else:
                assert not any(w == who and int(j) > int(i) + 2 for w, _, j, *_ in told), f"{path} is lost"
                assert any(w == who and int(j) == int(i) + 2 for w, _, j, *_ in told), f"{path} is lost"
        elif what == "gone":
            assert not os.path.exists(f"{top}/{who}-{i}"), f"{who}-{i} is back"
        elif what in ("append", "replace"):
            last[who, what] = (int(i), *map(int, more))
    for (who, what), (i, *more) in last.items():
        if what == "append":
            wanted = b"".join(content(f"{who}-{j}", limit=9000) for j in range(1, i + 5, 4))
            got = read(f"{top}/{who}-log")
            assert len(got) >= more[0], f"{who}-log is {len(got)} bytes, {more[0]} were acknowledged"
            tap.equal(got[:more[0]] == wanted[:more[0]], True, f"{who}-log")
        else:
            assert read(f"{top}/{who}-current") in (content(f"{who}-{i}"), content(f"{who}-{i + 4}")), f"{who}-current"
    return len(told)


def one_round(mount, top, seconds):
    """Writers, until the server is killed. Returns what they were told."""
    path = tap.fresh("told")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writers = [started(work_and_tell, top, f"w{i}", log) for i in range(4)]
    time.sleep(seconds)
    mount.kill()
    for pid in writers:
        assert ended(pid) == 9, "a writer should end with an error"
    mount.wait()
    os.close(log)
    with open(path, encoding="ascii") as f:
        return [line.split() for line in f]


@tap.test
def killed():
    """SIGKILL under load, and another mount on the same directory: all that fsync acknowledged is there, every time"""
    image, key_file = prepared("128M")
    where, told, total = tap.fresh_dir("mnt"), {}, 0
    rng = random.Random(os.environ.get("SEED", "kill"))
    for i in range(ROUNDS):
        mount = live.Mount(image, directory=where, keys=[key_file])
        for j in (i - 1, i - 2):
            if j >= 0:
                total += check_acknowledged(f"{where}/enc/round{j}", told[j])
        if i >= 3:
            shutil.rmtree(f"{where}/enc/round{i - 3}")
        top = f"{where}/enc/round{i}"
        os.mkdir(top)
        # One that stays in the dead mount, with a file open, is not in the way of the next.
        stays = subprocess.Popen(["sh", "-c", "exec 3>open; echo; read x"], cwd=top, **PIPES)
        stays.stdout.readline()
        told[i] = one_round(mount, top, rng.uniform(0.05, 0.5))
        tap.equal(live.errno_of(os.listdir, where), "ENOTCONN", "a dead mount")
        cli.bad(cli.FAILED, "status", where, says="server has ended")
        if i % 3 == 0:
            copy = tap.copy(image)
            live.sound(copy, replay=True)
            with kernel_sees(copy, key_file) as root:
                check_acknowledged(f"{root}/enc/round{i}", told[i])
            os.unlink(copy)
        if i % 2:
            stays.communicate()
        else:
            # Killed again before anything is asked of it but to be there.
            mount = live.Mount(image, directory=where, keys=[key_file])
            stays.communicate()
            mount.kill()
            mount.wait()
    mount = live.Mount(image, directory=where, keys=[key_file])
    total += check_acknowledged(f"{where}/enc/round{ROUNDS - 1}", told[ROUNDS - 1])
    cli.good("umount", where)
    mount.ended()
    live.sound(image)
    assert total > 10 * ROUNDS, f"only {total} changes were acknowledged"


@tap.test
def dead_mount():
    """The mount of a server that was killed is not left below the next one, whether or not somebody has looked at it"""
    image, _ = prepared()
    where = tap.fresh_dir("mnt")
    for looks in (lambda _: None, os.stat, os.listdir):
        mount = live.Mount(image, directory=where)
        looks(where)
        mount.kill()
        mount.wait()
        mount = live.Mount(image, directory=where)
        tap.equal(live.n_mounts(where), 1, "mounts on the directory")
        mount.umount()
        tap.equal(os.listdir(where), [])


# ---- signals ---------------------------------------------------------------------------------------------------------


@tap.test
def signals():
    """SIGTERM, SIGINT and SIGHUP unmount: what was written is in the image, which is clean"""
    image, key_file = prepared()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        mount = live.Mount(image, keys=[key_file])
        data = content(number, limit=3 * MIB)
        trees.write(mount.path("enc", f"file{number}"), data)
        mount.kill(number)
        mount.wait()
        assert not live.is_mount(mount.dir), "still mounted"
        live.sound(image)
        tap.equal(cli.good("cat", f"{image}:/enc/file{number}", keys=[key_file]).out == data, True, "the data")


def write_and_wait(path, ready, go, size):
    """Writes without fsync, and goes on when it may."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.chdir(os.path.dirname(path))
    for at in range(0, size, MIB):
        os.write(fd, bytes([65 + at // MIB]) * MIB)
    os.write(ready, b"r")
    os.read(go, 1)
    said = [live.errno_of(os.write, fd, b"after"), live.errno_of(os.fsync, fd), live.errno_of(os.listdir, ".")]
    live.errno_of(os.close, fd)
    if not any(said) or not all(s in (None, *WHAT_A_DEAD_MOUNT_SAYS) for s in said):
        print(f"# the program got {said}", flush=True)
        os._exit(3)
    os._exit(0)


@tap.test
def signal_while_open():
    """SIGTERM while a program has a file open with data that it did not sync: in the image; the program gets an error"""
    image, key_file = prepared()
    mount = live.Mount(image, keys=[key_file])
    ready, go = os.pipe(), os.pipe()
    pid = started(write_and_wait, mount.path("enc", "file"), ready[1], go[0], 8 * MIB)
    os.read(ready[0], 1)
    mount.kill(signal.SIGTERM)
    mount.wait()
    os.write(go[1], b"g")
    tap.equal(ended(pid), 0, "the program's end")
    tap.equal(live.errno_of(os.stat, mount.path("enc")), "ENOENT", "the directory under the mount")
    live.sound(image)
    data = cli.good("cat", f"{image}:/enc/file", keys=[key_file]).out
    tap.equal((len(data), data == b"".join(bytes([65 + i]) * MIB for i in range(8))), (8 * MIB, True), "the data")


def write_for_ever(top, who):
    for i in range(1 << 30):
        trees.write(f"{top}/{who}-{i % 20}", content(i, limit=200000))


@tap.test
def signal_under_load():
    """SIGTERM while programs write without a pause: it ends, they end, the image is clean"""
    image, key_file = prepared("256M")
    for _ in range(2):
        mount = live.Mount(image, keys=[key_file])
        pids = [started(write_for_ever, mount.path("enc"), f"w{i}") for i in range(3)]
        time.sleep(0.4)
        mount.kill(signal.SIGTERM)
        mount.wait()
        for pid in pids:
            tap.equal(ended(pid), 9)
        assert not live.is_mount(mount.dir), "still mounted"
        live.sound(image)


@tap.test
def foreground():
    """--foreground serves until Ctrl-C, says nothing, and leaves a clean image"""
    image, key_file = prepared()
    where = tap.fresh_dir("mnt")
    tap.unmount_later(where)
    process = subprocess.Popen(cli.arguments(["mount", "--foreground", image, where], keys=[key_file]), **PIPES)
    live.wait_for(lambda: live.is_mount(where))
    trees.write(f"{where}/enc/file", b"data")
    tap.equal(cli.good("status", "--json", where).json()["process"], process.pid)
    tap.equal(process.poll(), None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    tap.equal((out, err), (b"", b""))
    assert process.returncode in (0, cli.INTERRUPTED), process.returncode
    live.sound(image)
    tap.equal(cli.good("cat", image + ":/enc/file", keys=[key_file]).out, b"data")
    # And until somebody unmounts it.
    process = subprocess.Popen(cli.arguments(["mount", "-f", image, where]), **PIPES)
    live.wait_for(lambda: live.is_mount(where))
    cli.good("umount", where)
    tap.equal((*process.communicate(timeout=20), process.returncode), (b"", b"", 0))


# ---- umount ----------------------------------------------------------------------------------------------------------


@tap.test
def busy():
    """umount of a mount that is in use says so and changes nothing; after that it works, also from below"""
    image, key_file = prepared()
    with live.mounted(image, keys=[key_file]) as mount:
        path = mount.path("enc", "file")
        with open(path, "wb") as f:
            f.write(b"before ")
            f.flush()
            cli.bad(cli.FAILED, "umount", mount.dir, says=(mount.dir, "in use"))
            f.write(b"after")
        tap.equal(read(path), b"before after")
        os.mkdir(mount.path("enc", "d"))
        cwd = subprocess.Popen(["sleep", "30"], cwd=mount.path("enc", "d"))
        cli.bad(cli.FAILED, "umount", mount.dir, says="in use")
        cwd.kill()
        cwd.wait()
        trees.write(path, b"last")
        # A directory in it is no mount; a typing error must not end the one above.
        done = cli.run("umount", mount.path("enc", "d"))
        assert done.code and done.err.count(b"\n") == 1, repr(done)
        tap.equal(read(path), b"last")
    live.sound(image)
    for path in (mount.dir, image, tap.fresh("none"), "/"):
        done = cli.run("umount", path)
        assert done.code == cli.FAILED and done.err.count(b"\n") == 1, repr(done)
    cli.bad(cli.USAGE, "umount")


@tap.test
def umount_waits():
    """umount brings much that was not synced to the image, and returns when the server is gone and the image free"""
    image, key_file = prepared("256M")
    for _ in range(2):
        mount = live.Mount(image, keys=[key_file])
        data = os.urandom(MIB)
        with open(mount.path("enc", "file"), "wb") as f:
            for i in range(32):
                f.write(data[i:] + data[:i])
        for i in range(200):
            trees.write(mount.path("enc", f"small{i}"), data[i:i + 100])
        mount.umount()
        live.sound(image)
        cli.good("touch", image + ":/free")
    # Also where the device takes its time for what the server has to write at the end.
    mount = live.Mount(f"fault({image}, delay=20ms)", keys=[key_file])
    mount.umount()
    live.sound(image)
    with kernel_sees(image, key_file) as root:
        tap.equal(read(f"{root}/enc/file") == b"".join(data[i:] + data[:i] for i in range(32)), True, "the data")
        tap.equal(len(os.listdir(f"{root}/enc")), 201)


@tap.test
def others_unmount():
    """umount(8), also --lazy, and fusermount3 -u end the server too, and the image is clean"""
    image, key_file = prepared()
    for i, argv in enumerate((["umount"], ["fusermount3", "-u"], ["umount", "--lazy"])):
        mount = live.Mount(image, keys=[key_file])
        trees.write(mount.path("enc", f"file{i}"), b"data")
        subprocess.run([*argv, mount.dir], check=True)
        mount.wait()
        live.sound(image)
        tap.equal(cli.good("cat", f"{image}:/enc/file{i}", keys=[key_file]).out, b"data")


@tap.test
def mount_below():
    """However a mount ends, what was mounted on the directory before is there again, and goes on"""
    image, other = live.volume("16M"), live.volume("16M")
    for how in (["umount"], ["inlay"], ["SIGTERM"], ["umount", "--lazy"]):
        where = tap.fresh_dir("mnt")
        tap.mount("-t", "tmpfs", "below", where)
        trees.write(f"{where}/below", b"below")
        lower = live.Mount(other, directory=where)
        trees.write(f"{where}/lower", b"lower")
        upper = live.Mount(image, directory=where)
        tap.equal(os.listdir(where), ["lost+found"])
        for mount, left in ((upper, b"lower"), (lower, b"below")):
            if how == ["inlay"]:
                cli.good("umount", where)
            elif how == ["SIGTERM"]:
                mount.kill(signal.SIGTERM)
            else:
                subprocess.run([*how, where], check=True)
            mount.wait()
            tap.equal(live.errno_of(read, f"{where}/{left.decode()}"), None, f"{how}: what was below")
            tap.equal(read(f"{where}/{left.decode()}"), left)
        os.unlink(f"{where}/below")
        tap.umount(where)
    live.sound(image)
    live.sound(other)


@tap.test
def covered():
    """What is mounted above a mount that ends by a signal stays, and the server ends; so it does where it is bound elsewhere"""
    image, _ = prepared()
    mount = live.Mount(image)
    subprocess.run(["mount", "-t", "tmpfs", "above", mount.dir], check=True)
    trees.write(f"{mount.dir}/above", b"above")
    mount.kill(signal.SIGTERM)
    mount.wait()
    tap.equal(read(f"{mount.dir}/above"), b"above")
    tap.umount(mount.dir)
    tap.umount(mount.dir)
    mount, elsewhere = live.Mount(image), tap.fresh_dir("elsewhere")
    tap.unmount_later(elsewhere)
    subprocess.run(["mount", "--bind", mount.dir, elsewhere], check=True)
    done = cli.run("umount", mount.dir)
    tap.equal((done.code, b"elsewhere" in done.err), (1, True), repr(done))
    trees.write(f"{elsewhere}/after", b"after")
    mount.kill(signal.SIGTERM)
    mount.wait()
    tap.umount(elsewhere)
    assert not live.needs_recovery(image)
    live.sound(image)


@tap.test
def others_flags():
    """Flags are the owner's to set, and immutable is root's, by whatever name the ioctl has"""
    image, _ = prepared()
    with live.mounted(image, "-o", "allow_other") as mount:
        for name, owner in (("root", 0), ("theirs", 65534)):
            trees.write(mount.path(name), b"x")
            os.chown(mount.path(name), owner, owner)
            os.chmod(mount.path(name), 0o644)

        def change(name, number, flags):
            fd = os.open(mount.path(name), os.O_RDONLY)
            fcntl.ioctl(fd, number, flags.to_bytes(8, "little"))

        extents, nodump, immutable = 0x80000, 0x40, 0x10
        for number in (0x40086602, 0x40046602):  # FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS
            for name, flag in (("root", nodump), ("root", immutable), ("theirs", immutable)):
                if live.as_user(65534, change, name, number, extents | flag) not in ("EPERM", "ENOTTY", "EACCES"):
                    tap.fail(f"{name}: flag {flag:#x} was set by {number:#x}")
        tap.equal(live.as_user(65534, change, "theirs", 0x40086602, extents | nodump), "None")


# ---- what is refused -------------------------------------------------------------------------------------------------


@tap.test
def second_mount():
    """An image that is mounted is refused to a second mount and to commands, by any name; the first goes on"""
    image, key_file = prepared()
    link = tap.fresh("link")
    os.symlink(image, link)
    with live.mounted(image, keys=[key_file]) as mount:
        other = tap.fresh_dir("mnt")
        for name in (image, link):
            for options in ((), ("--read-only",), ("-o", "ro")):
                cli.bad(cli.FAILED, "mount", *options, name, other, says=(name, "locked"))
            cli.bad(cli.FAILED, "mkdir", name + ":/d", says=(name, "locked"))
            cli.bad(cli.FAILED, "fsck", name, says=name)
            cli.bad(cli.FAILED, "mkfs", name, "--force", says=name)
        assert not live.is_mount(other)
        os.rmdir(other)
        write_synced(mount.path("enc", "file"), b"data")
    live.sound(image)


@tap.test
def nothing_to_mount():
    """Bad directories, bad images, bad options, bad keys: one line, an exit code, no mount, and nothing is left locked"""
    image, _ = prepared()
    where, none = tap.fresh_dir("mnt"), tap.fresh("none")
    file = tap.fresh("file")
    trees.write(file, b"\0" * MIB)
    live.available()
    cli.bad(cli.FAILED, "mount", image, none, says=(none, "no such"))
    cli.bad(cli.FAILED, "mount", none, where, says=(none, "no such"))
    cli.bad(cli.NOT_READABLE, "mount", file, where, says=file)
    done = cli.run("mount", where, where)
    assert done.code in (cli.FAILED, cli.NOT_READABLE) and done.err.count(b"\n") == 1, repr(done)
    for option in ("frob", "frob=1", "max_read=x", "allow_other,frob"):
        cli.bad((cli.FAILED, cli.USAGE), "mount", "-o", option, image, where, says="frob" if "frob" in option else "max_read")
    cli.bad(cli.FAILED, "mount", "-o", f"key={none}", image, where, says=none)
    cli.bad(cli.FAILED, "mount", "--key", none, image, where, says=none)
    short = tap.fresh("short")
    trees.write(short, b"short")
    cli.bad((cli.FAILED, cli.USAGE, cli.NO_KEY), "mount", "--key", short, image, where, says=short)
    for argv in ((), (image,), (image, where, where)):
        cli.bad(cli.USAGE, "mount", *argv)
    cli.bad(cli.FAILED, "status", where, says=where)
    cli.bad(cli.FAILED, "status", none, says=none)
    assert not live.is_mount(where), "something was mounted"
    live.sound(image)
    with live.mounted(image, directory=where):
        pass


@tap.test
def mount_on_file():
    """A file is no place for a mount, and is told so"""
    image, file = live.volume("16M"), tap.fresh("file")
    live.available()
    trees.write(file, b"a file")
    cli.bad(cli.FAILED, "mount", image, file, says=(file, "not a directory"))
    tap.equal((live.n_mounts(file), read(file)), (0, b"a file"))


# ---- options ---------------------------------------------------------------------------------------------------------


@tap.test
def read_only():
    """--read-only and -o ro: everything can be read, every change is EROFS, no byte of the image changes"""
    image, key_file = prepared()
    with live.mounted(image, keys=[key_file]) as mount:
        trees.write(mount.path("enc", "file"), b"data")
    dirty = tap.copy(image)
    mount = live.Mount(dirty, keys=[key_file])
    write_synced(mount.path("enc", "more"), b"only in the journal")
    mount.kill()
    mount.wait()
    assert live.needs_recovery(dirty)
    for path, names in ((image, ["file"]), (dirty, ["file", "more"])):
        before = cli.checksum(path)
        for options in (("--read-only",), ("-o", "ro")):
            mount = live.Mount(path, *options, keys=[key_file])
            top = mount.path("enc")
            tap.equal(sorted(os.listdir(top)), names)
            tap.equal(read(f"{top}/{names[-1]}"), b"data" if len(names) == 1 else b"only in the journal")
            for function, *args in ((trees.write, f"{top}/new", b"x"), (os.mkdir, f"{top}/d"), (os.unlink, f"{top}/file"),
                                    (os.rename, f"{top}/file", f"{top}/g"), (os.link, f"{top}/file", f"{top}/g"),
                                    (os.symlink, "x", f"{top}/l"), (os.chmod, f"{top}/file", 0o600),
                                    (os.truncate, f"{top}/file", 1), (os.utime, f"{top}/file"),
                                    (os.setxattr, f"{top}/file", "user.a", b"b"),
                                    (os.open, f"{top}/file", os.O_RDWR), (os.rmdir, f"{top}/../lost+found")):
                tap.equal(live.errno_of(function, *args), "EROFS", f"{function.__name__} {args}")
            status = cli.good("status", mount.dir).out
            tap.contains(status, b"read-only")
            assert b"error of" not in status, status
            tap.equal(mount.status()["writable"], False)
            cli.good("umount", mount.dir)
            mount.ended()
            tap.equal(cli.checksum(path), before, "checksum of the image")
    # Two readers are no danger to each other.
    with live.mounted(image, "--read-only"), live.mounted(image, "--read-only"):
        pass


@tap.test
def keys_as_options():
    """-o key=FILE and key-hex=FILE, several keys, relative paths of image, key and directory"""
    image, key_file = prepared()
    second = live.key()
    live.with_directory(image, second, "enc2")
    trees.write(key_file + ".hex", read(key_file).hex().encode() + b"\n")
    folder = os.path.dirname(image)
    base = os.path.basename
    where = tap.fresh_dir("mnt")
    tap.unmount_later(where)
    for options in (("-o", f"key={key_file},noatime,key={second}"), ("-o", f"key-hex={key_file}.hex", "--key", second),
                    ("-o", f"x-systemd.automount,defaults,nofail,rw,key={base(key_file)}", "--key", base(second))):
        cli.good("mount", *options, base(image), base(where), cwd=folder)
        trees.write(f"{where}/enc/a", b"a")
        trees.write(f"{where}/enc2/b", b"b")
        status = cli.good("status", "--json", base(where), cwd=folder).json()
        tap.equal(len(status["keys"]), 2)
        cli.good("umount", base(where), cwd=folder)
        assert not live.alive(status["process"])
        live.sound(image)
    tap.equal(cli.good("cat", image + ":/enc/a", keys=[key_file]).out, b"a")


@tap.test
def locked_directory():
    """With a wrong key, and with none: no-key names as the kernel's, ENOKEY, and things can be removed"""
    image, key_file = prepared()
    with live.mounted(image, keys=[key_file]) as mount:
        top = mount.path("enc")
        os.makedirs(f"{top}/d/e")
        for i in range(5):
            trees.write(f"{top}/file {i} " + "n" * 60 * i, b"x" * 100 * i)
        trees.write(f"{top}/d/e/deep", b"deep")
        os.symlink("target", f"{top}/link")
    with kernel_sees(image) as root:
        wanted = {p: (r["type"], r["size"]) for p, r in trees.snapshot(root, data=False).items()}
    for keys in ([live.key()], []):
        with live.mounted(image, keys=keys) as mount:
            top = mount.path("enc")
            seen = trees.snapshot(mount.dir, data=False)
            tap.equal({p: (r["type"], r["size"]) for p, r in seen.items()}, wanted, "names and sizes without the key")
            file = next(p for p, r in seen.items() if r["type"] == "file" and r["size"] == (400 if keys else 300))
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
                tap.equal(live.errno_of(os.open, mount.path(os.fsdecode(file)), flags), "ENOKEY")
            tap.equal(live.errno_of(os.truncate, mount.path(os.fsdecode(file)), 0), "ENOKEY")
            tap.equal(live.errno_of(trees.write, f"{top}/new", b"x"), "ENOKEY")
            tap.equal(live.errno_of(os.mkdir, f"{top}/new"), "ENOKEY")
            tap.equal(live.errno_of(os.rename, mount.path(os.fsdecode(file)), f"{top}/new"), "ENOKEY")
            tap.equal(live.errno_of(os.link, mount.path(os.fsdecode(file)), f"{top}/new"), "ENOKEY")
            os.chmod(mount.path(os.fsdecode(file)), 0o640)
            os.mkdir(mount.path("open"))
            os.rmdir(mount.path("open"))
            if keys:
                os.unlink(mount.path(os.fsdecode(file)))
                del wanted[file]
        live.sound(image)
    with live.mounted(image, keys=[key_file]) as mount:
        tap.equal(len(os.listdir(mount.path("enc"))), 6)
        tap.equal(read(mount.path("enc", "d", "e", "deep")), b"deep")
    with live.mounted(image) as mount:
        shutil.rmtree(mount.path("enc"))
        tap.equal(os.listdir(mount.dir), ["lost+found"])
    live.sound(image)


# ---- full ------------------------------------------------------------------------------------------------------------


def fill(top, name, size, sync, mapped=False):
    """Files until there is an error. Returns those that no call complained about, and the error."""
    good = {}
    for i in range(1000):
        data = trees.pattern(i, size)
        path = f"{top}/{name}{i}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                at = 0
                while at < size:
                    at += os.write(fd, data[at:])
                if sync:
                    os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.close(fd)
                raise
            os.close(fd)
        except OSError as error:
            return good, error
        good[path] = hashlib.sha256(data).digest()
    return good, None


def full(*options):
    image, key_file = prepared("24M")
    kept = {}
    with live.mounted(image, *options, keys=[key_file]) as mount:
        top = mount.path("enc")
        write_synced(f"{top}/before", b"was there")
        for sync in (True, False):
            good, error = fill(top, f"large{sync}-", MIB + 4321, sync)
            tap.equal(error and error.errno, 28, f"the error (ENOSPC), after {len(good)} files")
            kept.update(good)
            small, error = fill(top, f"small{sync}-", 3000, sync)
            tap.equal(error and error.errno, 28, f"the error of small files, after {len(small)}")
            kept.update(small)
            for path, digest in kept.items():
                tap.equal(hashlib.sha256(read(path)).digest(), digest, path)
            tap.equal(read(f"{top}/before"), b"was there")
            # What is removed can be used again at once.
            gone = next(p for p in kept if "large" in p)
            os.unlink(gone)
            del kept[gone]
            for name in os.listdir(top):
                if f"{top}/{name}" not in kept and name != "before":
                    os.unlink(f"{top}/{name}")
            write_synced(f"{top}/again{sync}", trees.pattern(9, MIB // 2))
            kept[f"{top}/again{sync}"] = hashlib.sha256(trees.pattern(9, MIB // 2)).digest()
        assert len(kept) > 5, kept
        tap.equal(mount.status()["writable"], True, "a full volume is no broken one")
    live.sound(image)
    with kernel_sees(image, key_file) as root:
        for path, digest in kept.items():
            tap.equal(hashlib.sha256(read(root + path[len(mount.dir):])).digest(), digest, path)
        tap.equal(read(f"{root}/enc/before"), b"was there")


@tap.test
def full_volume():
    """A full volume: ENOSPC at write, fsync or close, never silence; the rest stays whole, and space that is freed is used"""
    full()


@tap.test
def full_volume_through():
    """The same with no_writeback, where the write itself says it"""
    full("-o", "no_writeback")


@tap.test
def full_inodes():
    """No inode is left: ENOSPC for files, directories, links and nodes; and it comes back"""
    image = tap.fresh("few.img")
    k.mkfs(image, 16 * MIB, "-N", "64")
    with live.mounted(image) as mount:
        made = []
        while (error := live.errno_of(os.mkdir, mount.path(f"d{len(made)}"))) is None:
            made.append(mount.path(f"d{len(made)}"))
        tap.equal(error, "ENOSPC")
        for function, *args in ((trees.write, mount.path("f"), b"x"), (os.symlink, "x", mount.path("l")),
                                (os.mkfifo, mount.path("p"))):
            tap.equal(live.errno_of(function, *args), "ENOSPC")
        os.rmdir(made.pop())
        live.wait_for(lambda: live.errno_of(os.mkfifo, mount.path("p")) is None, 3, "the inode does not come back")
    live.sound(image)


# ---- devices that fail -----------------------------------------------------------------------------------------------


EVER = 1 << 40


def until_error(top, limit=400):
    """Synced files. Returns those acknowledged, and the name of the error."""
    good = []
    for i in range(limit):
        error = live.errno_of(write_synced, f"{top}/file{i}", content(i, limit=30000))
        if error:
            return good, error
        good.append(i)
    return good, None


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def failing(rule):
    """A mount on a device with this fault, until all has been said of it. Returns the image, its key, and which files
    were acknowledged."""
    image, key_file = prepared()
    mount = live.Mount(f"fault({image}, {rule})", keys=[key_file], limit=30)
    top = mount.path("enc")
    good, error = until_error(top)
    tap.equal(error, "EIO", f"{rule}: after {len(good)} files")
    # The next commit, at the latest, ends it; from there on nothing is promised that is not kept.
    live.errno_of(os.mkdir, f"{top}/d")
    live.errno_of(sync_directory, top)
    for function, *args in ((write_synced, f"{top}/later", b"x"), (os.mkdir, f"{top}/e"), (os.chmod, top, 0o711)):
        tap.equal(live.errno_of(function, *args), "EROFS", f"{rule}: {function.__name__}")
    for i in good:
        tap.equal(read(f"{top}/file{i}") == content(i, limit=30000), True, f"{rule}: file{i}")
    tap.contains(cli.good("status", mount.dir).out, b"read-only since an error", b"Input/output error")
    tap.equal((mount.status()["writable"], mount.status()["error"]), (False, "Input/output error"))
    done = cli.run("umount", mount.dir, timeout=30)
    assert done.code == cli.FAILED and done.err.count(b"\n") == 1, f"{rule}: umount does not say it: {done!r}"
    assert not live.is_mount(mount.dir) and not live.alive(mount.pid), f"{rule}: umount has not unmounted"
    mount.ended()
    return image, key_file, good


def after_failure(image, key_file, good):
    """What was acknowledged is in the image, when e2fsck has done its work."""
    done = subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stdout
    live.sound(image)
    with live.mounted(image, keys=[key_file]) as mount:
        for i in good:
            tap.equal(read(mount.path("enc", f"file{i}")) == content(i, limit=30000), True, f"file{i}")


@tap.test
def writes_fail():
    """A device whose writes fail from some moment on: EIO at fsync, read-only, status says why, umount says it"""
    for n in (30, 71, 120):
        after_failure(*failing(f"write@{n}..{EVER}=EIO"))


@tap.test
def one_write_fails():
    """One write that fails is not forgotten, though the next would succeed"""
    for n in (40, 91):
        after_failure(*failing(f"write@{n}=EIO"))


@tap.test
def flushes_fail():
    """A flush that fails, once or from then on: the same"""
    for rule in ("flush@9=EIO", f"flush@5..{EVER}=EIO"):
        after_failure(*failing(rule))


@tap.test
def writes_fail_unsynced():
    """Data that was never synced and cannot be written: close or umount says so"""
    image, key_file = prepared()
    mount = live.Mount(f"fault({image}, write@12..{EVER}=EIO)", keys=[key_file], limit=30)
    said = None
    for i in range(20):
        said = said or live.errno_of(trees.write, mount.path("enc", f"file{i}"), b"x" * 100000)
    done = cli.run("umount", mount.dir, timeout=30)
    assert said == "EIO" or (done.code == cli.FAILED and b"error" in done.err), f"{said}, {done!r}"
    assert done.code == cli.FAILED and done.err.count(b"\n") == 1, f"umount does not say it: {done!r}"
    assert not live.alive(mount.pid)
    mount.ended()


@tap.test
def reads_fail():
    """Reads that fail: EIO for the program that reads, and nothing else happens"""
    image, key_file = prepared()
    data = content("r", limit=4 * MIB)
    with live.mounted(image, keys=[key_file]) as mount:
        trees.write(mount.path("enc", "file"), data)
        trees.write(mount.path("enc", "other"), data)
    extent = next(e for e in cli.good("stat", "--json", image + ":/enc/file", keys=[key_file]).json()[0]["extents"])
    start = extent["physical"]
    with live.mounted(f"fault({image}, bad={start + 65536}..{start + 69632})", keys=[key_file]) as mount:
        tap.equal(live.errno_of(read, mount.path("enc", "file")), "EIO")
        with open(mount.path("enc", "file"), "rb", buffering=0) as f:
            tap.equal(f.read(4096), data[:4096])
        tap.equal(read(mount.path("enc", "other")) == data, True)
        write_synced(mount.path("enc", "new"), b"new")
        tap.equal(mount.status()["writable"], True)
        assert mount.status()["served"]["errors"] > 0
    live.sound(image)


def use(top):
    """Whatever comes of it, it ends."""
    for i in range(30):
        live.errno_of(write_synced, f"{top}/more{i}", content(i))
        live.errno_of(os.listdir, top)
        live.errno_of(read, f"{top}/file{i}")
        live.errno_of(os.unlink, f"{top}/file{i}")


@tap.test
def all_fails():
    """A device that is gone: all I/O fails; programs get errors, status answers, umount ends"""
    image, key_file = prepared()
    gone = "+".join(f"{op}@{n}..{EVER}=EIO" for op, n in (("read", 120), ("write", 60), ("flush", 20)))
    mount = live.Mount(f"fault({image}, {gone})", keys=[key_file], limit=30)
    ended(started(use, mount.path("enc")))
    tap.contains(cli.good("status", mount.dir).out, b"read-only since an error")
    for function, *args in ((write_synced, mount.path("enc", "later"), b"x"), (os.mkdir, mount.path("d"))):
        tap.equal(live.errno_of(function, *args), "EROFS")
    done = cli.run("umount", mount.dir, timeout=30)
    tap.equal((done.code, done.err.count(b"\n")), (cli.FAILED, 1), repr(done))
    assert not live.alive(mount.pid) and not live.is_mount(mount.dir)
    mount.ended()


@tap.test
def disappears():
    """A loop device that is detached, an image that is cut off below a mount: nothing hangs, nobody crashes, umount ends"""
    tap.requires("loop")
    for how in ("detach", "truncate", "truncate-loop"):
        image, key_file = prepared()
        with live.mounted(image, keys=[key_file]) as mount:
            for i in range(30):
                trees.write(mount.path("enc", f"file{i}"), content(i))
        device = image
        if how != "truncate":
            device = os.fsdecode(subprocess.run(["losetup", "-f", "--show", image], stdout=subprocess.PIPE, check=True).stdout.strip())
        try:
            mount = live.Mount(device, keys=[key_file], limit=30)
            if how == "detach":
                subprocess.run(["losetup", "-d", device], check=True)
            else:
                os.truncate(image, 1 * MIB)
            ended(started(use, mount.path("enc")))
            cli.run("status", mount.dir, timeout=10)
            # Who has written to what is not there any more is told, unless the file has only grown again.
            done = cli.run("umount", mount.dir, timeout=20)
            assert done.code in (0, cli.FAILED), repr(done)
            assert not live.is_mount(mount.dir) and not live.alive(mount.pid), f"{how}: {done!r}"
            mount.ended()
        finally:
            if device != image:
                subprocess.run(["losetup", "-d", device], capture_output=True, check=False)
        if how == "detach":
            live.sound(image)


# ---- status ----------------------------------------------------------------------------------------------------------


@tap.test
def status():
    """status: image, process, keys, journal, devices and counters, as text and as JSON, from any place in the mount"""
    image, key_file = prepared()
    name = cli.run("keyid", stdin=read(key_file)).out.split()[0].decode()
    with live.mounted(image, keys=[key_file]) as mount:
        before = mount.status()
        trees.write(mount.path("enc", "file"), b"x" * MIB)
        with open(mount.path("enc", "file"), "rb") as f:
            os.fsync(f.fileno())
            after = cli.good("status", "--json", mount.path("enc")).json()
            text = cli.good("status", mount.path("enc", "file")).out.decode()
            assert after["served"]["open"] >= 1, after["served"]
        for part in (image, mount.dir, str(mount.pid), name, "writable", "requests", "Log"):
            tap.contains(text, part)
        tap.equal((after["image"], after["directory"], after["writable"], after["error"]), (image, mount.dir, True, None))
        tap.equal([key["identifier"] for key in after["keys"]], [name])
        tap.equal(after["served"]["bytes_written"] - before["served"]["bytes_written"], MIB)
        assert after["served"]["requests"] > before["served"]["requests"]
        assert after["journal"]["commits"] > before["journal"]["commits"], after["journal"]
        assert after["volume"] and after["device"], after
        tap.contains(str(after["device"]), "bytes_written")
    cli.bad(cli.FAILED, "status", mount.dir, says=mount.dir)


@contextlib.contextmanager
def watching(directory, *options):
    process = subprocess.Popen(cli.arguments(["status", "--watch", *options, directory]), **PIPES)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@tap.test
def watch():
    """status --watch: a line for each second; SIGINT ends it"""
    image, key_file = prepared()
    with live.mounted(image, keys=[key_file]) as mount, watching(mount.dir) as process:
        trees.write(mount.path("enc", "file"), b"x" * MIB)
        first = process.stdout.readline()
        tap.contains(first, b"requests", b"written", b"open", b"errors")
        began = time.monotonic()
        tap.contains(process.stdout.readline(), b"requests")
        assert 0.5 < time.monotonic() - began < 3, "a second"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
        tap.equal(err, b"")
        assert process.returncode in (0, cli.INTERRUPTED), process.returncode


@tap.test
def watch_json():
    """status --watch --json: an object in each line"""
    image, _ = prepared()
    with live.mounted(image) as mount, watching(mount.dir, "--json") as process:
        line = cli.Result([], 0, process.stdout.readline(), b"").json()
        assert {"requests", "bytes_read", "bytes_written"} <= line.keys(), line
        process.kill()
        process.wait()


@tap.test
def watch_and_umount():
    """status --watch is not in the way of umount, and ends with the mount"""
    mount = live.Mount(prepared()[0])
    with watching(mount.dir) as process:
        process.stdout.readline()
        try:
            mount.umount()
            process.wait(5)
        finally:
            process.kill()
            process.wait()


@tap.test
def watch_ends():
    """status --watch ends with a word when the server does, by SIGTERM or SIGKILL"""
    ends = (signal.SIGTERM, signal.SIGKILL)
    mounts = [live.Mount(live.volume("16M")) for _ in ends]
    with watching(mounts[0].dir) as first, watching(mounts[1].dir) as second:
        for process, mount, number in zip((first, second), mounts, ends):
            process.stdout.readline()
            mount.kill(number)
        for process, mount, number in zip((first, second), mounts, ends):
            mount.wait()
            try:
                _, err = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                tap.fail(f"{number}: watch goes on")
            tap.contains(err, b"is not served any more")
            tap.equal(process.returncode, cli.FAILED)


# ---- mount(8) --------------------------------------------------------------------------------------------------------


# For shells; nobody may have waited for a process that has ended.
SERVER = r"""
process() { "$INLAY" status --json "$1" | grep -o '"process": *[0-9]*' | grep -o '[0-9]*$'; }
alive() { grep -qs '^State:.[^ZX]' "/proc/$1/status" || [ "$(ls "/proc/$1/task" 2>/dev/null | wc -l)" -gt 1 ]; }
gone() { i=0; while alive "$1" && [ $i -lt 200 ]; do sleep 0.05; i=$((i + 1)); done; ! alive "$1"; }
"""

HELPER = SERVER + r"""
set -e
mount --make-rprivate /
sbin=$(readlink -f /sbin)
mkdir "$WORK/real" "$WORK/all"
mount --bind "$sbin" "$WORK/real"
ln -s "$WORK"/real/* "$WORK/all/"
ln -s "$INLAY" "$WORK/all/mount.fuse.inlay"
mount --bind "$WORK/all" "$sbin"
"""


def in_own_namespace(script, **env):
    """A shell script that sees mounts of its own, as root. Returns its output."""
    env = {**os.environ, "INLAY": os.path.abspath(cli.command()), **env}
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], env=env, capture_output=True, timeout=60, check=False)
    if done.returncode:
        tap.fail(f"exit {done.returncode}: {done.stdout[-1500:].decode()} {done.stderr[-1500:].decode()}")
    return done.stdout.decode()


@tap.test
def mount_8():
    """mount -t fuse.inlay, and a line of fstab: mounted, used, shown, unmounted; what is wrong is said"""
    live.available()
    tap.requires("unshare")
    image, key_file = prepared()
    work = tap.fresh_dir("sbin")
    script = HELPER + r"""
is_served() { awk -v d="$DIR" '$2 == d && $3 == "fuse.inlay"' /proc/self/mounts | grep -q .; }

mount -t fuse.inlay -o key="$KEY",noatime "$IMAGE" "$DIR"
is_served
p=$(process "$DIR")
echo one >"$DIR/enc/one"
umount "$DIR"
gone "$p"

echo "$IMAGE $DIR fuse.inlay key=$KEY,noauto,x-systemd.automount,user,ro 0 0" >"$WORK/fstab"
mount -T "$WORK/fstab" "$DIR"
is_served
p=$(process "$DIR")
cat "$DIR/enc/one"
! touch "$DIR/enc/two" 2>/dev/null
findmnt -n -o FSTYPE,SOURCE "$DIR"
umount "$DIR"
gone "$p"

"$WORK/all/mount.fuse.inlay" "$IMAGE" "$DIR" -n -s -v -t fuse.inlay -o rw,key="$KEY"
is_served
echo three >"$DIR/enc/three"
"$INLAY" umount "$DIR"
"$WORK/all/mount.fuse.inlay" "$IMAGE" "$DIR" -f -o rw
! is_served
! mount -t fuse.inlay "$WORK/none" "$DIR" 2>"$WORK/said"
! is_served
"""
    out = in_own_namespace(script, WORK=work, IMAGE=image, DIR=tap.fresh_dir("mnt"), KEY=key_file)
    tap.equal(out.split(), ["one", "fuse.inlay", image])
    tap.contains(read(f"{work}/said").lower(), b"inlay: ", b"none", b"no such")
    live.sound(image)
    tap.equal(cli.good("cat", image + ":/enc/three", keys=[key_file]).out, b"three\n")


AS_USER = r"""
set -e
mount --make-rprivate /
# As distributions have it: the device is for everybody.
mknod -m 666 "$WORK.fuse" c 10 229
mount --bind "$WORK.fuse" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all sh -ec "$SCRIPT"
"""

ITS_BEGIN = SERVER + r"""
umask 077
cd "$WORK"
end() { kill "$1" "$2"; gone "$2"; }
mkdir mnt
"$INLAY" keygen >key
"$INLAY" mkfs image --size 32M
"$INLAY" mkdir image:/enc
"$INLAY" encrypt --key key image:/enc >out
"""


def user_runs(script):
    """Returns its folder, and what it said."""
    live.available()
    tap.requires("unshare", "fusermount3", "setpriv")
    cli.as_nobody()
    work = tap.fresh_dir("user")
    os.chown(work, cli.NOBODY, cli.NOBODY)
    return work, in_own_namespace(AS_USER, WORK=work, SCRIPT=ITS_BEGIN + script)


@tap.test
def by_nobody():
    """An ordinary user, through fusermount3: makes, mounts, writes, looks, unmounts; SIGTERM; allow_other is not theirs"""
    work, out = user_runs(r"""
"$INLAY" mount --key key image mnt
echo data >mnt/enc/file
ls mnt/enc
"$INLAY" status mnt | grep -c "served by process"
! "$INLAY" umount mnt/none 2>said
exec 3>mnt/enc/open
! "$INLAY" umount mnt 2>said
grep -c "in use" said
exec 3>&-
"$INLAY" umount mnt
"$INLAY" mount --key key image mnt
p=$(process mnt)
echo again >mnt/enc/again
end -TERM "$p"
! mountpoint -q mnt
"$INLAY" cat --key key image:/enc/again
! "$INLAY" mount -o allow_other image mnt 2>said
grep -o allow_other said | head -n 1
! mountpoint -q mnt
""")
    tap.equal(out.split(), ["file", "1", "1", "again", "allow_other"])
    live.sound(f"{work}/image")


@tap.test
def by_nobody_killed():
    """The server of an ordinary user is killed: their next mount on the same directory works, and has what was synced"""
    work, out = user_runs(r"""
"$INLAY" mount --key key image mnt
echo synced >mnt/enc/file
sync mnt/enc/file
end -KILL "$(process mnt)"
"$INLAY" mount --key key image mnt
cat mnt/enc/file
"$INLAY" umount mnt
! mountpoint -q mnt
ls -a mnt | wc -l
""")
    tap.equal(out.split(), ["synced", "2"])
    live.sound(f"{work}/image")


tap.main()
