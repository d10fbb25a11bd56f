#!/usr/bin/env python3
"""keygen, encrypt and build: what they make, that it comes out the same, and what they refuse in a line.

Not here: what the kernel makes of every policy (tests/kernel/test_encrypt.py).
Read more: doc/inlay.1, "ENCRYPTING", "BUILDING".
"""
import hashlib
import os
import pty
import shutil
import signal
import stat as stat_
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import koracle as k  # noqa: E402
import reference  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

EPOCH = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
NO_EPOCH = {n: v for n, v in os.environ.items() if n != "SOURCE_DATE_EPOCH"}


def new_key(*options):
    path = tap.fresh("key")
    with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
        f.write(cli.good("keygen", *options).out)
    return path


def name_of(key, *options):
    with open(key, "rb") as f:
        return cli.good("keyid", *options, stdin=f.read()).out.strip()


def volume(*dirs):
    image = tap.fresh("v.img")
    cli.good("mkfs", image, "--size", "32M")
    for name in dirs:
        cli.good("mkdir", f"{image}:/{name}")
    return image


def policies(*lines):
    path = tap.fresh("policies")
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(line + "\n" for line in lines))
    return path


def clean(image, *keys):
    done = cli.run("fsck", image, keys=keys)
    tap.equal(done.code, 0, repr(done))


def stat(image, path, *keys):
    return cli.good("stat", "--json", f"{image}:{path}", keys=keys).json()[0]


def nonce_of(image, path, key):
    return stat(image, path, key)["encryption"]["nonce"]


def tree():
    """/home/ann, /home/bob and /open, with something of each kind."""
    top = tap.fresh_dir("tree")
    for name in ("home/ann", "home/ann/sub", "home/bob", "open"):
        os.makedirs(os.path.join(top, name), exist_ok=True)
        for i in range(5):
            trees.write(os.path.join(top, name, f"file {i}"), f"{name} {i} ".encode() * 900 * i)
        os.symlink("a target of " + name, os.path.join(top, name, "link"))
        os.mkfifo(os.path.join(top, name, "fifo"))
    os.link(os.path.join(top, "home/ann/file 1"), os.path.join(top, "home/ann/sub/same"))
    trees.Maker(os.path.join(top, "home/bob"), "build", 4096).names()
    for path, _, files in os.walk(top):
        for name in files:
            os.utime(os.path.join(path, name), (1600000000, 1600000000), follow_symlinks=False)
    return top


# ---- keygen ----------------------------------------------------------------------------------------------------------


@tap.test
def keygen():
    """keygen: 64 bytes, others each time; hex text; a warning where others can read them; not to a terminal"""
    keys = {cli.good("keygen").out for _ in range(4)}
    tap.equal(({len(key) for key in keys}, len(keys)), ({64}, 4))
    text = cli.good("keygen", "--key-hex").out
    tap.equal((len(text), text[-1:]), (129, b"\n"))
    tap.equal(cli.good("keyid", "--key-hex", stdin=text).out, cli.good("keyid", stdin=bytes.fromhex(text.decode())).out)
    path = tap.fresh("open-key")
    with open(path, "wb") as f:
        os.fchmod(f.fileno(), 0o644)
        done = subprocess.run([cli.command(), "keygen"], stdout=f, stderr=subprocess.PIPE, check=True)
    tap.contains(done.stderr, b"others can read", b"0644")
    main, other = pty.openpty()
    done = subprocess.run([cli.command(), "keygen"], stdout=other, stderr=subprocess.PIPE, check=False)
    tap.equal(done.returncode, cli.USAGE)
    tap.contains(done.stderr, b"terminal")
    os.close(other)
    os.close(main)


# ---- encrypt ---------------------------------------------------------------------------------------------------------


@tap.test
def encrypt():
    """encrypt: every option is in the policy; saying it twice is fine; the key is named as keyid names it"""
    key = new_key()
    image = volume("a", "b", "c", "d")
    tap.contains(cli.good("encrypt", image + ":/a", image + ":/b", keys=[key]).out, name_of(key))
    tap.contains(cli.good("encrypt", "--v1", "--padding", "8", image + ":/c", keys=[key]).out, name_of(key, "--v1"))
    cli.good("encrypt", "--iv-ino-lblk-64", "--contents", "aes-256-xts", "--data-unit-size", "4K", image + ":/d", keys=[key])
    cli.good("encrypt", image + ":/a", keys=[key])
    rows = [cli.good("stat", image + ":/" + name, keys=[key]).out for name in "acd"]
    tap.contains(rows[0], b"version 2, flags 0x03", b"padded to 32", b"per-file")
    tap.contains(rows[1], b"version 1, flags 0x01", b"padded to 8")
    tap.contains(rows[2], b"flags 0x0b", b"IV_INO_LBLK_64")
    clean(image, key)


@tap.test
def encrypt_refused():
    """encrypt: no key, two keys, words that mean nothing, policies that Linux refuses, ciphers that are not there yet"""
    key, image = new_key(), volume("a", "full", "full/x")
    short = tap.fresh("short")
    trees.write(short, bytes(range(16)))
    at, before = image + ":/a", cli.checksum(image)
    cli.bad(cli.USAGE, "encrypt", at, says="a key is needed")
    cli.bad(cli.USAGE, "encrypt", at, keys=[key, new_key()], says="one key only")
    for options, says in ((("--contents", "rot13"), ("rot13", "AES-256-XTS")), (("--padding", "5"), "padding"),
                          (("--data-unit-size", "300"), "data-unit-size"), (("--iv-ino-lblk-64", "--iv-ino-lblk-32"), "exclude"),
                          (("--contents", "AES-256-XTS", "--filenames", "Adiantum"), "go together"),
                          (("--v1", "--data-unit-size", "512"), "version 2"), (("--direct-key",), "DIRECT_KEY")):
        cli.bad(cli.USAGE, "encrypt", *options, at, keys=[key], says=says)
    for mode in ("Adiantum", "SM4-XTS"):
        cli.bad((cli.FAILED, cli.NO_KEY), "encrypt", "--contents", mode, at, keys=[key], says=(mode.split("-")[0], "not available"))
    cli.bad((cli.FAILED, cli.NO_KEY), "encrypt", "--filenames", "AES-256-HCTR2", at, keys=[key], says="not available")
    cli.bad(cli.NO_KEY, "encrypt", at, keys=[short], says="too short")
    cli.bad(cli.FAILED, "encrypt", image + ":/full", keys=[key], says="not empty")
    cli.bad(cli.FAILED, "encrypt", image + ":/missing", keys=[key], says="no such")
    cli.bad(cli.FAILED, "encrypt", image + ":/lost+found", keys=[key], says="e2fsck")
    cli.good("encrypt", at, keys=[key])
    cli.bad(cli.FAILED, "encrypt", at, keys=[new_key()], says="another policy")
    cli.bad(cli.FAILED, "encrypt", "--padding", "4", at, keys=[key], says="another policy")
    assert not stat(image, "/full", key)["encrypted"] and before != cli.checksum(image)
    clean(image, key)
    plain = tap.fresh("plain.img")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^encrypt", plain, "8M"], check=True, stdout=subprocess.DEVNULL)
    cli.good("mkdir", plain + ":/a")
    cli.bad((cli.FAILED, cli.NOT_READABLE), "encrypt", plain + ":/a", keys=[key], says="tune2fs -O encrypt")


@tap.test
def never_led_astray():
    """A directory in an encrypted one that is not encrypted alike is not written to, and fsck tells of it"""
    tap.requires("debugfs")
    key, image = new_key(), tap.fresh("v.img")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt,^metadata_csum", image, "16M"], check=True,
                   stdout=subprocess.DEVNULL)
    cli.good("mkdir", image + ":/enc")
    cli.good("encrypt", image + ":/enc", keys=[key])
    cli.good("mkdir", image + ":/enc/dir", keys=[key])
    number = stat(image, "/enc/dir", key)["inode"]
    subprocess.run(["debugfs", "-w", "-R", f"set_inode_field <{number}> flags 0x80000", image], check=True, capture_output=True)
    for argv in (("mkdir", image + ":/enc/dir/new"), ("put", "-q", key, image + ":/enc/dir"), ("touch", image + ":/enc/dir/new")):
        cli.bad(cli.FAILED, *argv, keys=[key], says="not encrypted as its directory")
    top = tap.fresh_dir("top")
    os.mkdir(os.path.join(top, "dir"))
    trees.write(os.path.join(top, "dir", "secret"), b"secret")
    cli.bad(cli.FAILED, "put", "-q", top + "/.", image + ":/enc", keys=[key], says="not encrypted as its directory")
    tap.equal(cli.run("fsck", image, keys=[key]).code, cli.NOT_READABLE)


# ---- build -----------------------------------------------------------------------------------------------------------


@tap.test
def build():
    """build: the tree is what it was, encrypted where that was asked for; the kernel reads each part with its key"""
    top, ann, bob = tree(), new_key(), new_key("--key-hex")
    image = tap.fresh("built.img")
    wanted = policies("# who", f"/home/ann key={ann} padding=16", "", f'  "home/bob/" key-hex={bob} data-unit-size=512 # his')
    cli.good("build", top, image, "--policy", wanted, "--label", "built")
    both = (ann, tap.fresh("bob"))
    with open(bob, "rb") as f:
        trees.write(both[1], bytes.fromhex(f.read().decode()))
    clean(image, *both)
    dest = tap.fresh("dest")
    cli.good("get", image, dest, keys=both)
    got, before = trees.snapshot(dest), trees.snapshot(top)
    got = {path: row for path, row in got.items() if path != b"lost+found"}
    trees.check(before, got)
    for path, encrypted in (("/home", False), ("/open/file 1", False), ("/home/ann", True), ("/home/bob/file 1", True)):
        tap.equal(stat(image, path, *both)["encrypted"], encrypted, path)
    cli.bad(cli.NO_KEY, "cat", image + ":/home/bob/file 1", keys=[ann])
    tap.requires("root", "loop", "kernel")
    for key, mine, other in ((both[0], "ann", "bob"), (both[1], "bob", "ann")):
        with tap.mounted(image, "ro") as root:
            with open(key, "rb") as f:
                k.add_key(root, f.read())
            trees.check(trees.snapshot(os.path.join(top, "home", mine)), trees.snapshot(os.path.join(root, "home", mine)))
            assert b"file 1" not in os.listdir(os.path.join(root, "home", other).encode())


def expected_nonce(key, seed, path, contents):
    """As fscrypt.h and the manual say it: a file's."""
    with open(key, "rb") as f:
        master = f.read()
    who = b"".join(struct.pack("<Q", len(part)) + part for part in (seed, path, struct.pack(">H", stat_.S_IFREG)))
    info = b"inlay\0nonce\0" + hashlib.sha256(who).digest() + hashlib.sha256(contents).digest()
    return reference.hkdf_sha512(master, info, 16).hex()


@tap.test
def reproducible():
    """build --seed: the same image, byte for byte; a changed file, and a changed seed, change nonces"""
    top, key = tree(), new_key()
    file = policies(f"/home key={key}")
    images = [tap.fresh(f"{i}.img") for i in range(4)]
    for i, image in enumerate(images[:2]):
        cli.good("build", top, image, "--policy", file, "--seed", "a seed", env=EPOCH)
        if not i:
            time.sleep(1.1)  # the clock must not be in it
            os.listdir(os.path.join(top, "open"))
    tap.equal(cli.checksum(images[1]), cli.checksum(images[0]))
    clean(images[0], key)
    nonces = {path: nonce_of(images[0], path, key) for path in ("/home", "/home/ann/file 1", "/home/ann/file 2", "/home/bob/link")}
    tap.equal(len(set(nonces.values())), 4)
    tap.equal(nonces["/home/ann/file 2"], expected_nonce(key, b"a seed", b"home/ann/file 2", b"home/ann 2 " * 1800))
    path = os.path.join(top, "home/ann/file 2")
    times = os.stat(path)
    with open(path, "r+b") as f:
        f.write(b"X")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.unlink(os.path.join(top, "home/bob/link"))
    os.symlink("elsewhere", os.path.join(top, "home/bob/link"))
    cli.good("build", top, images[2], "--policy", file, "--seed", "a seed", env=EPOCH)
    cli.good("build", top, images[3], "--policy", file, "--seed", "another", env=EPOCH)
    changed = {p for p, nonce in nonces.items() if nonce_of(images[2], p, key) != nonce}
    tap.equal(changed, {"/home/ann/file 2", "/home/bob/link"})
    assert all(nonce_of(images[3], p, key) != nonce for p, nonce in nonces.items()), "another seed"
    assert cli.good("info", "--json", images[3]).json()["uuid"] != cli.good("info", "--json", images[0]).json()["uuid"]
    cli.good("build", top, images[3], "--force", "--policy", file, "--seed", "a seed", env=EPOCH)
    tap.equal(cli.checksum(images[3]), cli.checksum(images[2]))


@tap.test
def reproducible_elsewhere():
    """build --seed: nor do the order of attributes, the host's holes or an epoch of 0 make another image"""
    key, sums = new_key(), set()
    file = policies(f"/d key={key}")
    for turn in range(2):
        top = tap.fresh_dir("top")
        os.mkdir(os.path.join(top, "d"))
        for place in ("d", "."):
            path = os.path.join(top, place, "file")
            with open(path, "wb") as f:
                f.write(b"data" * 5000)
                f.truncate(1 << 20) if turn else f.write(bytes((1 << 20) - 20000))
                f.seek(900000)
                f.write(b"end")
            for name in (("user.b", "user.a", "user.c"), ("user.c", "user.b", "user.a"))[turn]:
                os.setxattr(path, name, name.encode())
            os.utime(path, (1, 1000000000))
        os.utime(os.path.join(top, "d"), (1, 1000000000))
        os.utime(top, (1, 1000000000))
        for zero in (EPOCH, {**EPOCH, "SOURCE_DATE_EPOCH": "0"}):
            image = tap.fresh("same.img")
            cli.good("build", top, image, "--policy", file, "--seed", "x", env=zero)
            sums.add((zero["SOURCE_DATE_EPOCH"], cli.checksum(image)))
            clean(image, key)
            assert os.stat(image).st_blocks * 512 < 12 << 20, "no holes"
    tap.equal(len(sums), 2)


@tap.test
def build_never_plain():
    """build: what was to be encrypted is, or there is no image: links on the way, bad policies with --keep-going"""
    top, key, short = tap.fresh_dir("top"), new_key(), tap.fresh("short")
    trees.write(short, bytes(range(16)))
    os.makedirs(os.path.join(top, "c", "b"))
    trees.write(os.path.join(top, "c", "b", "f"), b"secret")
    os.symlink("c", os.path.join(top, "a"))
    image = tap.fresh("n.img")
    for line in (f"/a/b key={key}", f"/c/b/f key={key}"):
        cli.bad(cli.FAILED, "build", top, image, "--policy", policies(line), says="directory")
    for options in ((), ("--keep-going",), ("--block-size", "1K", "--keep-going")):
        line = f"/c key={key} data-unit-size=4096" if len(options) > 1 else f"/c key={short}"
        done = cli.run("build", top, image, *options, "--policy", policies(line))
        assert done.code in (cli.FAILED, cli.NO_KEY, cli.USAGE) and done.err.count(b"\n") == 1, repr(done)
    tap.equal([n for n in os.listdir(os.path.dirname(image)) if n.startswith(os.path.basename(image))], [])
    victim = tap.fresh("victim")
    trees.write(victim, b"precious" * 1000)
    os.symlink(victim, image + ".inlay-building")
    cli.bad(cli.FAILED, "build", top, image, says="in the way")
    with open(victim, "rb") as f:
        tap.equal(f.read(), b"precious" * 1000)


@tap.test
def build_room():
    """build: the size that it chooses is enough where every inode has a block of attributes, and for many links"""
    top, key, image = tap.fresh_dir("top"), new_key(), tap.fresh("r.img")
    for i in range(4000):
        path = os.path.join(top, "%d" % i)
        if i % 2:
            os.symlink("t" * 34, path)
        else:
            trees.write(path, b"x" * 100)
            os.setxattr(path, "user.label", b"system_u:object_r:user_home_t:s0")
    os.mkdir(os.path.join(top, "d"))
    for name in os.listdir(top):
        if name != "d":
            os.rename(os.path.join(top, name), os.path.join(top, "d", name))
    cli.good("build", top, image, "--policy", policies(f"/d key={key}"))
    clean(image, key)


@tap.test
def put_tells_no_path():
    """put: the mark of an unfinished import into an encrypted directory does not tell what it is an import of"""
    top, key, image = tap.fresh_dir("SecretProject"), new_key(), volume("e")
    cli.good("encrypt", image + ":/e", keys=[key])
    for i in range(2000):
        trees.write(os.path.join(top, "%d" % i), b"x" * 2000)
    child = subprocess.Popen([cli.command(), "put", top, image + ":/e/copy", "--key", key], stderr=subprocess.DEVNULL)
    time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    child.wait(60)
    cli.run("put", top, image + ":/e/copy", keys=[key])
    tap.equal(len(cli.good("ls", image + ":/e/copy", keys=[key]).out.splitlines()), 2000)
    with open(image, "rb") as f:
        assert b"SecretProject" not in f.read(), "the path is in the image"


@tap.test
def source_date():
    """build: with SOURCE_DATE_EPOCH no time is later, without a seed too; without it times stay"""
    top, image = tap.fresh_dir("top"), tap.fresh("t.img")
    for name, when in (("old", 1600000000), ("new", 1800000000)):
        trees.write(os.path.join(top, name), b"x")
        os.utime(os.path.join(top, name), (1, when))
    cli.good("build", top, image, env=EPOCH)
    dest = tap.fresh("dest")
    cli.good("get", image, dest)
    tap.equal([int(os.stat(os.path.join(dest, name)).st_mtime) for name in ("old", "new")], [1600000000, 1700000000])
    cli.good("build", top, image, "--force", env=NO_EPOCH)
    tap.contains(cli.good("stat", image + ":/new").out, b"Modify      2027")


@tap.test
def build_refused():
    """build: what is wrong with the list, the tree or the place is said in a line, and nothing is left"""
    top, key, image = tree(), new_key(), tap.fresh("no.img")
    for line, says in (("/home", "key=FILE"), (f"/ key={key}", "root"), (f"/home/../x key={key}", "'..'"),
                       (f"/home key={key} paddin=4", "paddin=4"), (f"/home key={key} padding=6", "padding"),
                       (f'"/home key={key}', "quote"), ("/home key=/no/such/key", "no such"), ("# nothing", "names no directory"),
                       (f"/home key={key}\0", "NUL"), (f"/lost+found key={key}", "e2fsck")):
        cli.bad((cli.USAGE, cli.FAILED), "build", top, image, "--policy", policies(line), says=says)
    cli.bad(cli.USAGE, "build", top, image, "--policy", policies(f"/home key={key}", f"/home/ann key={key}"), says=(":2", "one is in the other"))
    cli.bad(cli.FAILED, "build", top, image, "--policy", policies(f"/missing key={key}"), says="missing")
    cli.bad(cli.FAILED, "build", top, image, "--policy", policies(f"/open/link key={key}"), says="not a directory")
    cli.bad(cli.FAILED, "build", key, image, says="not a directory")
    cli.bad(cli.USAGE, "build", top, image, "--seed", "x", env=NO_EPOCH, says="SOURCE_DATE_EPOCH")
    cli.bad(cli.USAGE, "build", top, image, "--seed", "x", env={**EPOCH, "SOURCE_DATE_EPOCH": "soon"}, says="soon")
    cli.bad(cli.USAGE, "build", top, image, "--seed", "x", "--policy", policies(f"/home key={key} iv-ino-lblk-64"), env=EPOCH,
            says="IV_INO_LBLK_64")
    cli.bad(cli.USAGE, "build", top, image, "--uuid", "01234567-89ab-cdef-0123-456789abcdef", "--policy",
            policies(f"/home key={key} iv-ino-lblk-32"), says="UUID")
    cli.bad(cli.FAILED, "build", top, os.path.join(tap.work(), "no/such/folder.img"), says="no such")
    trees.write(os.path.join(top, "large"), b"x" * (3 << 20))
    cli.bad(cli.FAILED, "build", top, image, "--size", "2M", says="full")
    tap.equal([n for n in os.listdir(os.path.dirname(image)) if n.startswith(os.path.basename(image))], [])
    trees.write(image, b"precious")
    cli.bad(cli.FAILED, "build", top, image, says="--force")
    cli.bad(cli.FAILED, "build", top, image, "--force", "--size", "2M", says="full")
    with open(image, "rb") as f:
        tap.equal(f.read(), b"precious")


@tap.test
def build_links():
    """build: hard links that lead into or out of an encrypted directory become files of their own, which is said"""
    top, key, image = tap.fresh_dir("top"), new_key(), tap.fresh("l.img")
    for name in ("a", "b", "c"):
        os.mkdir(os.path.join(top, name))
    trees.write(os.path.join(top, "a", "file"), b"linked" * 1000)
    for name in ("a/twin", "b/file", "b/twin", "c/file"):
        os.link(os.path.join(top, "a", "file"), os.path.join(top, name))
    done = cli.run("build", top, image, "--policy", policies(f"/b key={key}"))
    tap.equal((done.code, done.err.count(b"\n")), (0, 1), repr(done))
    tap.contains(done.err, b"hard links became files")
    for path, encrypted in (("/a/file", False), ("/b/file", True), ("/b/twin", True), ("/c/file", False)):
        row = stat(image, path, key)
        tap.equal((row["encrypted"], cli.good("cat", image + ":" + path, keys=[key]).out), (encrypted, b"linked" * 1000), path)
    tap.equal(stat(image, "/a/file")["inode"], stat(image, "/a/twin")["inode"])
    clean(image, key)


@tap.test
def build_interrupted():
    """build: Ctrl-C leaves nothing"""
    top, image = tap.fresh_dir("top"), tap.fresh("i.img")
    for i in range(3000):
        trees.write(os.path.join(top, "%d" % i), b"x" * 3000)
    for delay in (0.02, 0.1, 0.2):
        child = subprocess.Popen([cli.command(), "build", top, image], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        if child.returncode == 0:
            os.unlink(image)
            continue
        assert child.returncode in (cli.INTERRUPTED, -signal.SIGINT), (child.returncode, said)
        tap.equal([n for n in os.listdir(os.path.dirname(image)) if n.startswith(os.path.basename(image))], [], repr(said))
    shutil.rmtree(top)


tap.main()
