#!/usr/bin/env python3
"""Passphrases and protectors, used wrongly: nothing is lost by it, nothing goes astray, and one is told.

Not here: what works (test_protect.py, test_passphrase.py); hostile metadata (tests/unit/test_protect.c, fuzz/).
Read more: doc/inlay.1, "PASSPHRASES".
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402

CHEAP = ("--argon2-time", "1", "--argon2-memory", "64K")


def volume(*dirs):
    image = tap.fresh("misuse.img")
    cli.good("mkfs", image, "--size", "32M")
    for name in dirs:
        cli.good("mkdir", f"{image}:/{name}")
    return image


def encrypt(image, name, typed, *options):
    return cli.good("encrypt", "--passphrase-fd", "0", *CHEAP, *options, f"{image}:/{name}", stdin=typed.encode())


def rows(image):
    return cli.good("protect", image, "list").out.decode().splitlines()


@tap.test
def which_one():
    """remove and --protector: no name, a name that two have, an id before a name"""
    image = volume("a", "b", "c")
    encrypt(image, "a", "1st\n", "--protector", "one")
    first = rows(image)[0].split()[1]
    cli.good("protect", image, "add", "two", "--passphrase-fd", "0", *CHEAP, "--protector", "one", stdin=b"1st\n2nd\n")
    before = rows(image)
    cli.bad(cli.FAILED, "protect", image, "remove", "", says="no protector")
    cli.bad((cli.FAILED, cli.USAGE), "protect", image, "remove", "three", says="three")
    tap.equal(rows(image), before)
    cli.good("protect", image, "remove", first)
    tap.equal([first in line for line in rows(image)], [False] * 2)
    cli.bad(cli.FAILED, "protect", image, "remove", "two", says="only protector")


@tap.test
def other_kind():
    """A passphrase for what a key file opens, and the other way round: refused, and all stays as it was"""
    image, raw = volume("a", "b", "c"), tap.fresh("raw")
    with open(raw, "wb") as f:
        f.write(os.urandom(32))
    cli.good("encrypt", f"{image}:/a", "--protector-key", raw, "--protector", "file")
    encrypt(image, "b", "words\n", "--protector", "words")
    before = rows(image)
    cli.bad(cli.USAGE, "encrypt", f"{image}:/c", "--passphrase-fd", "0", "--protector", "file", stdin=b"x\n",
            says="--protector-key")
    cli.bad(cli.USAGE, "encrypt", f"{image}:/c", "--protector-key", raw, "--protector", "words", says="--passphrase")
    tap.equal(rows(image), before)


@tap.test
def costs():
    """More passes cost more, not less: the memory stays"""
    image = volume("a")
    encrypt(image, "a", "words\n", "--protector", "me")
    tap.contains(rows(image)[0], "1 pass,", "64 KiB")
    cli.good("protect", image, "change", "me", "--passphrase-fd", "0", "--argon2-time", "3", stdin=b"words\nothers\n")
    tap.contains(rows(image)[0], "3 passes,", "64 KiB")
    other = volume("a")
    cli.good("encrypt", f"{other}:/a", "--passphrase-fd", "0", "--argon2-time", "2", stdin=b"words\n")
    memory = int(rows(other)[0].split(" KiB")[0].split()[-1])
    assert memory >= 8192, rows(other)


@tap.test
def names_that_steer():
    """A name with a line feed, in the volume of somebody else: whoever asks for us is asked one line"""
    tap.requires("setsid")
    image = volume("a")
    encrypt(image, "a", "words\n", "--protector", "evil!Socket=there")
    with open(image, "r+b") as f:
        data = f.read()
        assert b"evil!Socket" in data
        f.seek(0)
        f.write(data.replace(b"evil!Socket", b"evil\nSocket"))
    folder = tap.fresh_dir("bin")
    asker, seen = os.path.join(folder, "systemd-ask-password"), os.path.join(folder, "seen")
    with open(asker, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\nfor last; do :; done\nprintf "%s" "$last" > {seen}\necho words\n')
    os.chmod(asker, 0o755)
    done = subprocess.run(["setsid", "-w", cli.command(), "ls", image + ":/a", "--passphrase"], stdin=subprocess.DEVNULL,
                          capture_output=True, check=False, env={**os.environ, "PATH": folder + ":" + os.environ["PATH"]})
    tap.equal((done.returncode, done.stderr), (0, b""))
    with open(seen, "rb") as f:
        said = f.read()
    tap.contains(said.decode(), "evil", "Socket=there")
    assert b"\n" not in said, said


@tap.test
def unseen_code():
    """A recovery code that could not be shown: there is none"""
    image = volume("a")
    encrypt(image, "a", "words\n", "--protector", "me")
    before = rows(image)
    argv = [cli.command(), "protect", image, "recovery", "--passphrase-fd", "0", *CHEAP]
    with open("/dev/full", "wb") as full:
        tap.equal(subprocess.run(argv, input=b"words\n", stdout=full, stderr=subprocess.DEVNULL, check=False).returncode, 1)
    tap.equal(rows(image), before)
    reader, writer = os.pipe()
    os.close(reader)
    tap.equal(subprocess.run(argv, input=b"words\n", stdout=writer, stderr=subprocess.DEVNULL, check=False).returncode, 1)
    os.close(writer)
    tap.equal(rows(image), before)


@tap.test
def lines():
    """The end of a line as on other systems; bytes that the tool fscrypt takes as keystrokes are not in new passphrases"""
    image = volume("a", "b")
    encrypt(image, "a", "words\r\n", "--protector", "me")
    cli.good("put", __file__, f"{image}:/a/x", "--passphrase-fd", "0", stdin=b"words\n")
    for byte in (b"\x03", b"\x04", b"\x08", b"\x7f", b"x\ry"):
        cli.bad(cli.NO_KEY, "encrypt", f"{image}:/b", "--passphrase-fd", "0", *CHEAP, "--protector", "other",
                stdin=b"a" + byte + b"b\n", says="control character")
    tap.equal(len(rows(image)), 2)


tap.main()
