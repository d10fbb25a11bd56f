"""Scripts of keys, policies and locks: lines that are done in a mounted directory, and what each of them comes to.

Not here: the ioctls as such (fscryptctl.py); the scripts (tests/mount/test_mount_ioctls.py).
Read more: Linux Documentation/filesystems/fscrypt.rst.

A file of scripts has "@ NAME: title" before each, comments (#), and the reasons for which Inlay may differ: "! WORD: reason".
A line is "WHO VERB ARGUMENTS = RESULT" or "WHO VERB ARGUMENTS = LINUX | INLAY ! WORD"; several results that will do have
" or " between them. WHO is root, A, B (users that nobody is), or one of these in the way that MODES has: A.nodump. A RESULT
is 0, the name of an error, or what was asked for. In a path "*name" is the no-key name of what was made as "name". Of
what differs between volumes, or is long, the result has a sign only; what must be the same wherever the same volume is
mounted is the detail, which is compared as well.
"""
import ast
import contextlib
import ctypes
import hashlib
import hmac
import mmap
import os
import stat
import subprocess
import threading
import time

import fscryptctl as ctl
import koracle
import tap
import trees

USERS = {"root": None, "A": 4711, "B": 4712}
MODES = {"nodump": {"dumpable": False}, "ns": {"namespace": True}, "nnp": {"no_new_privs": True},
         "pidns": {"pid_namespace": True}}
KEYS = {name: trees.pattern("keyscript " + name, size) for name, size in (
    ("K1", 64), ("K2", 64), ("K3", 32), ("K4", 64), ("SHORT", 16), ("V1", 64), ("V2", 64), ("V16", 16))}


def identifier(raw):
    """HKDF-SHA512 without salt, info "fscrypt", NUL, 1."""
    secret = hmac.new(bytes(64), raw, hashlib.sha512).digest()
    return hmac.new(secret, b"fscrypt\0\x01\x01", hashlib.sha512).digest()[:16]


def name_of(key):
    """What a key is called: an identifier, or for keys V... a descriptor. Hex digits are themselves."""
    if key not in KEYS:
        return bytes.fromhex(key)
    return bytes.fromhex(koracle.descriptor(KEYS[key])) if key[0] == "V" else identifier(KEYS[key])


LABELS = {name_of(key).hex(): key for key in KEYS}


def labelled(text):
    for digits, key in LABELS.items():
        text = text.replace(digits, key)
    return text


def short(name):
    return name if len(name) < 20 else f"{name[0]}x{len(name)}"


def numbers(words):
    """{name: number} of "name=number"."""
    return {name: int(value, 0) for name, value in (word.split("=") for word in words)}


class Line:
    """One line of a script, with the results that it may have."""

    def __init__(self, text):
        what, separator, result = text.partition(" = ")
        self.who, self.verb, *self.args = what.split()
        results, _, self.why = result.partition(" ! ")
        linux, _, ours = results.partition(" | ")
        self.linux = [one.strip() for one in linux.split(" or ")]
        self.ours = [one.strip() for one in ours.split(" or ")] if ours else self.linux
        if not separator or bool(ours) != bool(self.why) or not hasattr(Side, "do_" + self.verb):
            raise ValueError("this is no line of a script: " + text)

    def __str__(self):
        return " ".join((self.who, self.verb, *self.args))


def read_scripts(path):
    """{name: (title, lines)}, {word: reason}"""
    scripts, reasons, lines = {}, {}, None
    with open(path, encoding="utf-8") as f:
        for text in (line.strip() for line in f):
            head, _, rest = text[1:].partition(": ")
            if text.startswith("@"):
                lines = []
                scripts[head.strip()] = (rest, lines)
            elif text.startswith("!"):
                reasons[head.strip()] = rest
            elif text and text[0] != "#":
                lines.append(Line(text))
                if lines[-1].why and lines[-1].why not in reasons:
                    raise ValueError("a difference without a reason: " + text)
    return scripts, reasons


class Side:
    """A directory where scripts are done. inos: {path: inode number} of what is there, by its true names."""

    def __init__(self, root, inos):
        self.root, self.inos, self.held, self.detail = root, dict(inos), {}, None

    def do(self, line):
        """(result, detail)"""
        self.detail = None
        user, _, mode = line.who.partition(".")
        try:
            args = [self.path(arg) if arg[0] == "/" else arg for arg in line.args]
        except LookupError as error:
            return str(error), None
        if user == "root" and not mode:
            result = ctl.said_by(getattr(self, "do_" + line.verb), *args)
        else:
            result = ctl.in_child(self.pair, line.verb, args, uid=USERS[user], **MODES[mode] if mode else {})
            if result[0] == "(":
                result, self.detail = ast.literal_eval(result)
        self.learn(line, result)
        return labelled(result), self.detail

    def pair(self, verb, args):
        return getattr(self, "do_" + verb)(*args), self.detail

    def learn(self, line, result):
        """What was made, under its true name."""
        if line.verb in ("mkdir", "create", "symlink", "mkfifo", "link", "rename") and result == "0":
            made = [arg for arg in line.args if arg[0] == "/"][-1]
            with contextlib.suppress(OSError):
                self.inos[made.lstrip("/").replace("*", "")] = os.lstat(self.path(made)).st_ino

    def path(self, text):
        """The path in the mount, with no-key names where the script has a star."""
        real, true = self.root, ""
        for part in text.strip("/").split("/") if text.strip("/") else ():
            true = f"{true}/{part.lstrip('*')}".lstrip("/")
            if part[0] == "*":
                part = self.nokey(real, true)
            real = os.path.join(real, part)
        return real

    def nokey(self, directory, true):
        ino = self.inos.get(true)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.inode() == ino and entry.name != os.path.basename(true):
                    return entry.name
        raise LookupError("no no-key name of " + true)

    def end(self):
        for what in list(self.held):
            self.do_drop(what)

    # ---- keys --------------------------------------------------------------------------------------------------------

    def do_add(self, key, where=None):
        name = name_of(key) if key[0] == "V" else b""
        got = ctl.add_key(where or self.root, KEYS[key], name)
        tap.equal(got.hex(), name_of(key).hex(), "the name of the key")
        return "0"

    def do_addraw(self, size, *how):
        """A key of so many bytes, with what fscryptctl would not do."""
        size, how = int(size), numbers(how)
        how["tail"] = b"\0\0\0\0\1" if how.pop("tail", 0) else b""
        name = bytes(8) if how.get("kind") == 1 else b""
        ctl.add_key(self.root, trees.pattern("raw", size), name, **how)
        return "0"

    def do_addthread(self, key):
        """By another thread than the first of its process."""
        said = []
        thread = threading.Thread(target=lambda: said.append(ctl.said_by(self.do_add, key)))
        thread.start()
        thread.join()
        return said[0]

    def do_addwild(self):
        """A pointer that points nowhere."""
        with ctl.opened(self.root) as fd:
            ctl.at(fd, ctl.ADD_KEY, 8)
        return "0"

    def do_addedge(self, key, n_there):
        """So many bytes of the key are in memory, and no memory is behind them."""
        raw, n_there = KEYS[key], int(n_there)
        area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        memory = (ctypes.c_char * len(area)).from_buffer(area)
        start = mmap.PAGESIZE - ctl.ADD_SIZE - n_there
        arg = ctl.specifier(b"") + len(raw).to_bytes(4, "little") + bytes(36) + raw
        area[start:mmap.PAGESIZE] = arg[:ctl.ADD_SIZE + n_there]
        base = ctypes.addressof(memory)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect(ctypes.c_void_p(base + mmap.PAGESIZE), mmap.PAGESIZE, 0)
        try:
            with ctl.opened(self.root) as fd:
                ctl.at(fd, ctl.ADD_KEY, base + start)
            tap.equal(bytes(area[start + 8:start + 24]), identifier(raw))
        finally:
            libc.mprotect(ctypes.c_void_p(base + mmap.PAGESIZE), mmap.PAGESIZE, 3)
        return "0"

    def do_status(self, key, where=None):
        return ctl.status_words(ctl.key_status(where or self.root, name_of(key)))

    def do_statusraw(self, key, *how):
        how = numbers(how)
        how["tail"] = b"\1" if how.pop("tail", 0) else b""
        return ctl.status_words(ctl.key_status(self.root, name_of(key), **how))

    def do_remove(self, key, where=None):
        return ctl.removal_words(ctl.remove_key(where or self.root, name_of(key)))

    def do_removeraw(self, key, *how):
        how = numbers(how)
        how["tail"] = b"\1" if how.pop("tail", 0) else b""
        return ctl.removal_words(ctl.remove_key(self.root, name_of(key), **how))

    def do_removeall(self, key, where=None):
        return ctl.removal_words(ctl.remove_key(where or self.root, name_of(key), all_users=True))

    # ---- policies ------------------------------------------------------------------------------------------------------

    def do_set(self, path, key, *how):
        how = numbers(how)
        name = name_of(key)
        if "reserved" in how:
            how["reserved"] = bytes([0, how["reserved"]])
        ctl.set_policy(path, ctl.policy_v1(name, **how) if len(name) == 8 else ctl.policy_v2(name, **how))
        return "0"

    def do_setwild(self, path):
        with ctl.opened(path) as fd:
            ctl.at(fd, ctl.SET_POLICY, 8)
        return "0"

    def do_get(self, path, room="24"):
        return ctl.policy_words(ctl.get_policy_ex(path, int(room)))

    def do_getold(self, path):
        return ctl.policy_words(ctl.get_policy_old(path))

    def do_nonce(self, path):
        return "nonce" if any(ctl.get_nonce(path)) else "zero"

    def do_noncex(self, path):
        """Only for what was there when the script began."""
        self.detail = ctl.get_nonce(path).hex()
        return "nonce"

    def do_salt(self, path):
        salt = ctl.get_pwsalt(path)
        tap.equal(ctl.get_pwsalt(path), salt, "the salt, asked again")
        return "salt" if any(salt) else "zero"

    def do_as(self, path, other):
        """Whether two have the same policy, and not the same nonce."""
        tap.equal(ctl.get_nonce(path) == ctl.get_nonce(other), False, "the same nonce")
        return str(ctl.get_policy_ex(path) == ctl.get_policy_ex(other))

    # ---- files ---------------------------------------------------------------------------------------------------------

    def do_mkdir(self, path, mode="755"):
        os.mkdir(path)
        os.chmod(path, int(mode, 8))
        return "0"

    def do_create(self, path, text=""):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        return "0"

    def do_open(self, path, flags="0"):
        os.close(os.open(path, int(flags, 8)))
        return "0"

    def do_path(self, path):
        os.close(os.open(path, os.O_PATH))
        return "0"

    def do_read(self, path):
        with open(path, "rb") as f:
            return f.read(100).decode("latin-1") or "empty"

    def do_write(self, path, text):
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        return "0"

    def do_exec(self, path):
        subprocess.run([path], check=True)
        return "0"

    def do_truncate(self, path, size):
        os.truncate(path, int(size))
        return "0"

    def listed(self, directory, true):
        """The names, those without key as the star and what is the file's true name; in the detail as they are."""
        true, names = true + "/" if true else "", {}
        for path, ino in self.inos.items():
            if path.startswith(true) and "/" not in path[len(true):]:
                names.setdefault(ino, []).append(path[len(true):])
        said, raw = [], []
        with os.scandir(directory) as entries:
            for entry in entries:
                known = names.get(entry.inode(), ["?"])
                said.append(short(entry.name) if entry.name in known else "*" + short(known[0]))
                raw.append(entry.name)
        self.detail = " ".join(sorted(raw))
        return ",".join(sorted(said)) or "nothing"

    def true(self, path):
        """The true path of a directory, found by its inode."""
        ino = os.stat(path).st_ino
        return next((name for name, number in self.inos.items() if number == ino), "")

    def do_lsx(self, path):
        """Only for directories that were there when the script began: the no-key names are the detail."""
        return self.listed(path, self.true(path))

    def do_ls(self, path):
        said = self.do_lsx(path)
        self.detail = None
        return said

    def do_stat(self, path):
        st = os.lstat(path)
        kind = {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}[stat.S_IFMT(st.st_mode)]
        return f"{kind}{stat.S_IMODE(st.st_mode):o}:{st.st_nlink}"

    def do_size(self, path):
        return str(os.lstat(path).st_size)

    def do_readlink(self, path):
        self.detail = os.readlink(path)
        return self.detail if len(self.detail) < 16 else "nokey"

    def do_unlink(self, path):
        os.unlink(path)
        return "0"

    def do_rmdir(self, path):
        os.rmdir(path)
        return "0"

    def do_rename(self, path, to):
        os.rename(path, to)
        return "0"

    def do_exchange(self, path, to):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(-100, os.fsencode(path), -100, os.fsencode(to), 2):
            raise ctl.Refused(ctypes.get_errno(), "renameat2")
        return "0"

    def do_link(self, path, to):
        os.link(path, to, follow_symlinks=False)
        return "0"

    def do_symlink(self, target, to):
        os.symlink(target, to)
        return "0"

    def do_mkfifo(self, path):
        os.mkfifo(path)
        return "0"

    def do_chmod(self, path, mode):
        os.chmod(path, int(mode, 8))
        return "0"

    def do_setxattr(self, path):
        os.setxattr(path, "user.key", b"value")
        return "0"

    def do_getxattr(self, path):
        return os.getxattr(path, "user.key").decode()

    def do_sync(self):
        fd = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return "0"

    # ---- what is held --------------------------------------------------------------------------------------------------

    def do_hold(self, what, how, path):
        """Something stays in use under the name what: a file that is open (open, openrw, path), an open directory (dir),
        a mapping behind a closed descriptor (map), the working directory of a process (cwd)."""
        if how == "cwd":
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = subprocess.Popen(["sh", "-c", "echo; read x; exit 0"], cwd=path, **pipes)
            child.stdout.readline()
            self.held[what] = child
            return "0"
        flags = {"open": os.O_RDONLY, "openrw": os.O_RDWR, "path": os.O_PATH, "dir": os.O_RDONLY | os.O_DIRECTORY,
                 "map": os.O_RDWR}
        fd = os.open(path, flags[how])
        if how == "map":
            self.held[what] = mmap.mmap(fd, 0)
            os.close(fd)
        else:
            self.held[what] = fd
        return "0"

    def do_drop(self, what):
        held = self.held.pop(what)
        if isinstance(held, int):
            os.close(held)
        elif isinstance(held, mmap.mmap):
            held.close()
        else:
            held.communicate()
        return "0"

    def do_hread(self, what):
        held = self.held[what]
        data = held[:40].rstrip(b"\0") if isinstance(held, mmap.mmap) else os.pread(held, 100, 0)
        return data.decode("latin-1") or "empty"

    def do_hwrite(self, what, text):
        os.pwrite(self.held[what], text.encode(), 0)
        os.fsync(self.held[what])
        return "0"

    def do_hmap(self, what, text):
        self.held[what][:len(text)] = text.encode()
        return "0"

    def do_hls(self, what):
        return self.listed(self.held[what], self.true(f"/proc/self/fd/{self.held[what]}"))

    def do_hcreate(self, what, name):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=self.held[what]))
        return "0"

    def do_hopen(self, what, name):
        os.close(os.open(name, os.O_RDONLY, dir_fd=self.held[what]))
        return "0"

    def do_hstat(self, what):
        """The type, so that a descriptor still works."""
        return "d" if stat.S_ISDIR(os.fstat(self.held[what]).st_mode) else "f"

    def do_hget(self, what):
        return ctl.policy_words(ctl.get_policy_ex(self.held[what]))

    def do_wait(self, seconds):
        time.sleep(float(seconds))
        return "0"


def results(side, lines, each=None):
    """[(result, detail)] of all lines. each(line, result, detail) is called in between."""
    out = []
    try:
        for line in lines:
            out.append(side.do(line))
            if each:
                each(line, *out[-1])
    finally:
        side.end()
    return out


def complain(what, lines, got, side):
    """The lines whose result is not one of those that they may have on this side ("linux" or "ours")."""
    bad = []
    for number, (line, (result, _)) in enumerate(zip(lines, got), 1):
        if result not in getattr(line, side):
            bad.append(f"{number}: {line}: {result}; expected {' or '.join(getattr(line, side))}")
    if bad:
        tap.fail(f"{what}: {len(bad)} of {len(lines)} lines\n" + "\n".join(bad[:40]))


def same_details(what, lines, ours, theirs):
    bad = [f"{line}\n    linux {b[1]}\n    ours  {a[1]}" for line, a, b in zip(lines, ours, theirs)
           if a[1] != b[1] and line.ours == line.linux]
    if bad:
        tap.fail(f"{what}:\n" + "\n".join(bad[:10]))
