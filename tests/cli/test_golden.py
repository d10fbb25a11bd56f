#!/usr/bin/env python3
"""Volumes that a real kernel wrote, with manifests of what it showed: read by the command, locked and unlocked.

Not here: how they were made (tests/golden/make-golden.py); trees of a thousand files (tests/kernel/test_matrix.py).
Read more: tests/golden/README.md.
"""
import hashlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

VOLUMES = ("demo", "v2-4k", "lblk64-1k", "lblk32-4k", "v1", "essiv", "unclean")
LISTED = ("type", "size", "mode", "uid", "gid", "mtime", "nlink", "ino", "target")


def exported_fields():
    """What an export can keep: owners only as root."""
    fields = ["type", "mode", "mtime", "xattrs", "size", "sha256", "target"]
    return fields + ["uid", "gid", "rdev"] if os.geteuid() == 0 else fields


MODES = {1: "AES-256-XTS", 4: "AES-256-CBC-CTS", 5: "AES-128-CBC-ESSIV", 6: "AES-128-CBC-CTS"}
IV_METHODS = {0: "per-file", 8: "IV_INO_LBLK_64", 16: "IV_INO_LBLK_32"}


def key_name(row):
    return row["key_identifier"] if row["version"] == 2 else row["key_descriptor"]


def keys_for(name):
    return cli.keys_of(cli.manifest(name))


def export(name, spec):
    tap.requires("xattrs")
    image, data, dest = cli.golden(name), cli.manifest(name), tap.fresh("dest")
    before = cli.checksum(image)
    result = cli.run("get", "--counters", spec.format(image), dest, keys=cli.keys_of(data))
    files = data["files"]
    if os.geteuid() != 0:
        files = {p: row for p, row in files.items() if row["type"] not in ("char", "block")}
        assert result.code in (0, cli.FAILED, cli.PARTLY), result
    else:
        tap.equal(result.code, 0, repr(result))
    got = as_if_readable(dest, files)
    trees.check(files, got, fields=exported_fields(), grain=1024)
    tap.equal(cli.checksum(image), before, "checksum of the image")
    subprocess.run(["rm", "-rf", dest], check=True)
    return cli.counters(result)


def as_if_readable(dest, files):
    """A snapshot, also of files whose mode lets nobody read them: their owner may, once their mode has been looked at."""
    if os.geteuid() == 0:
        return trees.snapshot(dest)
    modes = {}
    for path in files:
        where = os.path.join(os.fsencode(dest), path)
        if os.path.lexists(where) and not os.path.islink(where) and not os.access(where, os.R_OK):
            modes[path] = trees.look_at(where, data=False)["mode"]
            os.chmod(where, 0o700)
    tree = trees.snapshot(dest)
    for path, mode in modes.items():
        tree[path]["mode"] = mode
    # Somebody else's set-user-ID bit is not for the one who exports.
    for row in list(files.values()) + list(tree.values()):
        row["mode"] &= 0o1777
    return tree


def with_software(name):
    counters = export(name, "{}")
    tap.equal(counters["engine_units_decrypted"], 0)
    assert counters["fallback_units_decrypted"] > 0, counters


def with_engine(name, slots):
    counters = export(name, "engine({}, slots=%d)" % slots)
    tap.equal(counters["fallback_units_decrypted"], 0)
    assert counters["engine_units_decrypted"] > 0, counters
    tap.equal(counters["slot_programs"] > 0, slots > 0, "slots were programmed")


def compare_listing(got, wanted, fields):
    tap.equal(sorted(wanted.keys() ^ got.keys())[:5], [], "paths that only one of the two has")
    for path, row in wanted.items():
        for field in fields:
            if field in row and not (field == "size" and row["type"] == "dir"):
                tap.equal(got[path].get(field), row[field], f"{field} of {path!r}")


def listing_unlocked(name):
    wanted = {p: row for p, row in cli.manifest(name)["files"].items() if p != b"."}
    compare_listing(cli.listing(cli.golden(name), keys=keys_for(name)), wanted, LISTED)


def listing_locked(name):
    data = cli.manifest(name)
    by_ino = {row["ino"]: row for row in data["files"].values()}
    wanted = {}
    for path, row in data["locked"].items():
        if path != b".":
            wanted[path] = {k: v for k, v in by_ino[row["ino"]].items() if k in ("mode", "uid", "gid", "mtime", "nlink")} | row
    compare_listing(cli.listing(cli.golden(name)), wanted, LISTED)


def plain_ls(name):
    """Names byte for byte, sorted by bytes, one per line, in every directory; through no-key names too."""
    data = cli.manifest(name)
    for part, keys in (("files", cli.keys_of(data)), ("locked", ())):
        for where, row in data[part].items():
            if row["type"] != "dir":
                continue
            base = b"" if where == b"." else where
            names = sorted(os.path.basename(p) for p in data[part] if p != b"." and os.path.dirname(p) == base)
            result = cli.good("ls", "-a", os.fsencode(cli.golden(name)) + b":/" + base, keys=keys)
            tap.equal(result.out, b"".join(n + b"\n" for n in names), f"{part}: {where!r}")


def contents(name):
    """cat of files by their real paths."""
    data, image, keys = cli.manifest(name), os.fsencode(cli.golden(name)), keys_for(name)
    files = [p for p, row in data["files"].items() if row["type"] == "file" and 0 < row["size"] < 1 << 22]
    for path in files[:: max(1, len(files) // 40)]:
        result = cli.good("cat", image + b":/" + path, keys=keys)
        tap.equal(hashlib.sha256(result.out).hexdigest(), data["files"][path]["sha256"], repr(path))


def stat_rows(name):
    """stat: policy, nonce-bearing inodes, which key is needed and whether it is there."""
    data, image = cli.manifest(name), cli.golden(name)
    for policy in data["policies"]:
        for keys, given in ((keys_for(name), True), ((), False)):
            row = cli.stat(image + ":" + policy["path"], keys=keys)
            tap.equal(row["encrypted"], True)
            tap.equal(row["inode"], data["files"][policy["path"][1:].encode()]["ino"])
            crypt = row["encryption"]
            tap.equal(key_name(crypt), policy["key"])
            tap.equal((crypt["version"], crypt["flags"], crypt["log2_data_unit_size"], crypt["padding"]),
                      (policy["version"], policy["flags"], policy["log2_unit"], 4 << (policy["flags"] & 3)))
            tap.equal((crypt["contents_mode"], crypt["filenames_mode"]), (MODES[policy["contents"]], MODES[policy["names"]]))
            tap.equal(crypt["iv_method"], IV_METHODS[policy["flags"] & ~3])
            tap.equal((crypt["key_given"], crypt["state"]), (given, "unlocked" if given else "locked"))
            if name != "unclean":
                context = ext4.Volume(image).inode(row["inode"]).context_at()[0]
                tap.equal(crypt["nonce"], context[-16:].hex())
            text = cli.good("stat", image + ":" + policy["path"], keys=keys).out
            tap.contains(text, policy["key"].encode())


def info(name):
    """info: every policy in use, how many inodes have it, whether its key was given; the journal"""
    data, image = cli.manifest(name), cli.golden(name)
    for keys in (keys_for(name), ()):
        got = cli.good("info", "--json", image, keys=keys).json()
        policies = {(key_name(p), p["flags"], p["log2_data_unit_size"]): p for p in got["policies"]}
        tap.equal(set(policies), {(p["key"], p["flags"], p["log2_unit"]) for p in data["policies"]})
        for policy in data["policies"]:
            tree = policy["path"][1:].encode()
            inodes = {row["ino"] for p, row in data["files"].items()
                      if (p == tree or p.startswith(tree + b"/")) and row["type"] in ("file", "dir", "symlink")}
            row = policies[policy["key"], policy["flags"], policy["log2_unit"]]
            tap.equal(row["inodes"], len(inodes), f"inodes of {policy['path']}")
            tap.equal(row["key_given"], bool(keys))
        tap.equal(got["journal_replayed"], name == "unclean")
        text = cli.good("info", image, keys=keys).out
        tap.contains(text, b"encrypt", *(p["key"].encode() for p in data["policies"]))
        if name == "unclean":
            tap.contains(text.lower(), b"journal")


def whole_tree(name):
    """tree: every name is there, one line each and perhaps a sum"""
    data = cli.manifest(name)
    for part, keys in (("files", cli.keys_of(data)), ("locked", ())):
        out = cli.good("tree", "-a", cli.golden(name), keys=keys).out
        for path in data[part]:
            if path != b".":
                tap.contains(out, os.path.basename(path))
        assert len(out.splitlines()) >= len(data[part]) - 1


KINDS = ((with_software, "get, software"), (lambda n: with_engine(n, 1), "get, an engine with one slot"),
         (lambda n: with_engine(n, 0), "get, an engine without slots"), (listing_unlocked, "ls -laR with the keys"),
         (listing_locked, "ls -laR without a key"), (plain_ls, "ls of every directory, with the keys and without"),
         (contents, "cat"), (stat_rows, "stat of the policies"), (info, "info"), (whole_tree, "tree"))
for volume in VOLUMES:
    for check, title in KINDS:
        tap.add(f"{volume}: {title}", lambda volume=volume, check=check: check(volume))


@tap.test
def demo_checksums():
    """demo: the file for sha256sum -c fits an export"""
    dest = tap.fresh("dest")
    cli.good("get", cli.golden("demo"), dest, keys=keys_for("demo"))
    done = subprocess.run(["sha256sum", "--strict", "-c", os.path.join(os.path.abspath(cli.GOLDEN), "demo.sha256")], cwd=dest,
                          capture_output=True, check=False)
    tap.equal(done.returncode, 0, repr(done.stdout))
    assert len(done.stdout.splitlines()) > 10


@tap.test
def journal_is_needed():
    """unclean: what stands only in the journal is seen, what it revoked is not brought back"""
    keys = keys_for("unclean")
    out = cli.good("ls", cli.golden("unclean") + ":/locked", keys=keys).out.split(b"\n")
    for name in (b"new.txt", b"renamed.txt", b"subdir", b"reuses-0"):
        assert name in out, (name, out)
    for name in (b"deleted.txt", b"before.txt", b"doomed-0"):
        assert name not in out, (name, out)


tap.main()
