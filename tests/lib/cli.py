"""Running the command `inlay` the way a person does, and golden volumes to run it on.

Not here: what is expected of it (the tests); its own code.
Read more: doc/inlay.1.
"""
import hashlib
import json
import lzma
import os
import re
import subprocess

import tap

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden")
FAILED, USAGE, NO_KEY, NOT_READABLE, PARTLY, INTERRUPTED = 1, 2, 3, 4, 5, 130
NOBODY = 65534
ALARMS = (b"AddressSanitizer", b"LeakSanitizer", b"ThreadSanitizer", b"runtime error:", b"MemorySanitizer", b"Assertion")


def command():
    """The path of the command under test."""
    path = os.environ.get("INLAY")
    if not path:
        tap.fail("the environment variable INLAY must name the command to test")
    return path


class Result:
    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __repr__(self):
        return f"{self.argv}: exit {self.code}, stdout {self.out[-300:]!r}, stderr {self.err[-600:]!r}"

    def json(self):
        try:
            return json.loads(self.out.decode())
        except ValueError as error:
            raise AssertionError(f"no JSON ({error}): {self!r}") from error


def arguments(args, keys=()):
    """Options follow the name of the subcommand."""
    head, *rest = args
    return [command(), head, *(o for k in keys for o in ("--key", k)), *rest]


def judge(result):
    """No test forgives a crash or a report of a sanitizer."""
    if result.code < 0:
        raise AssertionError(f"ended by signal {-result.code}: {result!r}")
    for alarm in ALARMS:
        if alarm in result.err:
            raise AssertionError(f"{alarm.decode()}: {result.argv}\n{result.err.decode(errors='replace')[:3500]}")
    return result


def run(*args, keys=(), stdin=b"", timeout=60, **how):
    """Run `inlay ARGS`; how: more for subprocess.run (user, cwd, ...)."""
    argv = arguments(args, keys)
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=False, **how)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"no end after {timeout} s: {argv}") from error
    return judge(Result(argv, done.returncode, done.stdout, done.stderr))


def good(*args, **how):
    """Run, and insist on success and on a silent standard error."""
    result = run(*args, **how)
    if result.code or result.err:
        raise AssertionError(f"should succeed in silence: {result!r}")
    return result


def bad(code, *args, says=(), **how):
    """Run, and insist on this exit code (or one of these) and on one line on standard error that has all of `says` in it."""
    result = run(*args, **how)
    lines = result.err.splitlines()
    if result.code not in (code if isinstance(code, tuple) else (code,)):
        raise AssertionError(f"should exit with {code}: {result!r}")
    if len(lines) != 1 or not lines[0].startswith(b"inlay: "):
        raise AssertionError(f"should say one line that starts with 'inlay: ': {result!r}")
    for part in (says,) if isinstance(says, (str, bytes)) else says:
        part = os.fsencode(part)
        if part.lower() not in lines[0].lower():
            raise AssertionError(f"should name {part!r}: {result!r}")
    return result


TYPES = {"regular file": "file", "directory": "dir", "symbolic link": "symlink", "FIFO": "fifo", "character device": "char",
         "block device": "block", "socket": "socket"}


def _text(row, field):
    """A string of the JSON output as bytes: "field", or "field_hex" where it is not UTF-8."""
    if field + "_hex" in row:
        return bytes.fromhex(row[field + "_hex"])
    return row[field].encode() if field in row else None


def as_row(row):
    """An entry of `ls --json` or `stat --json` in the words of trees.look_at."""
    out = {"type": TYPES[row["type"]], "mode": row["mode_bits"], "uid": row["uid"], "gid": row["gid"], "size": row["size"],
           "nlink": row["nlink"], "ino": row["inode"], "mtime": row["mtime"]["sec"] * 10 ** 9 + row["mtime"]["nsec"]}
    if out["type"] == "symlink":
        out["target"] = _text(row, "target")
    return out


def listing(image, keys=()):
    """{path: row} of everything in a volume, by `ls -laR --json`."""
    rows = good("ls", "-laR", "--json", image, keys=keys).json()
    out = {_text(row, "path").lstrip(b"/"): as_row(row) for row in rows}
    tap.equal(len(out), len(rows), "paths that differ")
    for row in rows:
        tap.equal(os.path.basename(_text(row, "path")), _text(row, "name"))
    return out


def stat(where, keys=()):
    """The one object that `stat --json` prints."""
    rows = good("stat", "--json", where, keys=keys).json()
    tap.equal(len(rows), 1, "objects")
    return rows[0]


def counters(result):
    """What --counters printed to standard error, one line per device of the stack: summed up; absent ones are 0."""
    out = dict.fromkeys(("engine_units_decrypted", "fallback_units_decrypted", "slot_programs", "bytes_read", "bytes_written",
                         "keys_started", "keys_evicted", "errors"), 0)
    lines = [line for line in result.err.decode().splitlines() if not line.startswith("inlay: ")]
    assert lines, f"no counters: {result!r}"
    for line in lines:
        match = re.fullmatch(r" *\w+ \(.*\): (?:(?:\w+ \d+)(?:, \w+ \d+)*)?", line)
        assert match, f"no line of counters: {line!r}"
        for name, value in re.findall(r"(\w+) (\d+)(?:,|$)", line.rpartition("): ")[2]):
            out[name] = out.get(name, 0) + int(value)
    tap.equal(out["keys_evicted"], out["keys_started"], "keys that were evicted at the end")
    return out


def as_nobody():
    """How to run the command as another user, for run(). Skips where the build lies in a private folder."""
    tap.requires("root")
    try:
        if subprocess.run([command(), "--version"], user=NOBODY, capture_output=True, check=False).returncode == 0:
            return {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    except OSError:
        pass
    raise tap.Skip("the command is in a folder that is private")


def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


_unpacked = {}


def golden(name):
    """The path of an unpacked golden volume, shared by the tests of one program: nobody writes to it."""
    if name not in _unpacked:
        path = _unpacked[name] = tap.fresh(name + ".img")
        with lzma.open(os.path.join(GOLDEN, name + ".img.xz")) as f:
            write_sparse(path, f.read())
        os.chmod(path, 0o444)
    return _unpacked[name]


def write_sparse(path, raw):
    with open(path, "wb") as f:
        for at in range(0, len(raw), 65536):
            piece = raw[at:at + 65536]
            if piece.strip(b"\0"):
                f.seek(at)
                f.write(piece)
        f.truncate(len(raw))


def golden_key(name):
    return os.path.join(GOLDEN, name + ".key")


def manifest(name):
    """The manifest; paths and targets as bytes, xattrs as bytes."""
    with open(os.path.join(GOLDEN, name + ".json"), encoding="ascii") as f:
        data = json.load(f)
    for part in ("files", "locked"):
        data[part] = {os.fsencode(p): row for p, row in data[part].items()}
        for row in data[part].values():
            if "target" in row:
                row["target"] = os.fsencode(row["target"])
            if part == "files":
                row["xattrs"] = {k: bytes.fromhex(v) for k, v in row.get("xattrs", {}).items()}
    return data


def keys_of(data):
    return [os.path.join(GOLDEN, key["file"]) for key in data["keys"]]


def patch(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)
