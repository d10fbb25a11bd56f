#!/usr/bin/env python3
"""Ciphers of the command: nothing is opened unless their self-test has passed.

Not here: the self-test itself, and the ciphers (tests/unit/).
Read more: doc/inlay.1, "CIPHERS".
"""
import os
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


tap.main()
