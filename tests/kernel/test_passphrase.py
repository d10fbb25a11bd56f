#!/usr/bin/env python3
"""Volumes whose keys the tool fscrypt has wrapped: the command opens them with what opens them there.

Not here: known answers and hostile metadata (tests/unit/test_protect.c).
Read more: HACKING.md, "Tests"; doc/inlay.1, "PASSPHRASES".
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import google_fscrypt as fscrypt  # noqa: E402
import koracle  # noqa: E402
import tap  # noqa: E402
from terminal import on_terminal  # noqa: E402

MIB = 1 << 20
WORDS = "correct horse"


def needs():
    tap.requires("root", "loop", "kernel", "fscrypt", "unshare")


def new_image(*options):
    image = tap.fresh("protected.img")
    koracle.mkfs(image, 64 * MIB, *options)
    return image


class Protected:
    """The image on a mount of the kernel, set up for fscrypt."""

    def __init__(self, image):
        self.mounted = tap.mounted(image)

    def __enter__(self):
        root = self.mounted.__enter__()
        if not os.path.exists(os.path.join(root, ".fscrypt")):
            fscrypt.setup(root)
        return root

    def __exit__(self, *args):
        self.mounted.__exit__(*args)


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def raw_key(name="raw"):
    path = tap.fresh(name)
    with open(path, "wb") as f:
        f.write(os.urandom(32))
    return path


def volume():
    """One passphrase, one directory with a file."""
    image = new_image()
    with Protected(image) as root:
        fscrypt.encrypt(f"{root}/d", "--source=custom_passphrase", "--name=me", stdin=WORDS + "\n")
        write(f"{root}/d/letter", "dear reader\n")
    return image


def cat(image, path, typed, *options, **how):
    return cli.good("cat", "--passphrase-fd", "0", *options, f"{image}:{path}", stdin=typed.encode() + b"\n", **how).out


@tap.test
def one_passphrase():
    """One passphrase, every command that takes keys"""
    needs()
    image = volume()
    tap.equal(cat(image, "/d/letter", WORDS), b"dear reader\n")
    tap.equal(cat(image, "/d/letter", WORDS, "--protector", "me"), b"dear reader\n")
    fd = {"stdin": WORDS.encode()}  # no line feed at the end
    tap.equal(cli.good("ls", "--passphrase-fd", "0", image + ":/d", **fd).out, b"letter\n")
    tap.contains(cli.good("tree", "--passphrase-fd", "0", image, **fd).out, b"letter")
    tap.contains(cli.good("stat", "--passphrase-fd", "0", image + ":/d/letter", **fd).out, b"unlocked")
    tap.contains(cli.good("info", "--passphrase-fd", "0", image, **fd).out, b"unlocked")
    dest = tap.fresh("dest")
    cli.good("get", "-q", "--passphrase-fd", "0", image + ":/d", dest, **fd)
    tap.equal(os.listdir(dest), ["letter"])
    cli.good("mkdir", "--passphrase-fd", "0", image + ":/d/sub", **fd)
    cli.good("put", "-q", "--passphrase-fd", "0", dest + "/letter", image + ":/d/sub", **fd)
    cli.good("mv", "--passphrase-fd", "0", image + ":/d/sub/letter", image + ":/d/second", **fd)
    with Protected(image) as root:
        fscrypt.run("unlock", f"{root}/d", stdin=WORDS + "\n")
        tap.equal(sorted(os.listdir(f"{root}/d")), ["letter", "second", "sub"])


@tap.test
def wrong_passphrase():
    """A wrong passphrase, none, and one that is too long"""
    needs()
    image = volume()
    for typed in ("wrong", "", WORDS + " ", WORDS.upper()):
        cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=typed.encode() + b"\n",
                says=("this is not the passphrase \"me\"",))
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", says="no passphrase came")
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=b"x" * 4097, says="4096 bytes")
    cli.bad(cli.FAILED, "cat", "--passphrase-fd", "77", image + ":/d/letter", says="descriptor 77")
    cli.bad(cli.USAGE, "cat", "--passphrase-fd", "x", image + ":/d/letter", says="--passphrase-fd")
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", "--protector", "you", image + ":/d/letter", stdin=b"x\n",
            says="protector you")


@tap.test
def nothing_there():
    """A volume without .fscrypt, and one that protects nothing"""
    needs()
    image = new_image()
    cli.bad(cli.NO_KEY, "ls", "--passphrase-fd", "0", image, stdin=b"x\n", says=".fscrypt")
    with Protected(image):
        pass
    cli.bad(cli.NO_KEY, "ls", "--passphrase-fd", "0", image, stdin=b"x\n", says="no policy")


@tap.test
def longest():
    """Passphrases of all kinds of bytes, and of 4,096 of them"""
    needs()
    for typed in ("ä ö \t ß 🙂", " leading and trailing ", "x" * 4096):
        image = new_image()
        with Protected(image) as root:
            fscrypt.encrypt(f"{root}/d", "--source=custom_passphrase", "--name=me", stdin=typed + "\n")
            write(f"{root}/d/f", "1")
        tap.equal(cat(image, "/d/f", typed), b"1")


@tap.test
def key_file():
    """A protector that is a key file"""
    needs()
    image, key = new_image(), raw_key()
    with Protected(image) as root:
        fscrypt.encrypt(f"{root}/d", "--source=raw_key", "--name=rk", f"--key={key}")
        write(f"{root}/d/f", "raw")
    tap.equal(cli.good("cat", "--protector-key", key, image + ":/d/f").out, b"raw")
    tap.equal(cli.good("cat", "--protector", "rk", "--protector-key", key, image + ":/d/f").out, b"raw")
    with open(key, "rb") as f:
        tap.equal(cli.good("cat", "--protector-key", "-", image + ":/d/f", stdin=f.read()).out, b"raw")
    cli.bad(cli.NO_KEY, "cat", "--protector-key", raw_key(), image + ":/d/f", says=("this is not the key file \"rk\"",))
    cli.bad(cli.NO_KEY, "cat", "--protector-key", "/dev/null", image + ":/d/f", says="32 bytes")
    cli.bad(cli.NO_KEY, "cat", "--protector-key", "/dev/zero", image + ":/d/f", says="32 bytes")
    cli.bad(cli.USAGE, "cat", "--passphrase-fd", "0", image + ":/d/f", stdin=b"x\n", says="--protector-key FILE")


@tap.test
def several():
    """Several protectors for one policy, several policies, a protector for two"""
    needs()
    image, key = new_image(), raw_key()
    with Protected(image) as root:
        fscrypt.encrypt(f"{root}/a", "--source=custom_passphrase", "--name=one", stdin="1st\n")
        write(f"{root}/a/f", "a")
        ids = fscrypt.protectors_of(root)
        policy = fscrypt.policy_of(f"{root}/a")
        fscrypt.run("metadata", "create", "protector", root, "--source=custom_passphrase", "--name=two", "--quiet", stdin="2nd\n")
        fscrypt.run("metadata", "create", "protector", root, "--source=raw_key", "--name=file", f"--key={key}", "--quiet")
        ids = fscrypt.protectors_of(root)
        # What opens the new one is asked for first.
        for name, words, extra in (("two", "2nd\n1st\n", []), ("file", "1st\n", [f"--key={key}"])):
            fscrypt.run("metadata", "add-protector-to-policy", f"--protector={root}:{ids[name]}", f"--policy={root}:{policy}",
                        f"--unlock-with={root}:{ids['one']}", "--quiet", *extra, stdin=words)
        fscrypt.encrypt(f"{root}/b", f"--protector={root}:{ids['two']}", stdin="2nd\n")
        write(f"{root}/b/f", "b")
    for name, typed in (("one", "1st"), ("two", "2nd"), (ids["two"], "2nd")):
        tap.equal(cat(image, "/a/f", typed, "--protector", name), b"a")
    tap.equal(cat(image, "/b/f", "2nd", "--protector", "two"), b"b")
    tap.equal(cli.good("cat", "--protector-key", key, image + ":/a/f").out, b"a")
    cli.bad(cli.NO_KEY, "cat", "--protector", "one", "--passphrase-fd", "0", image + ":/b/f", stdin=b"1st\n", says="is needed")
    tap.equal(cat(image, "/b/f", "1st\n2nd", "--protector", "one", "--protector", "two"), b"b")
    cli.bad(cli.USAGE, "cat", "--passphrase-fd", "0", image + ":/a/f", stdin=b"1st\n",
            says=("--protector NAME", "\"one\"", "\"two\""))


@tap.test
def changed():
    """A passphrase that was changed"""
    needs()
    image = volume()
    with Protected(image) as root:
        name = f"{root}:{fscrypt.protectors_of(root)['me']}"
        fscrypt.run("metadata", "change-passphrase", f"--protector={name}", "--quiet", stdin=f"{WORDS}\nnew words\n")
    tap.equal(cat(image, "/d/letter", "new words"), b"dear reader\n")
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=WORDS.encode(), says="this is not")


@tap.test
def kinds_of_policies():
    """Version 1 policies, other paddings and costs"""
    needs()
    for conf in (fscrypt.config(version=1), fscrypt.config(memory=8192, time=3, parallelism=5, padding=4)):
        image = new_image()
        with Protected(image) as root:
            fscrypt.encrypt(f"{root}/d", "--source=custom_passphrase", "--name=me", stdin="x\n", conf=conf)
            write(f"{root}/d/f", "content")
        tap.equal(cat(image, "/d/f", "x"), b"content")


@tap.test
def limits():
    """A protector that would cost more than is allowed"""
    needs()
    image = new_image()
    with Protected(image) as root:
        fscrypt.encrypt(f"{root}/d", "--source=custom_passphrase", "--name=big", stdin="x\n",
                        conf=fscrypt.config(memory=132096))
        write(f"{root}/d/f", "content")
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/f", stdin=b"x\n",
            says=("132096 KiB", "the limit is 131072 KiB", "--memory-limit"))
    tap.equal(cat(image, "/d/f", "x", "--memory-limit", "129M"), b"content")


@tap.test
def damaged():
    """Files of metadata that are damaged"""
    needs()
    image = volume()
    with tap.mounted(image) as root:
        folder = f"{root}/.fscrypt/protectors"
        path = os.path.join(folder, os.listdir(folder)[0])
        with open(path, "r+b") as f:
            f.truncate(100)
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=b"x\n", says="is no protector")
    with tap.mounted(image) as root:
        os.truncate(path.replace(path.split("/.fscrypt")[0], root), 16385)
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=b"x\n", says="16384")
    with tap.mounted(image) as root:
        os.unlink(path.replace(path.split("/.fscrypt")[0], root))
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=b"x\n", says="no policy here has a protector")


@tap.test
def damaged_policy():
    """A policy whose wrapped key is damaged: the others are opened"""
    needs()
    image = new_image()
    with Protected(image) as root:
        fscrypt.encrypt(f"{root}/a", "--source=custom_passphrase", "--name=me", stdin="x\n")
        write(f"{root}/a/f", "a")
        name = fscrypt.protectors_of(root)["me"]
        for letter in "bc":
            fscrypt.encrypt(f"{root}/{letter}", f"--protector={root}:{name}", stdin="x\n")
            write(f"{root}/{letter}/f", letter)
        bad = fscrypt.policy_of(f"{root}/b")
        with open(f"{root}/.fscrypt/policies/{bad}", "r+b") as f:
            f.seek(-1, os.SEEK_END)  # of the HMAC
            last = f.read(1)
            f.seek(-1, os.SEEK_END)
            f.write(bytes([last[0] ^ 1]))
        os.truncate(f"{root}/.fscrypt/policies/{fscrypt.policy_of(f'{root}/c')}", 20)
    done = cli.run("cat", "--passphrase-fd", "0", image + ":/a/f", stdin=b"x\n")
    tap.equal((done.code, done.out), (0, b"a"), repr(done))
    tap.contains(done.err.decode(), bad, "is damaged")
    for letter in "bc":
        tap.equal(cli.run("cat", "--passphrase-fd", "0", f"{image}:/{letter}/f", stdin=b"x\n").code, cli.NO_KEY)


@tap.test
def linked():
    """A protector on another file system, with the recovery passphrase that fscrypt then makes"""
    needs()
    image, other = new_image(), new_image()
    with Protected(other) as away:
        fscrypt.run("metadata", "create", "protector", away, "--source=custom_passphrase", "--name=away", "--quiet", stdin="x\n")
        name = fscrypt.protectors_of(away)["away"]
        with Protected(image) as root:
            fscrypt.encrypt(f"{root}/d", f"--protector={away}:{name}", stdin="x\n")
            write(f"{root}/d/f", "linked")
            with open(f"{root}/d/fscrypt_recovery_readme.txt", encoding="utf-8") as f:
                recovery = max((word for word in f.read().split() if word.isalnum()), key=len)
        tap.equal(cat(image, "/d/f", "x", "--protector", "away", "--protectors-in", away), b"linked")
        cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", "--protector", name, image + ":/d/f", stdin=b"x\n",
                says=(name, "PATH=", "--protectors-in DIR"))
    # Nothing else has been asked for: this one is here.
    tap.equal(cat(image, "/d/f", recovery), b"linked")
    cli.bad(cli.FAILED, "cat", "--passphrase-fd", "0", "--protectors-in", "/nowhere", image + ":/d/f", stdin=b"x\n",
            says="/nowhere")


@tap.test
def login():
    """A login protector, which must belong to its user or to root"""
    needs()
    image = volume()
    for owner, good in ((0, True), (1000, True), (1001, False)):
        with tap.mounted(image) as root:
            folder = f"{root}/.fscrypt/protectors"
            path = os.path.join(folder, os.listdir(folder)[0])
            with open(path, "rb") as f:
                data = f.read()
            # Field 2 is the source, which follows the id; field 6 the user.
            data = data[:18] + b"\x10\x01" + data[20:] + (b"\x30\xe8\x07" if owner == 0 else b"")
            with open(path, "wb") as f:
                f.write(data)
            os.chown(path, owner, owner)
        if good:
            tap.equal(cat(image, "/d/letter", WORDS), b"dear reader\n")
        else:
            cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", image + ":/d/letter", stdin=b"x\n",
                    says=("user 1000", "belongs to user 1001"))


class Served:
    """The image on a mount of Inlay."""

    def __init__(self, image, *options, stdin=b""):
        self.image, self.options, self.stdin = image, options, stdin

    def __enter__(self):
        self.root = tap.fresh_dir("served")
        tap.unmount_later(self.root)
        cli.good("mount", *self.options, self.image, self.root, stdin=self.stdin)
        return self.root

    def __exit__(self, *args):
        cli.good("umount", self.root)


@tap.test
def mounts():
    """On a mount of Inlay: from its start, or unlocked later"""
    needs()
    tap.requires("fuse")
    image = volume()
    with Served(image, "--passphrase-fd", "0", stdin=WORDS.encode()) as root:
        tap.equal(os.listdir(f"{root}/d"), ["letter"])
    cli.bad(cli.NO_KEY, "mount", "--passphrase-fd", "0", image, tap.fresh_dir("m"), stdin=b"x\n", says="this is not")
    with Served(image) as root:
        tap.equal("letter" in os.listdir(f"{root}/d"), False)
        cli.bad(cli.NO_KEY, "unlock", "--passphrase-fd", "0", f"{root}/d", stdin=b"x\n", says="this is not")
        tap.contains(cli.good("unlock", "--passphrase-fd", "0", f"{root}/d", stdin=WORDS.encode()).out, b"unlocked with key")
        tap.equal(os.listdir(f"{root}/d"), ["letter"])
        tap.contains(cli.good("lock", root).out, b"locked key")
        tap.equal("letter" in os.listdir(f"{root}/d"), False)
    root = tap.fresh_dir("served")
    tap.unmount_later(root)
    for options in (["--passphrase"], ["-o", "passphrase"], ["-o", "protector=me,allow_other"]):
        code, shown = on_terminal([cli.command(), "mount", *options, image, root], [WORDS + "\n"])
        tap.equal(code, 0, shown)
        tap.equal(os.listdir(f"{root}/d"), ["letter"])
        cli.good("umount", root)


# ---- on a terminal ------------------------------------------------------------------------------------------------------


@tap.test
def terminal():
    """On a terminal: no echo, three tries, a question"""
    needs()
    image = volume()
    where = f"{image}:/d/letter"
    code, shown = on_terminal([cli.command(), "cat", "--passphrase", where], [WORDS + "\n"])
    tap.equal(code, 0, shown)
    tap.contains(shown, 'Passphrase "me"', "dear reader")
    tap.equal(WORDS in shown, False, shown)
    code, shown = on_terminal([cli.command(), "cat", "--passphrase", where], ["a\n", "b\n", WORDS + "\n"])
    tap.equal((code, shown.count("this is not")), (0, 2), shown)
    code, shown = on_terminal([cli.command(), "cat", "--passphrase", where], ["a\n", "b\n", "c\n", WORDS + "\n"])
    tap.equal((code, shown.count("this is not"), shown.count("Passphrase \"me\"")), (cli.NO_KEY, 3, 3), shown)
    with Protected(image) as root:
        fscrypt.encrypt(f"{root}/e", "--source=custom_passphrase", "--name=other", stdin="x\n")
        write(f"{root}/e/f", "found")
    for answer in ("other", fscrypt_number(image, "other")):
        code, shown = on_terminal([cli.command(), "cat", "--passphrase", f"{image}:/e/f"], [answer + "\n", "x\n"])
        tap.equal(code, 0, shown)
        tap.contains(shown, "Which one", "found")


def fscrypt_number(image, name):
    """Where it is on the list: by id."""
    with tap.mounted(image) as root:
        ids = fscrypt.protectors_of(root)
    return str(1 + sorted(ids.values()).index(ids[name]))


@tap.test
def interrupted():
    """Ctrl-C at a prompt: the terminal has its echo again"""
    needs()
    image = volume()
    script = f'{cli.command()} cat --passphrase {image}:/d/letter; echo "code $?"; stty -a'
    code, shown = on_terminal(["/bin/bash", "-c", "trap : INT; " + script], ["\x03"])
    tap.equal(code, 0, shown)
    tap.contains(shown, "code 130", " echo ")


@tap.test
def asker():
    """No terminal: systemd-ask-password, where there is one"""
    needs()
    image, folder = volume(), tap.fresh_dir("bin")
    write(f"{folder}/systemd-ask-password", f'#!/bin/sh\necho "$@" >{folder}/said\necho "{WORDS}"\n')
    os.chmod(f"{folder}/systemd-ask-password", 0o755)
    argv = [cli.command(), "cat", "--passphrase", image + ":/d/letter"]
    done = subprocess.run(argv, env={**os.environ, "PATH": folder + ":" + os.environ["PATH"]}, capture_output=True,
                          start_new_session=True, stdin=subprocess.DEVNULL, check=False)
    tap.equal((done.returncode, done.stdout, done.stderr), (0, b"dear reader\n", b""))
    with open(f"{folder}/said", encoding="utf-8") as f:
        tap.contains(f.read(), 'Passphrase "me"')
    done = subprocess.run(argv, env={**os.environ, "PATH": "/nowhere"}, capture_output=True, start_new_session=True,
                          stdin=subprocess.DEVNULL, check=False)
    tap.equal(done.returncode, cli.USAGE, done.stderr)
    tap.contains(done.stderr, b"--passphrase-fd")


if __name__ == "__main__":
    tap.main()
