#!/usr/bin/env python3
"""Protectors that the command makes, changes and removes: the tool fscrypt unlocks with them what they protect.

Not here: what the tool made (test_passphrase.py); known answers and hostile metadata (tests/unit/test_protect.c).
Read more: HACKING.md, "Tests"; doc/inlay.1, "PASSPHRASES".
"""
import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import google_fscrypt as fscrypt  # noqa: E402
import koracle  # noqa: E402
import memory  # noqa: E402
import tap  # noqa: E402
from terminal import on_terminal  # noqa: E402

MIB = 1 << 20
LONG = "--long" in sys.argv  # a crash at every write, and with torn ones
CHEAP = ("--argon2-time", "1", "--argon2-memory", "64K")


def needs(*more):
    tap.requires("root", "loop", "kernel", "fscrypt", "unshare", *more)


def new_image(*dirs, size=64 * MIB):
    image = tap.fresh("protect.img")
    koracle.mkfs(image, size)
    for name in dirs:
        cli.good("mkdir", f"{image}:/{name}")
    return image


def encrypt(image, name, typed, *options):
    return cli.good("encrypt", "--passphrase-fd", "0", *CHEAP, *options, f"{image}:/{name}", stdin=typed.encode())


def add(image, verb, *name, typed, options=()):
    return cli.good("protect", "--passphrase-fd", "0", *CHEAP, *options, image, verb, *name, stdin=typed.encode()).out.decode()


def refused(image, verb, *name, typed="", options=(), code=cli.FAILED, says=()):
    return cli.bad(code, "protect", "--passphrase-fd", "0", *CHEAP, *options, image, verb, *name, stdin=typed.encode(), says=says)


def put(image, path, typed, *options):
    source = tap.fresh("letter")
    with open(source, "w", encoding="ascii") as f:
        f.write("to Linux\n")
    cli.good("put", "-q", "--passphrase-fd", "0", *options, source, f"{image}:{path}", stdin=typed.encode())


def opens(image, path, typed, *options):
    tap.equal(cli.good("cat", "--passphrase-fd", "0", *options, f"{image}:{path}", stdin=typed.encode()).out, b"to Linux\n")


def shut(image, path, typed, *options, says="this is not"):
    cli.bad(cli.NO_KEY, "cat", "--passphrase-fd", "0", *options, f"{image}:{path}", stdin=typed.encode(), says=says)


def fsck(image):
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    if done.returncode:
        tap.fail(f"e2fsck says {done.returncode}\n{done.stdout.decode(errors='replace')[-2500:]}")


def on_linux(image, path, typed, *options, text="to Linux\n"):
    """The tool unlocks it on a mount of the kernel."""
    fsck(image)
    with tap.mounted(image) as root:
        directory = root + os.path.dirname(path)
        fscrypt.run("unlock", directory, *(o.replace("ROOT", root) for o in options), stdin=typed + "\n")
        with open(root + path, encoding="ascii") as f:
            tap.equal(f.read(), text)


def protectors(image):
    """{name: id}, as the command lists them."""
    found = {}
    for line in cli.good("protect", image, "list").out.decode().splitlines():
        if line.startswith("protector "):
            found[line.split('"')[1]] = line.split()[1]
    return found


@tap.test
def encrypted():
    """encrypt --passphrase: policy, protector and metadata in one go"""
    needs()
    image = new_image("d", "e")
    said = encrypt(image, "d", "my words\n", "--protector", "me").out
    tap.contains(said, b"encrypted with key", b"protector ")
    put(image, "/d/letter", "my words")
    opens(image, "/d/letter", "my words")
    shut(image, "/d/letter", "your words")
    on_linux(image, "/d/letter", "my words")
    # The same protector for another directory: opened, not made.
    cli.bad(cli.NO_KEY, "encrypt", "--passphrase-fd", "0", "--protector", "me", image + ":/e", stdin=b"wrong", says="this is not")
    tap.equal(b"protector" in encrypt(image, "e", "my words", "--protector", "me").out, False)
    put(image, "/e/letter", "my words")
    on_linux(image, "/e/letter", "my words")
    tap.equal(list(protectors(image)), ["me"])


@tap.test
def files():
    """What fscrypt makes of it: directories, modes, owners, status"""
    needs()
    image = new_image("d")
    encrypt(image, "d", "x", "--protector", "me", "--padding", "16")
    with tap.mounted(image) as root:
        for name, mode in ((".fscrypt", 0o755), (".fscrypt/policies", 0o755), (".fscrypt/protectors", 0o755)):
            tap.equal(stat.S_IMODE(os.stat(f"{root}/{name}").st_mode), mode, name)
        for folder in ("policies", "protectors"):
            names = os.listdir(f"{root}/.fscrypt/{folder}")
            tap.equal(len(names), 1, names)
            st = os.stat(f"{root}/.fscrypt/{folder}/{names[0]}")
            tap.equal((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (0o600, 0, 0), names)
        tap.contains(fscrypt.run("status", root), 'custom protector "me"', "has 1 protector and 1 policy")
        tap.contains(fscrypt.run("status", f"{root}/d"), "padding:16", "policy_version:2", "AES_256_XTS")
    # Owner and mode of what is replaced are kept.
    with tap.mounted(image) as root:
        path = f"{root}/.fscrypt/protectors/{protectors_file(root)}"
        os.chown(path, 1000, 1001)
        os.chmod(path, 0o644)
    add(image, "change", "me", typed="x\ny\n")
    with tap.mounted(image) as root:
        st = os.stat(f"{root}/.fscrypt/protectors/{protectors_file(root)}")
        tap.equal((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (0o644, 1000, 1001))
    fsck(image)


def protectors_file(root):
    names = os.listdir(f"{root}/.fscrypt/protectors")
    tap.equal(len(names), 1, names)
    return names[0]


@tap.test
def owners():
    """A volume of a user: what is new there belongs to that user"""
    needs()
    image = tap.fresh("owned.img")
    koracle.mkfs(image, 64 * MIB, "-E", "root_owner=1000:1000")
    cli.good("mkdir", f"{image}:/d")
    encrypt(image, "d", "x", "--protector", "me")
    with tap.mounted(image) as root:
        for folder, _, names in os.walk(f"{root}/.fscrypt"):
            for path in [folder, *(os.path.join(folder, n) for n in names)]:
                tap.equal((os.stat(path).st_uid, os.stat(path).st_gid), (1000, 1000), path)


@tap.test
def several():
    """add, list and remove: passphrases and a key file"""
    needs()
    image, key = new_image("d"), tap.fresh("raw")
    with open(key, "wb") as f:
        f.write(os.urandom(32))
    encrypt(image, "d", "1st", "--protector", "one")
    put(image, "/d/letter", "1st")
    add(image, "add", "two", typed="1st\n2nd\n")
    add(image, "add", "file", typed="1st\n", options=("--protector", "one", "--new-key", key))
    ids = protectors(image)
    tap.equal(sorted(ids), ["file", "one", "two"])
    opens(image, "/d/letter", "1st", "--protector", "one")
    opens(image, "/d/letter", "2nd", "--protector", "two")
    tap.equal(cli.good("cat", "--protector-key", key, f"{image}:/d/letter").out, b"to Linux\n")
    on_linux(image, "/d/letter", "2nd", "--unlock-with=ROOT:" + ids["two"])
    on_linux(image, "/d/letter", "", "--unlock-with=ROOT:" + ids["file"], f"--key={key}")
    refused(image, "add", "two", typed="1st\n3rd\n", options=("--protector", "one"), code=cli.USAGE, says='"two" already')
    refused(image, "add", "three", typed="wrong\n3rd\n", options=("--protector", "one"), code=cli.NO_KEY, says="this is not")
    refused(image, "add", "three", typed="1st\n\n", options=("--protector", "one"), code=cli.NO_KEY, says="empty")
    add(image, "remove", "one", typed="")
    shut(image, "/d/letter", "1st", "--protector", "one", says="protector one")
    on_linux(image, "/d/letter", "2nd", "--unlock-with=ROOT:" + ids["two"])
    add(image, "remove", ids["file"], typed="")
    refused(image, "remove", "two", says="only protector")
    refused(image, "remove", "one", says="no protector one")
    opens(image, "/d/letter", "2nd")
    tap.equal(list(protectors(image)), ["two"])
    fsck(image)


@tap.test
def last_one():
    """The last protector that opens a policy is not removed, whatever else is named there"""
    needs()
    image = new_image("d")
    encrypt(image, "d", "1st", "--protector", "one")
    add(image, "add", "two", typed="1st\n2nd\n")
    ids = protectors(image)
    cli.good("rm", f"{image}:/.fscrypt/protectors/{ids['two']}")
    refused(image, "remove", "one", says="only protector")
    put(image, "/d/letter", "1st")
    on_linux(image, "/d/letter", "1st", "--unlock-with=ROOT:" + ids["one"])


@tap.test
def changed():
    """change: another passphrase, other costs; nothing else is touched"""
    needs()
    image = new_image("d")
    encrypt(image, "d", "old", "--protector", "me")
    put(image, "/d/letter", "old")
    before = cli.good("stat", "--json", f"{image}:/d").json()
    add(image, "change", typed="old\nnew\n", options=("--argon2-memory", "128K", "--argon2-time", "2"))
    opens(image, "/d/letter", "new")
    shut(image, "/d/letter", "old")
    tap.contains(cli.good("protect", image, "list").out, b"2 passes, 128 KiB")
    tap.equal(cli.good("stat", "--json", f"{image}:/d").json(), before)
    on_linux(image, "/d/letter", "new")
    refused(image, "change", typed="wrong\nnew\n", code=cli.NO_KEY, says="this is not")
    # What the tool makes of it afterwards is opened here.
    with tap.mounted(image) as root:
        fscrypt.run("metadata", "change-passphrase", f"--protector={root}:{protectors_file(root)}", "--quiet",
                    stdin="new\nnewest\n")
    opens(image, "/d/letter", "newest")


@tap.test
def recovery():
    """recovery: a code that opens it, here and on Linux; a mistyped group is named"""
    needs()
    image = new_image("d")
    encrypt(image, "d", "words", "--protector", "me")
    put(image, "/d/letter", "words")
    code = add(image, "recovery", typed="words\n").strip()
    tap.equal((len(code), len(code.split("-"))), (48, 7), code)
    recover = ("--protector", "recovery")
    opens(image, "/d/letter", code, *recover)
    opens(image, "/d/letter", code.lower().replace("-", " ").replace("0", "o"), *recover)
    on_linux(image, "/d/letter", code, "--unlock-with=ROOT:" + protectors(image)["recovery"])
    groups = code.split("-")
    for i, group in enumerate(groups):
        wrong = groups[:]
        wrong[i] = ("2" if group[0] != "2" else "3") + group[1:]  # one symbol: that is always found
        # Costs that nobody would wait for: it is found before.
        shut(image, "/d/letter", "-".join(wrong), *recover, says=f"group {i + 1}")
    shut(image, "/d/letter", code[:-1], *recover, says="7 groups of 6")
    # Rewritten by the tool, it stays a code: what it does not know it keeps.
    name = protectors(image)["recovery"]
    with tap.mounted(image) as root:
        fscrypt.run("metadata", "change-passphrase", f"--protector={root}:{name}", "--quiet", stdin=f"{code}\n{code}\n")
    tap.contains(cli.good("protect", image, "list").out, b'recovery code "recovery"')
    refused(image, "change", "recovery", typed=code + "\nx\n", code=cli.USAGE, says="is not changed")
    add(image, "remove", "me", typed="")
    opens(image, "/d/letter", code)


@tap.test
def by_the_tool():
    """A volume that the tool made: protectors are added, changed and removed here, and it goes on with them"""
    needs()
    image = new_image()
    with tap.mounted(image) as root:
        fscrypt.setup(root)
        fscrypt.encrypt(f"{root}/d", "--source=custom_passphrase", "--name=tool", stdin="x\n")
        with open(f"{root}/d/letter", "w", encoding="ascii") as f:
            f.write("to Linux\n")
    add(image, "add", "ours", typed="x\ny\n")
    add(image, "change", "tool", typed="x\nz\n")
    ids = protectors(image)
    on_linux(image, "/d/letter", "y", "--unlock-with=ROOT:" + ids["ours"])
    on_linux(image, "/d/letter", "z", "--unlock-with=ROOT:" + ids["tool"])
    add(image, "remove", "tool", typed="")
    on_linux(image, "/d/letter", "y")


@tap.test
def kinds():
    """Version 1 policies; a protector that is a key file from the start; what fscrypt has no place for"""
    needs()
    image, key = new_image("a", "b", "c"), tap.fresh("raw")
    with open(key, "wb") as f:
        f.write(os.urandom(32))
    encrypt(image, "a", "x", "--protector", "me", "--v1")
    put(image, "/a/letter", "x")
    on_linux(image, "/a/letter", "x")
    cli.good("encrypt", "--protector-key", key, "--protector", "file", f"{image}:/b")
    source = tap.fresh("letter")
    with open(source, "w", encoding="ascii") as f:
        f.write("to Linux\n")
    cli.good("put", "-q", "--protector-key", key, "--protector", "file", source, f"{image}:/b/letter")
    on_linux(image, "/b/letter", "", f"--key={key}")
    for option in (("--iv-ino-lblk-64",), ("--data-unit-size", "512")):
        cli.bad(cli.USAGE, "encrypt", "--passphrase-fd", "0", *CHEAP, "--protector", "me", *option, f"{image}:/c", stdin=b"x",
                says="fscrypt has no place")


@tap.test
def taken_back():
    """A directory that cannot be encrypted: nothing is left behind"""
    needs()
    image = new_image("d", "d/full")
    cli.bad(cli.FAILED, "encrypt", "--passphrase-fd", "0", *CHEAP, f"{image}:/d", stdin=b"x", says="is not empty")
    cli.bad(cli.FAILED, "encrypt", "--passphrase-fd", "0", *CHEAP, f"{image}:/nothing", stdin=b"x", says="no such file")
    cli.bad(cli.NO_KEY, "encrypt", "--passphrase-fd", "0", *CHEAP, f"{image}:/d/full", stdin=b"\n", says="empty")
    with tap.mounted(image) as root:
        for folder in ("policies", "protectors"):
            path = f"{root}/.fscrypt/{folder}"
            tap.equal(os.listdir(path) if os.path.exists(path) else [], [])
    fsck(image)


@tap.test
def mounts():
    """In a mount of Inlay, and in one of the kernel"""
    needs("fuse")
    image, root = new_image("d"), tap.fresh_dir("served")
    tap.unmount_later(root)
    cli.good("mount", image, root)
    cli.good("encrypt", "--passphrase-fd", "0", *CHEAP, "--protector", "me", f"{root}/d", stdin=b"x\n")
    with open(f"{root}/d/letter", "w", encoding="ascii") as f:
        f.write("to Linux\n")
    add(f"{root}/d", "add", "two", typed="x\ny\n")
    tap.equal(sorted(protectors(root)), ["me", "two"])
    refused(root, "add", "two", typed="x\ny\n", options=("--protector", "me"), code=cli.USAGE, says="already")
    cli.good("umount", root)
    on_linux(image, "/d/letter", "y", "--unlock-with=ROOT:" + protectors(image)["two"])
    with tap.mounted(image) as linux:
        add(linux, "add", "three", typed="x\nz\n", options=("--protector", "me"))
        add(linux, "remove", "me", typed="")
    on_linux(image, "/d/letter", "z", "--unlock-with=ROOT:" + protectors(image)["three"])


@tap.test
def typed_twice():
    """On a terminal a new passphrase is typed twice, and shown never"""
    needs()
    image = new_image("d")
    argv = [cli.command(), "encrypt", "--passphrase", *CHEAP, f"{image}:/d"]
    code, shown = on_terminal(argv, ["one\n", "other\n", "words\n", "words\n"])
    tap.equal(code, 0, shown)
    tap.contains(shown, "New passphrase for \"root\"", "once more", "two different")
    tap.equal("words" in shown, False, shown)
    put(image, "/d/letter", "words")
    code, shown = on_terminal(argv, ["x\n", "y\n"] * 3)
    tap.equal(code, cli.NO_KEY, shown)
    code, shown = on_terminal([cli.command(), "protect", *CHEAP, image, "change"], ["words\n", "new\n", "new\n"])
    tap.equal(code, 0, shown)
    opens(image, "/d/letter", "new")
    code, shown = on_terminal([cli.command(), "protect", *CHEAP, image, "recovery"], ["new\n"])
    tap.equal(code, 0, shown)
    opens(image, "/d/letter", shown.split()[-1], "--protector", "recovery")


@tap.test
def costs():
    """Costs by themselves: about a second, within the limits"""
    needs()
    image = new_image("d")
    cli.good("encrypt", "--passphrase-fd", "0", f"{image}:/d", stdin=b"x")
    line = cli.good("protect", image, "list").out.decode().splitlines()[0]
    words = line.split("(")[1].split()
    passes, memory, lanes = int(words[0]), int(words[2]), int(words[4])
    tap.equal(8 * 1024 <= memory <= 131072 and lanes == min(16, os.cpu_count()) and passes >= 1, True, line)
    opened = cli.good("ls", "--passphrase-fd", "0", f"{image}:/d", stdin=b"x")
    tap.equal(opened.out, b"")


# ---- memory -------------------------------------------------------------------------------------------------------------


class Secrets:
    """A volume with a passphrase and a key file, and all that must not stay in memory."""

    def __init__(self):
        self.words, self.more = "a passphrase to look for", "another one to look for"
        self.image, self.file = new_image("d", "e"), tap.fresh("raw")
        raw = os.urandom(32)
        with open(self.file, "wb") as f:
            f.write(raw)
        encrypt(self.image, "d", self.words, "--protector", "me")
        add(self.image, "add", "file", typed=self.words, options=("--new-key", self.file))
        put(self.image, "/d/letter", self.words)
        with tap.mounted(self.image) as root:
            protector, policy = fscrypt.keys_behind(root, raw)
        tap.equal(len(policy), 64)
        self.things = {"passphrase": self.words.encode(), "new passphrase": self.more.encode(), "key file": raw,
                       "protector key": protector, "policy key": policy[:32], "policy key, second half": policy[32:]}

    def look(self, *args, typed="", code=0):
        done = memory.at_exit([cli.command(), *args], typed.encode(), self.things)
        tap.equal(done[0], code, done)
        tap.equal(done[2], {}, args)
        return done[1].decode()


@tap.test
def memory_at_the_end():
    """When an operation ends nothing of passphrases, codes and keys is in its memory"""
    needs()
    secrets = Secrets()
    image, ask = secrets.image, ("--passphrase-fd", "0")
    tap.equal(secrets.look("cat", *ask, f"{image}:/d/letter", typed=secrets.words), "to Linux\n")
    secrets.look("cat", *ask, f"{image}:/d/letter", typed=secrets.more, code=cli.NO_KEY)
    tap.equal(secrets.look("cat", "--protector-key", secrets.file, f"{image}:/d/letter"), "to Linux\n")
    secrets.look("encrypt", *ask, *CHEAP, "--protector", "me", f"{image}:/e", typed=secrets.words)
    secrets.look("protect", *ask, *CHEAP, image, "add", "two", typed=f"{secrets.words}\n{secrets.more}\n")
    secrets.look("protect", *ask, *CHEAP, "--protector", "me", image, "change", typed=f"{secrets.words}\n{secrets.more}\n")
    code = secrets.look("protect", *ask, *CHEAP, "--protector", "me", image, "recovery", typed=secrets.more).strip()
    secrets.things["code"] = code.encode()
    tap.equal(secrets.look("cat", *ask, "--protector", "recovery", f"{image}:/d/letter", typed=code), "to Linux\n")
    # It would be found.
    found = memory.at_exit(["/bin/sh", "-c", "read x; :"], secrets.words.encode() + b"\n", secrets.things)
    tap.equal("passphrase" in found[2], True, found)


@tap.test
def memory_of_mount():
    """What serves a mount has no passphrase in memory, and no key where it could be read"""
    needs("fuse")
    secrets, root = Secrets(), tap.fresh_dir("served")
    tap.unmount_later(root)
    cli.good("mount", "--passphrase-fd", "0", secrets.image, root, stdin=secrets.words.encode())
    tap.equal(os.listdir(f"{root}/d"), ["letter"])
    for name in os.listdir("/proc"):
        if name.isdigit() and secrets.image.encode() in command_line(name):
            server = int(name)
    things = secrets.things if hidden(server) else {k: v for k, v in secrets.things.items() if not k.startswith("policy")}
    tap.equal(memory.find(server, things), {})
    cli.good("lock", root)
    tap.equal(memory.find(server, secrets.things), {})
    cli.good("unlock", "--passphrase-fd", "0", root, stdin=secrets.words.encode())
    tap.equal(memory.find(server, things), {})
    cli.good("umount", root)


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def hidden(pid):
    """Does it keep secrets where nobody can read them?"""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as f:
        return "secretmem" in f.read()


# ---- crashes ------------------------------------------------------------------------------------------------------------


def inlay(args, typed):
    done = subprocess.run([cli.command(), *args], input=typed.encode(), capture_output=True, timeout=60, check=False)
    tap.equal(done.returncode >= 0, True, done)
    return done


def count_writes(image, args, typed):
    """How many writes to the image it takes."""
    whole = tap.copy(image)
    said = inlay([args[0], "--counters", *(a.replace("IMAGE", whole) for a in args[1:])], typed)
    tap.equal(said.returncode, 0, said)
    words = said.stderr.decode().replace(",", " ").split()
    return int(words[words.index("writes") + 1])


class Left:
    """What a crash left: the policy of /d, and the files of metadata."""

    def __init__(self, image):
        done = subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
        tap.equal(done.returncode in (0, 1), True, done.stdout.decode()[-2000:])
        with tap.mounted(image) as root:
            try:
                self.policy = koracle.get_policy(f"{root}/d")[5]
            except OSError:
                self.policy = None
            base = f"{root}/.fscrypt"
            self.policies, self.protectors = [
                [n for n in os.listdir(f"{base}/{kind}") if not n.startswith(".tmp")] if os.path.exists(base) else []
                for kind in ("policies", "protectors")]
            if self.policies:
                fscrypt.run("status", root)  # it reads all of it


def each_crash(image, args, typed, check, torn=False):
    """At every write: that one and all after it never arrive. Also with that one torn."""
    n_writes = count_writes(image, args, typed)
    for n in range(1, n_writes + 2):
        if not LONG and n % 4 and n < n_writes:
            continue
        for what in ("drop", "torn:512") if torn and LONG else ("drop",):
            crashed = tap.copy(image)
            rules = f"write@{n}={what}+write@{n + 1}..1000000=drop"
            inlay([a.replace("IMAGE", f"fault({crashed}, {rules})") for a in args], typed)
            check(crashed)
            os.unlink(crashed)
    return n_writes


def as_expected(seen, states, of):
    """In the long run every state is met; in the short one more than one is."""
    tap.equal(seen - states, set(), of)
    assert seen == states or (not LONG and len(seen) > 1), f"{of}: {seen}"


@tap.test
def crash_encrypt():
    """A crash at any write of encrypt: no directory without what opens it"""
    needs()
    image, seen = new_image("d", size=16 * MIB), set()

    def check(crashed):
        left = Left(crashed)
        seen.add((len(left.protectors), len(left.policies), left.policy is not None))
        if left.policy:
            tap.equal(left.policies, [left.policy])
            put(crashed, "/d/letter", "words")
            on_linux(crashed, "/d/letter", "words")
        if left.policies:
            tap.equal(len(left.protectors), 1)

    n = each_crash(image, ["encrypt", "--passphrase-fd", "0", *CHEAP, "--protector", "me", "IMAGE:/d"], "words\n", check,
                   torn=True)
    as_expected(seen, {(0, 0, False), (1, 0, False), (1, 1, False), (1, 1, True)}, f"{n} writes")


def crash_of(verb, typed, options=()):
    """Whatever is cut short: one of the two passphrases, or both, open what they should."""
    image, seen = new_image("d", size=16 * MIB), set()
    encrypt(image, "d", "1st", "--protector", "one")
    put(image, "/d/letter", "1st")
    if verb == ["remove", "one"]:
        add(image, "add", "two", typed="1st\n2nd\n")

    def check(crashed):
        left = Left(crashed)
        opened = []
        for words in ("1st", "2nd"):
            for name in ("one", "two"):
                done = inlay(["cat", "--passphrase-fd", "0", "--protector", name, f"{crashed}:/d/letter"], words)
                if done.returncode == 0:
                    opened.append((name, words))
        tap.equal(bool(opened), True, f"{left.policies} {left.protectors}")
        seen.add(tuple(opened))

    each_crash(image, ["protect", "--passphrase-fd", "0", *CHEAP, *options, "IMAGE", *verb], typed, check)
    return seen


@tap.test
def crash_protect():
    """A crash at any write of add, change and remove: something opens it, and never half of it"""
    needs()
    one, two = ("one", "1st"), ("two", "2nd")
    as_expected(crash_of(["add", "two"], "1st\n2nd\n"), {(one,), (one, two)}, "add")
    as_expected(crash_of(["change"], "1st\n2nd\n"), {(one,), (("one", "2nd"),)}, "change")
    as_expected(crash_of(["remove", "one"], ""), {(one, two), (two,)}, "remove")


def files_below(root):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(root) for name in names)


@tap.test
def leads_away():
    """On a mount, .fscrypt that leads to another file system: read, and never written to"""
    needs()
    image, outside = new_image("d"), tap.fresh_dir("outside")
    encrypt(image, "d", "words", "--protector", "me")
    with tap.mounted(image) as root:
        base = f"{root}/.fscrypt"
        os.rename(base, f"{root}/kept")
        os.symlink("kept", base)  # it stays on the file system: as good as none
        add(root, "add", "two", typed="words\n2nd\n")
        os.unlink(base)
        subprocess.run(["cp", "-a", f"{root}/kept/.", outside], check=True)
        os.symlink(outside, base)
        tap.equal(sorted(protectors(root)), ["me", "two"])
        before = files_below(outside)
        for verb, name, typed in (("add", "three", "words\n3rd\n"), ("remove", "two", ""),
                                  ("change", "me", "words\nnew\n")):
            me = ("--protector", "me") if verb == "add" else ()
            refused(root, verb, name, typed=typed, options=me, says=".fscrypt lies on another file system")
        tap.equal(files_below(outside), before)
        # One of the two directories, which somebody has mounted there.
        os.unlink(base)
        os.rename(f"{root}/kept", base)
        tap.mount("--bind", f"{outside}/protectors", f"{base}/protectors")
        try:
            refused(root, "remove", "two", says="protectors lies on another file system")
            tap.equal(files_below(outside), before)
        finally:
            tap.umount(f"{base}/protectors")
        # A link to nothing.
        os.rename(base, f"{root}/kept")
        os.symlink("nowhere", base)
        refused(root, "add", "three", typed="words\n3rd\n", code=(cli.FAILED, cli.NO_KEY, cli.USAGE))
        tap.equal(os.path.exists(f"{root}/nowhere") or any(n.startswith(".tmp") for n in os.listdir(root)), False)


@tap.test
def code_changed():
    """A recovery code that the tool fscrypt has put a passphrase in the place of: that opens it"""
    needs()
    image = new_image("d")
    encrypt(image, "d", "words", "--protector", "me")
    put(image, "/d/letter", "words")
    code = add(image, "recovery", typed="words\n").strip()
    name, recover = protectors(image)["recovery"], ("--protector", "recovery")
    with tap.mounted(image) as root:
        fscrypt.run("metadata", "change-passphrase", f"--protector={root}:{name}", "--quiet", stdin=f"{code}\nany words\n")
    opens(image, "/d/letter", "any words", *recover)
    shut(image, "/d/letter", code, *recover)
    shut(image, "/d/letter", "other words", *recover, says="recovery code")
    add(image, "add", "more", typed="any words\n3rd\n", options=recover)
    opens(image, "/d/letter", "3rd", "--protector", "more")


if __name__ == "__main__":
    tap.main()
