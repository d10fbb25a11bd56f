#!/usr/bin/env python3
"""Keys, policies and locks by the ioctls of fscrypt, on a mount as on Linux: results, errors, what is returned, names.

Not here: the command line of it, and what is left in memory (test_mount_lock.py); the lines themselves (ioctls.txt).
Read more: Linux Documentation/filesystems/fscrypt.rst; tests/lib/keyscript.py. With --kernel-only only Linux is asked, and each
line printed with what it came to; ONLY=busyfile in the environment takes one script.

Each script is done on two copies of one volume, that the kernel has made. That of Linux must come to what ioctls.txt says, so
that the two do not fail alike.
"""
import contextlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import cli  # noqa: E402
import fscryptctl as ctl  # noqa: E402
import keyscript  # noqa: E402
import koracle  # noqa: E402
import live  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

KERNEL_ONLY = "--kernel-only" in sys.argv
SCRIPTS, REASONS = keyscript.read_scripts(os.path.join(HERE, "ioctls.txt"))
A, B = keyscript.USERS["A"], keyscript.USERS["B"]
MIB = 1 << 20
# Scripts on other volumes than that of fill(), or mounted in another way.
BARE = {"empty": ("-O", "encrypt"), "nofeature": ("-O", "^encrypt")}
READ_ONLY = ("readonly",)

# ---- volumes ---------------------------------------------------------------------------------------------------------


def directory(root, name, owner=0, mode=0o755):
    path = f"{root}/{name}"
    os.mkdir(path)
    os.chmod(path, mode)
    os.chown(path, owner, owner)
    return path


def put(root, name, text):
    trees.write(f"{root}/{name}", text.encode())
    os.chmod(f"{root}/{name}", 0o666)


def encrypted(root, name, key, flags=3, owner=0):
    path, raw = directory(root, name, owner, 0o777), keyscript.name_of(key)
    ctl.set_policy(path, ctl.policy_v1(raw, flags=flags) if len(raw) == 8 else ctl.policy_v2(raw, flags=flags))
    put(root, name + "/f", "hello " + name)


def fill(root):
    """enc, k1b: K1; k1p: K1 with another padding; e2: K2; enc1: V1, a key of version 1; aenc: K1, and A's."""
    for key in ("K1", "K2", "V1"):
        keyscript.Side(root, {}).do_add(key)
    for name, key in (("enc", "K1"), ("k1b", "K1"), ("e2", "K2"), ("enc1", "V1")):
        encrypted(root, name, key)
    encrypted(root, "k1p", "K1", flags=2)
    encrypted(root, "aenc", "K1", owner=A)
    for name in ("enc", "enc1"):
        directory(root, name + "/sub", mode=0o777)
        put(root, name + "/sub/g", "g")
        os.symlink("target", f"{root}/{name}/lnk")
    directory(root, "enc/empty")
    os.symlink("t" * 100, f"{root}/enc/long")
    for name, text in (("old", "old"), ("big", "b" * 3000), ("n" * 240, "x")):
        put(root, "enc/" + name, text)
    for name in ("plain", "full"):
        directory(root, name, mode=0o777)
        put(root, name + "/f", "plain")
    for name, owner in (("a", A), ("adir", A), ("adir2", A), ("adir3", A), ("b", B), ("rdir", 0), ("rdir2", 0), ("rdir3", 0),
                        ("rdir4", 0)):
        directory(root, name, owner)
    put(root, "file", "file")
    os.symlink("plain", root + "/link")
    os.mkfifo(root + "/fifo")


_volume = []


def volume():
    """(image, {path: inode number}), made once."""
    if not _volume:
        tap.requires("root", "loop", "kernel")
        image, inos = tap.fresh("ioctls.img"), {}
        koracle.mkfs(image, 48 * MIB, "-b", "4096", "-O", "encrypt,stable_inodes")
        with tap.mounted(image) as root:
            fill(root)
            for top, dirs, files in os.walk(root):
                for path in (os.path.join(top, name) for name in dirs + files):
                    inos[os.path.relpath(path, root)] = os.lstat(path).st_ino
        _volume.extend((image, inos))
    return _volume


def own_volume(name):
    """A private one for this script."""
    tap.requires("root", "loop", "kernel")
    if name in BARE:
        image = tap.fresh(name + ".img")
        koracle.mkfs(image, 48 * MIB, *BARE[name])
        return image, {}
    image, inos = volume()
    return tap.copy(image), inos


# ---- both sides ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def inlay_mounted(image, name):
    live.available()
    how = ("--read-only",) if name in READ_ONLY else ()
    with live.mounted(image, *how, "-o", "allow_other", limit=100) as mount:
        yield mount.dir


def show(line, result, detail):
    print(f"# {line} = {result}" + (f"  [{detail[:70]}]" if detail else ""), flush=True)


def run(name, mounted):
    image, inos = own_volume(name)
    with mounted(image) as root:
        got = keyscript.results(keyscript.Side(root, inos), SCRIPTS[name][1], show if KERNEL_ONLY else None)
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    tap.equal(done.returncode, 0, done.stdout.decode(errors="replace")[-1500:])
    os.unlink(image)
    return got


_linux = {}


def by_linux(name):
    """What Linux does, which must be what is expected of it."""
    if name not in _linux:
        options = ("ro",) if name in READ_ONLY else ()
        got = run(name, lambda image: tap.mounted(image, *options))
        keyscript.complain("Linux", SCRIPTS[name][1], got, "linux")
        _linux[name] = got
    return _linux[name]


def by_inlay(name):
    """What a mount does: what is expected of it, and in the details what Linux does."""
    linux, lines = by_linux(name), SCRIPTS[name][1]
    live.available()
    got = run(name, lambda image: inlay_mounted(image, name))
    keyscript.complain("Inlay", lines, got, "ours")
    keyscript.same_details("names and numbers that are not those of Linux", lines, got, linux)


for _name, (_title, _) in SCRIPTS.items():
    tap.add(f"{_name}: {_title} (Linux)", lambda name=_name: by_linux(name))
    if not KERNEL_ONLY:
        tap.add(f"{_name}: {_title}", lambda name=_name: by_inlay(name))


# ---- the comparison itself -------------------------------------------------------------------------------------------


@tap.test
def can_fail():
    """A result, a name or a success that is not as it should be is found"""
    lines = SCRIPTS["locked"][1]
    good = by_linux("locked")
    failures = [("", None)] * len(lines)
    for what, got in (("nothing works", [("ENOTTY", None) for _ in lines]), ("nothing at all", failures),
                      ("one is another", good[:5] + [("EIO", None)] + good[6:])):
        try:
            keyscript.complain(what, lines, got, "ours")
        except AssertionError:
            continue
        tap.fail(what + " is not found")
    at = next(i for i, (_, detail) in enumerate(good) if detail)
    bent = good[:at] + [(good[at][0], "x" + good[at][1][1:])] + good[at + 1:]
    try:
        keyscript.same_details("bent", lines, bent, good)
    except AssertionError:
        return
    tap.fail("a no-key name that differs is not found")


@tap.test
def enough_works():
    """Each script has steps that must succeed, and not in one state only; each reason for a difference is used"""
    all_lines = [line for _, lines in SCRIPTS.values() for line in lines]
    for verb, results in (("add", ("0",)), ("remove", ("0", "busy", "others")), ("removeall", ("0",)), ("set", ("0",)),
                          ("status", ("present,self=1,users=1", "absent,self=0,users=0", "incomplete,self=0,users=0",
                                      "present,self=0,users=0")),
                          ("read", ("hello enc", "hello enc1")), ("lsx", ("*f,*lnk,*sub", "f,lnk,sub")),
                          ("create", ("0", "ENOKEY")), ("open", ("0", "ENOKEY", "ENOENT"))):
        seen = {result for line in all_lines if line.verb == verb for result in line.linux}
        tap.equal(set(results) - seen, set(), verb)
    tap.equal({line.why for line in all_lines if line.why}, set(REASONS), "reasons")
    share = sum(line.linux != line.ours for line in all_lines) / len(all_lines)
    assert share < 0.1, f"{share:.0%} of the lines may differ"


@tap.test
def one_salt():
    """The salt of a volume is made once, and is the same for everybody after that, Linux among them"""
    live.available()
    if KERNEL_ONLY:
        raise tap.Skip("Linux has made its own in the scripts")
    image, salts = live.volume("32M"), []
    for _ in range(2):
        with live.mounted(image) as mount:
            salts += [ctl.get_pwsalt(mount.dir), ctl.get_pwsalt(mount.dir)]
    with live.mounted(image, "--read-only") as mount:
        salts.append(ctl.get_pwsalt(mount.dir))
    live.sound(image)
    with tap.mounted(image) as root:
        salts.append(ctl.get_pwsalt(root))
    assert len(set(salts)) == 1 and any(salts[0]), salts


# ---- the server of an ordinary user ----------------------------------------------------------------------------------


def with_devices_for_all():
    """A mount namespace in which /dev/fuse is for everybody, as distributions have it."""
    node = tap.fresh("fuse")
    subprocess.run(["mknod", "-m", "666", node, "c", "10", "229"], check=True)
    ctl.enter_mount_namespace()
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", node, "/dev/fuse"], check=True)


def nobodys(image, where, script):
    """In a process of nobody's, which has a mount: what each of the functions says, as one string."""
    with_devices_for_all()
    ctl.become(cli.NOBODY)
    subprocess.run([cli.command(), "mount", image, where], check=True, env={**os.environ, "TMPDIR": "/tmp"})
    try:
        return "; ".join(ctl.in_child(function, *args, **how) for function, args, how in script)
    finally:
        subprocess.run([cli.command(), "umount", where], check=True)


@tap.test
def by_nobody():
    """The server of an ordinary user: their programs add keys where it may read their memory, and get an error where not"""
    live.available()
    tap.requires("fusermount3")
    if KERNEL_ONLY:
        raise tap.Skip("only Linux is asked")
    cli.as_nobody()
    image, where = tap.copy(volume()[0]), tap.fresh_dir("mnt")
    for path in (image, where):
        os.chown(path, cli.NOBODY, cli.NOBODY)
    side = keyscript.Side(where, {})
    step = lambda verb, *args, **how: (getattr(side, "do_" + verb), args, how)  # noqa: E731
    hidden = {"uid": None, "dumpable": False}
    said = ctl.in_child(nobodys, image, where, [
        step("status", "K1"),
        step("add", "K1", **hidden), step("status", "K1", **hidden),
        step("add", "K1"), step("status", "K1"), step("read", where + "/enc/f"),
        # Of the policy FUSE carries one byte: the rest has to be written into the caller's memory.
        step("get", where + "/enc"), step("get", where + "/enc", **hidden),
        step("remove", "K1", **hidden), step("status", "K1"), step("read", where + "/enc/f")])
    absent, present = "absent,self=0,users=0", "present,self=1,users=1"
    got = said.split("; ")
    # The number of the error is not Linux's, for there it cannot happen; no key must have come.
    for at in (1, 7):
        assert got[at] in ("EPERM", "EACCES"), f"{got[at]}: {said}"
    policy = keyscript.labelled(got[6])
    tap.equal(got[:1] + got[2:6], [absent, absent, "0", present, "hello enc"])
    tap.equal(policy, "v2:1:4:3:0:K1")
    tap.equal(got[8:], ["0", absent, "ENOENT"])
    live.sound(image)


tap.main()
