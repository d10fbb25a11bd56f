"""The tool fscrypt on volumes that the kernel has mounted, with a configuration of its own.

Not here: what is expected of it (the tests); the kernel's own calls (koracle.py).
Read more: fscrypt(8); github.com/google/fscrypt.

It reads /etc/fscrypt.conf and nothing else, which belongs to the machine: so each call has a copy of /etc in a mount
namespace of its own.
"""
import hashlib
import hmac
import json
import os
import shutil
import subprocess

import tap

_etc = {}


def _etc_with(config):
    """A copy of /etc with this configuration."""
    if config not in _etc:
        path = os.path.join(tap.fresh_dir("etc"), "etc")
        shutil.copytree("/etc", path, symlinks=True, ignore_dangling_symlinks=True)
        with open(os.path.join(path, "fscrypt.conf"), "w", encoding="ascii") as f:
            f.write(config)
        _etc[config] = path
    return _etc[config]


def config(memory=64, time=1, parallelism=2, version=2, contents="AES_256_XTS", filenames="AES_256_CTS", padding=32):
    return json.dumps({
        "source": "custom_passphrase",
        "hash_costs": {"time": str(time), "memory": str(memory), "parallelism": str(parallelism)},
        "options": {"padding": str(padding), "contents": contents, "filenames": filenames, "policy_version": str(version)},
        "use_fs_keyring_for_v1_policies": True, "allow_cross_user_metadata": False})


def try_run(*args, stdin="", conf=None):
    """(exit code, output of both kinds)"""
    script = 'mount --bind "$0" /etc && exec fscrypt "$@"'
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, _etc_with(conf or config()), *args],
                          input=stdin.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60)
    return done.returncode, done.stdout.decode()


def run(*args, stdin="", conf=None):
    code, said = try_run(*args, stdin=stdin, conf=conf)
    if code:
        tap.fail(f"fscrypt {args}: exit {code}: {said}")
    return said


def setup(root):
    run("setup", root, "--quiet")


def encrypt(path, *args, stdin="", conf=None):
    """Make a directory and encrypt it."""
    os.mkdir(path)
    return run("encrypt", path, "--quiet", *args, stdin=stdin, conf=conf)


def policy_of(path):
    for line in run("status", path).splitlines():
        if line.startswith("Policy:"):
            return line.split()[1]
    return tap.fail("no policy: " + path)


def protectors_of(root):
    """{name: id} of those that have names."""
    found = {}
    for line in run("status", root).splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and len(words[0]) == 16 and '"' in words[2]:
            found[words[2].split('"')[1]] = words[0]
    return found


# ---- what is in the files: slowly, and with the program openssl ----------------------------------------------------------


def fields(data):
    """[(number, value)] of a message of protobuf: integers and bytes."""
    found, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            found.append((tag >> 3, data[at:at + size]))
            at += size
        else:
            found.append((tag >> 3, varint()))
    return found


def unwrap(by, wrapped):
    """The key in a WrappedKeyData."""
    iv, sealed, mac = (dict(fields(wrapped))[i] for i in (1, 2, 3))

    def one(key, text):
        return hmac.new(key, text, hashlib.sha256).digest()

    first = one(one(bytes(32), by), b"\1")
    second = one(one(bytes(32), by), first + b"\2")
    tap.equal(one(second, iv + sealed), mac, "the HMAC")
    return subprocess.run(["openssl", "enc", "-d", "-aes-256-ctr", "-K", first.hex(), "-iv", iv.hex()], input=sealed,
                          capture_output=True, check=True).stdout


def keys_behind(root, raw):
    """(protector key, policy key) behind a key file of the only policy."""
    base = f"{root}/.fscrypt"
    with open(f"{base}/policies/{os.listdir(base + '/policies')[0]}", "rb") as f:
        policy = fields(f.read())
    for name in os.listdir(base + "/protectors"):
        with open(f"{base}/protectors/{name}", "rb") as f:
            protector = dict(fields(f.read()))
        if protector[2] == 3:
            key = unwrap(raw, protector[7])
            wrapped = next(dict(fields(v))[2] for n, v in policy if n == 3 and dict(fields(v))[1] == name.encode())
            return key, unwrap(key, wrapped)
    return tap.fail("no key file")
