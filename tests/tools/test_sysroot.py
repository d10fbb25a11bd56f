#!/usr/bin/env python3
"""tools/sysroot-arm64, with a make-believe apt: what it makes, when, and what is left when it cannot.

Not here: real packages (each arm64 job of tools/run-tests stands on them).
Read more: HACKING.md, "Tests".
"""
import glob
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

SCRIPT = os.path.join(HERE, "..", "..", "tools", "sysroot-arm64")
REAL = ["sh", "cat", "dirname", "find", "grep", "head", "ln", "mkdir", "mktemp", "mv", "readlink", "rm", "sleep",
        "touch"]
# Fetches an empty file for each package.
APT = """echo "$*" >>LOG
cat "$2" >CONF
case "$4" in
update) ;;
download) shift 4; for p; do touch "$p.deb"; done ;;
*) exit 2 ;;
esac"""
# What a library and its -dev package are to the linker.
DPKG = """[ "$1" = -x ] || exit 2
mkdir -p "$3/lib" "$3/usr/lib"
case "$2" in
*/libext2fs2.deb) touch "$3/lib/libext2fs.so.2" ;;
*/libext2fs-dev.deb) ln -s /lib/libext2fs.so.2 "$3/usr/lib/libext2fs.so" ;;
esac"""


class Place:
    """A tree with the script, and a PATH with these programs and a few real ones."""

    def __init__(self, **programs):
        self.top, self.bin = tap.fresh_dir("tree"), tap.fresh_dir("bin")
        self.root = os.path.join(self.top, "build-arm64-sysroot")
        self.log, self.conf = os.path.join(self.bin, "log"), os.path.join(self.bin, "conf")
        os.mkdir(os.path.join(self.top, "tools"))
        shutil.copy(SCRIPT, os.path.join(self.top, "tools"))
        for name in REAL:
            os.symlink(shutil.which(name), os.path.join(self.bin, name))
        for name in ("aarch64-linux-gnu-gcc", "qemu-aarch64"):
            self.program(name, "exit 2")
        self.program("apt-get", programs.get("apt", APT))
        self.program("dpkg-deb", programs.get("dpkg", DPKG))

    def program(self, name, text):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\n" + text.replace("LOG", self.log).replace("CONF", self.conf) + "\n")
        os.chmod(path, 0o755)

    def start(self):
        return subprocess.Popen([os.path.join(self.top, "tools", "sysroot-arm64")], env={"PATH": self.bin},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True)

    def run(self):
        child = self.start()
        text = child.communicate()[0]
        return child.returncode, text

    def asked(self):
        """How often apt-get was called."""
        return len(open(self.log, encoding="ascii").readlines()) if os.path.exists(self.log) else 0

    def folders(self):
        return sorted(os.path.basename(p) for p in glob.glob(self.root + "*"))


@tap.test
def once():
    """Made once, whole, with nothing beside it"""
    place = Place()
    status, text = place.run()
    tap.equal(status, 0, text)
    tap.equal((place.asked(), place.folders()), (2, ["build-arm64-sysroot"]))
    tap.contains(open(os.path.join(place.root, "sysroot.ini"), encoding="ascii").read(), f"sysroot = '{place.root}'")
    tap.equal(place.run(), (0, ""))
    tap.equal(place.asked(), 2)


@tap.test
def state_of_its_own():
    """apt-get is told to keep its state in the folder that goes away"""
    place = Place()
    place.run()
    conf = open(place.conf, encoding="ascii").read()
    for name in ("Dir::State", "Dir::State::status", "Dir::Cache"):
        tap.contains(conf, f'{name} "{place.root}.')
    tap.contains(conf, 'APT::Architectures { "arm64"; };')


@tap.test
def links():
    """Links to absolute paths are made to stay inside"""
    place = Place()
    place.run()
    link = os.path.join(place.root, "usr", "lib", "libext2fs.so")
    tap.equal(os.path.realpath(link), os.path.join(os.path.realpath(place.root), "lib", "libext2fs.so.2"))
    tap.equal(os.readlink(link), "../../lib/libext2fs.so.2")


@tap.test
def other_packages():
    """Made again when it is not what it would be made from"""
    place = Place()
    place.run()
    with open(os.path.join(place.root, "sysroot.ini"), "a", encoding="ascii") as f:
        f.write("# another\n")
    tap.equal(place.run()[0], 0)
    tap.equal(place.asked(), 4)


@tap.test
def one_source_fails():
    """A source that cannot be reached does no harm if the packages come"""
    place = Place(apt=APT.replace("update) ;;", "update) exit 100 ;;"))
    tap.equal(place.run()[0], 0)
    tap.equal(place.folders(), ["build-arm64-sysroot"])


@tap.test
def no_network():
    """A download that fails: apt's words, exit status 1, nothing left; made the next time"""
    place = Place(apt='echo "E: no network" >&2; exit 100')
    status, text = place.run()
    tap.equal(status, 1, text)
    tap.contains(text, "E: no network", "could not download")
    tap.equal(place.folders(), [])
    place.program("apt-get", APT)
    tap.equal(place.run()[0], 0)
    tap.equal(place.folders(), ["build-arm64-sysroot"])


@tap.test
def bad_package():
    """A package that cannot be unpacked: its name, exit status 1, nothing left"""
    place = Place(dpkg="exit 2")
    status, text = place.run()
    tap.equal(status, 1, text)
    tap.contains(text, "could not unpack comerr-dev.deb")
    tap.equal(place.folders(), [])


@tap.test
def interrupted():
    """Interrupted in the middle: nothing left"""
    place = Place(apt=APT.replace("update) ;;", "update) sleep 60 ;;"))
    child = place.start()
    end = time.monotonic() + 20
    while not place.asked() and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGTERM)
    child.communicate()
    tap.equal((child.returncode, place.folders()), (1, []))


@tap.test
def nothing_to_build_with():
    """Without a compiler or an emulator nothing is fetched"""
    for name in ("aarch64-linux-gnu-gcc", "qemu-aarch64", "apt-get"):
        place = Place()
        os.unlink(os.path.join(place.bin, name))
        status, text = place.run()
        tap.equal((status, place.asked(), place.folders()), (1, 0, []))
        tap.contains(text, f"no {name} here")


if __name__ == "__main__":
    tap.main()
