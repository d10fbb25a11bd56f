#!/usr/bin/env python3
"""--ciphers and info --cpu: who computes, the same bytes, misuse; nothing is opened unless the self-test has passed.

Not here: the self-test itself, and the ciphers (tests/unit/).
Read more: doc/inlay.1, "CIPHERS".
"""
import hashlib
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402

INCLUDE = os.path.join(cli.HERE, "..", "..", "include")

# The library cannot be made to compute wrong answers from outside, but the command can be told that it does.
LIAR = r"""
#include <errno.h>
#include <inlay/cipher.h>
int inl_cipher_self_test(const char *impl, struct inl_diag *diag)
{
	return inl_diag_set(diag, -ENOTRECOVERABLE, "%s counts on its fingers", impl ? impl : "the best");
}
"""


# How many bytes OpenSSL has encrypted and decrypted, at the end on standard error.
COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <openssl/evp.h>
static unsigned long total;
int EVP_CipherUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *in, int inl)
{
	static __typeof__(EVP_CipherUpdate) *real;
	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "EVP_CipherUpdate");
	total += (unsigned)inl;
	return real(ctx, out, outl, in, inl);
}
__attribute__((destructor)) static void tell(void)
{
	fprintf(stderr, "openssl %lu\n", total);
}
"""
VOLUMES = ("demo", "v2-4k", "lblk64-1k", "lblk32-4k", "v1", "essiv", "unclean")
READERS = ("info", "ls", "tree", "stat", "cat")


def preload(source):
    """The environment in which the command runs with functions of these in front of those of its libraries."""
    tap.requires("gcc")
    library = tap.fresh("preload.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-I", INCLUDE, "-x", "c", "-", "-o", library],
                   input=source.encode(), check=True)
    return {**os.environ, "LD_PRELOAD": library}


@tap.test
def wrong_answers():
    """A self-test that fails: exit 1, and nothing is opened, read or written"""
    env, image, dest = preload(LIAR), cli.golden("v2-4k"), tap.fresh("dest")
    key = cli.golden_key("v2-4k")
    for args in (("info", image), ("ls", image), ("tree", image), ("stat", image + ":/"), ("cat", image + ":/nowhere"),
                 ("get", image, dest), ("device", image), ("bench", "block", "--key=raw", "ram(1M)"),
                 ("info", "/nonexistent"), ("device", "/nonexistent"), ("ls", "--key", "/nonexistent", image),
                 ("ls", "--key", key, image)):
        result = cli.bad(cli.FAILED, *args, says="the best counts on its fingers", env=env)
        tap.equal(result.out, b"", repr(args))
    assert not os.path.exists(dest)
    cli.good("device", env=env)
    cli.good("help", env=env)


def bench(*options):
    return cli.good("bench", "block", "--json", "--count=10", *options).json()["ciphers"]


def runnable():
    """The implementations of AES-256-XTS that this machine runs, best first: those that `bench block` takes."""
    refusal = cli.bad(cli.USAGE, "bench", "block", "--ciphers=abacus", "ram(1M)", says=("--ciphers", "abacus"))
    words = refusal.err.decode().strip().partition("expected ")[2].replace(" or ", ", ").split(", ")
    tap.equal((words[0], words[-1]), ("best", "openssl"))
    return words[1:]


def by_openssl(env, *args, **how):
    """How many bytes OpenSSL encrypted or decrypted."""
    result = cli.run(*args, env=env, **how)
    tap.equal(result.code, 0, repr(result))
    return int(result.err.split()[-1])


@tap.test
def served():
    """bench block: any implementation that runs here can be chosen, and is told, of the fallback and of engines"""
    names = runnable()
    for spec in ("ram(1M)", "engine(ram(1M), slots=1)", "linear(ram(1M), engine(ram(1M)))"):
        for name in names:
            tap.equal(bench("--key=raw", "--ciphers", name, spec), name, spec)
        tap.equal(bench("--key=raw", "--ciphers=best", spec), names[0], spec)
        tap.equal(bench("--key=raw", spec), names[0], spec)
    tap.equal(bench("ram(1M)"), None, "without a key")
    text = cli.good("bench", "block", "--key=raw", "--count=10", "--ciphers=openssl", "ram(1M)").out.decode()
    tap.contains(text, "by the fallback (openssl)\n")


@tap.test
def who_computes():
    """--ciphers has an effect: what OpenSSL is asked to do, counted in front of it"""
    env, image, key = preload(COUNTER), cli.golden("v2-4k"), cli.keys_of(cli.manifest("v2-4k"))
    names = runnable()
    for spec in ("ram(1M)", "engine(ram(1M))"):
        start = by_openssl(env, "bench", "block", "--count=1", spec)
        for name in names:
            done = by_openssl(env, "bench", "block", "--key=raw", "--count=500", "--ciphers", name, spec)
            assert done >= 500 * 4096 if name == "openssl" else done <= start + 100000, (name, done)
    path, size = image + ":/pad32/fragmented", 57351
    ours = by_openssl(env, "cat", path, keys=key)
    theirs = by_openssl(env, "cat", "--ciphers=openssl", path, keys=key)
    if names[0] != "openssl":
        assert theirs >= ours + size, (ours, theirs, size)


def contents(name, *options):
    """{path: SHA-256} of all files, by one `cat`."""
    data = cli.manifest(name)
    files = [(p, row) for p, row in data["files"].items() if row["type"] == "file" and row["size"] < 1 << 22]
    image = os.fsencode(cli.golden(name))
    out = cli.good("cat", *options, *(image + b":/" + p for p, _ in files), keys=cli.keys_of(data)).out
    found, at = {}, 0
    for path, row in files:
        found[path] = hashlib.sha256(out[at:at + row["size"]]).hexdigest()
        at += row["size"]
    tap.equal(at, len(out), "bytes")
    tap.equal(found, {p: row["sha256"] for p, row in files})
    return found


def same_bytes(name):
    tap.equal(contents(name, "--ciphers=openssl"), contents(name, "--ciphers=best"))
    data = cli.manifest(name)
    for args in (("ls", "-laR", "--json"), ("tree", "-a"), ("info", "--json")):
        best, openssl = (cli.good(*args, "--ciphers", c, cli.golden(name), keys=cli.keys_of(data)).out
                         for c in ("best", "openssl"))
        tap.equal(openssl, best, repr(args))


for volume in VOLUMES:
    tap.add(f"{volume}: contents and names are the same with OpenSSL", lambda volume=volume: same_bytes(volume))


@tap.test
def export():
    """get --ciphers=openssl: a second run without finds all of it there already"""
    image, keys, dest = cli.golden("demo"), cli.keys_of(cli.manifest("demo")), tap.fresh("dest")
    cli.good("get", "--ciphers=openssl", image, dest, keys=keys)
    before = {p: os.stat(os.path.join(b, p)).st_ino for b, _, files in os.walk(dest) for p in files}
    cli.good("get", image, dest, keys=keys)
    tap.equal({p: os.stat(os.path.join(b, p)).st_ino for b, _, files in os.walk(dest) for p in files}, before)


@tap.test
def misuse():
    """--ciphers with a name that is none: exit 2, with those there are, before anything is opened"""
    dest = tap.fresh("dest")
    for name in ("abacus", "", "BEST", "portable", "openssl "):
        for verb in READERS:
            cli.bad(cli.USAGE, verb, "--ciphers", name, "/nonexistent:/x" if verb != "info" else "/nonexistent",
                    says=("--ciphers", f"'{name}'", "best or openssl"))
        cli.bad(cli.USAGE, "get", "--ciphers", name, cli.golden("demo"), dest, says=("--ciphers", "best or openssl"))
    cli.bad(cli.USAGE, "bench", "block", "--ciphers=abacus", "/nonexistent", says=("--ciphers", "best, ", "openssl"))
    cli.bad(cli.USAGE, "bench", "block", "ram(1M)", "--ciphers", says="must follow")
    for args in (("device", "--ciphers=best", "ram(1M)"), ("keyid", "--ciphers=best")):
        cli.bad(cli.USAGE, *args, says="no such option")
    assert not os.path.exists(dest)


# What /proc/cpuinfo must have for each implementation of AES-XTS, by architecture; None: nothing.
NEEDS = {"x86_64": {"vaes-avx512": "aes vaes vpclmulqdq avx512f avx512bw avx512dq avx512vl", "vaes-avx2": "aes vaes vpclmulqdq avx2",
                    "aesni": "aes sse4_1", "portable": ""},
         "aarch64": {"armv8": "aes", "portable": ""}}
IN_CPUINFO = {"avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "vaes": {"vaes", "vpclmulqdq"}}


def cpu_flags():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next(set(line.partition(":")[2].split()) for line in f if line.startswith(("flags", "Features")))


def cpu(*options, **how):
    return cli.good("info", "--cpu", "--json", *options, **how).json()


@tap.test
def info_cpu():
    """info --cpu: every implementation, best first; which is used, and what the CPU lacks, as /proc/cpuinfo has it"""
    needs, flags, got = NEEDS.get(os.uname().machine, {"portable": ""}), cpu_flags(), cpu()
    ciphers = {c["name"]: c for c in got["ciphers"]}
    for mode in ("AES-256-XTS", "AES-128-XTS"):
        impls = ciphers[mode]["implementations"]
        tap.equal([i["name"] for i in impls], [*needs, "openssl"])
        for impl in impls:
            lacking = set(needs.get(impl["name"], "").split()) - flags
            tap.equal(bool(impl["needs"]), bool(lacking), f"{impl}, {lacking}")
            assert not lacking or IN_CPUINFO.get(impl["needs"], {impl["needs"]}) & lacking, (impl, lacking)
            tap.equal(impl["self_test"], None if lacking else "passed", impl["name"])
        tap.equal([i["name"] for i in impls if i["used"]], [i["name"] for i in impls if not i["needs"]][:1])
    for mode in ("AES-128-CBC-ESSIV", "AES-256-CBC-CTS", "AES-128-CBC-CTS"):
        assert ciphers[mode]["available"] and ciphers[mode]["implementations"][-1]["name"] == "openssl", ciphers[mode]
    for cipher in got["ciphers"]:
        assert set(cipher) == {"name", "available", "implementations"}, cipher
        tap.equal(sum(i["used"] for i in cipher["implementations"]), int(cipher["available"]), cipher["name"])
        tap.equal(bool(cipher["implementations"]), cipher["available"], cipher["name"])
    tap.equal([i["name"] for i in ciphers["AES-256-XTS"]["implementations"] if not i["needs"]], runnable())
    assert got["self_test_passed"] and 0 < got["self_test_us"] < 5000000, got


@tap.test
def info_cpu_text():
    """info --cpu, text: the same"""
    got, lines = cpu(), cli.good("info", "--cpu").out.decode().splitlines()
    wanted = []
    for cipher in (c for c in got["ciphers"] if c["available"]):
        wanted.append(cipher["name"])
        for impl in cipher["implementations"]:
            state = f"needs {impl['needs']}" if impl["needs"] else ("used" if impl["used"] else "available") + " self-test passed"
            wanted.append(f"{impl['name']} {state}")
    missing = [c["name"] for c in got["ciphers"] if not c["available"]]
    if missing:
        wanted.append("Not available yet: " + ", ".join(missing))
    tap.equal([" ".join(line.split()) for line in lines[:-1]], wanted)
    assert re.fullmatch(r"Self-tests at every start: passed, \d+ us \(and OpenSSL gets ready in \d+ us\)", lines[-1]), lines[-1]


@tap.test
def info_cpu_choice():
    """info --cpu --ciphers=openssl: it is what is used"""
    for cipher in cpu("--ciphers=openssl")["ciphers"]:
        tap.equal([i["name"] for i in cipher["implementations"] if i["used"]], ["openssl"] * cipher["available"])


@tap.test
def info_cpu_failed():
    """info --cpu where a self-test fails: all is told, and the exit status is 1"""
    env = preload(LIAR)
    result = cli.bad(cli.FAILED, "info", "--cpu", "--json", says="the best counts on its fingers", env=env)
    got = result.json()
    assert not got["self_test_passed"] and len(got["ciphers"]) > 5, got
    for impl in (i for c in got["ciphers"] for i in c["implementations"] if not i["needs"]):
        tap.equal((impl["self_test"], impl["why"]), ("failed", impl["name"] + " counts on its fingers"))
    tap.contains(cli.bad(cli.FAILED, "info", "--cpu", env=env).out, b"self-test FAILED: openssl counts", b"start: FAILED")


@tap.test
def info_cpu_misuse():
    """info: an image or --cpu, not both and not neither"""
    cli.bad(cli.USAGE, "info", "--cpu", "disk.img", says=("disk.img", "too many"))
    cli.bad(cli.USAGE, "info", says=("too few", "IMAGE | --cpu"))
    cli.bad(cli.USAGE, "info", "--cpu", "--ciphers=abacus", says=("--ciphers", "abacus"))
    cli.bad(cli.USAGE, "info", "--cpu=1", says="takes no value")
    cli.bad(cli.USAGE, "ls", "--cpu", "disk.img", says="no such option")


tap.main()
