#!/usr/bin/env python3
"""What is refused around encryption, and how: each case by the kernel and by Inlay, one by one, with the same errno.

Not here: random operations (test_twin.py); what a policy is on the medium (tests/unit/test_fscrypt.c).
Read more: Linux Documentation/filesystems/fscrypt.rst, "Setting an encryption policy", "Access semantics"; inlay/volume.h;
the lines are those of tests/unit/twin_script.c.

A case is a line, "=", and the result of both. Where they differ it is "LINUX INLAY: why", and what follows does not depend
on it.
"""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402

MIB = 1 << 20
# The keys: 0 and 1 are good for everything, 2 is for v1 policies, 3 and 4 are too short.
KEYS = ("2:3:0:1:64", "2:3:0:2:32", "1:3:0:3:64", "2:3:0:4:16", "1:3:0:5:32")
A, B, V1 = "2:1:4:3:0:0:0", "2:1:4:3:0:0:1", "1:1:4:3:0:0:2"
TOO_SHORT = "Linux looks at the key only when it is used"
CIPHER = "Linux looks for the cipher only when it is used"
NO_NOKEY = "a name that is no no-key name: Inlay says why it cannot be looked for"
CAP_FOWNER = "root need not have added the key; Inlay knows no root"
PATHS = "no path of Inlay leads from an encrypted directory to what is encrypted in another way"


def program():
    build = os.environ.get("INLAY_BUILD") or os.path.dirname(os.path.dirname(os.environ["INLAY"]))
    return os.path.join(build, "tests", "twin")


def script(side, target, lines, options=(), keys=KEYS):
    """The results of lines, in order."""
    args = [program(), "script", side, target, *options, *("policy=" + key for key in keys)]
    done = subprocess.run(args, input="".join(line + "\n" for line in lines).encode(), capture_output=True, check=False,
                          timeout=60)
    results = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(results) != len(lines):
        tap.fail(f"{side}: exit {done.returncode} after {len(results)} of {len(lines)} lines\n" + "\n".join(results[-3:]) +
                 done.stderr.decode(errors="replace")[-1000:])
    return results


def parse(text, names):
    """(line, what Linux says, what Inlay says) for each line of text; {NAME} is filled in."""
    for line in text.strip().splitlines():
        if not line.strip():
            continue
        what, _, result = line.strip().rpartition(" = ")
        results = result.split(":")[0].split()
        yield what.format(**names), results[0], results[-1]


def check(image, text, names=None, options=(), mount=(), sane=True, keys=KEYS):
    """Do it all on two copies."""
    cases = list(parse(text, names or {}))
    lines = [case[0] for case in cases]
    ours, theirs = tap.copy(image), tap.copy(image)
    with tap.mounted(theirs, *mount) as root:
        linux = script("kernel", root, lines, options, keys)
    inlay = script("inlay", ours, lines, options, keys)
    bad = []
    for (line, want, our_want), got, our_got in zip(cases, linux, inlay):
        if (got, our_got) != (want, our_want):
            bad.append(f"{line[:100]}: Linux {got}, Inlay {our_got}; expected {want}, {our_want}")
    if bad:
        tap.fail("\n".join(bad))
    for which in (ours, theirs) if sane else ():
        done = subprocess.run(["e2fsck", "-fn", which], capture_output=True, check=False)
        tap.equal(done.returncode, 0, done.stdout.decode(errors="replace")[-1500:])
    os.unlink(ours)
    os.unlink(theirs)


def volume(*mkfs, setup="", keys=KEYS):
    """An image; setup is done by the kernel and must succeed."""
    tap.requires("root", "loop", "kernel")
    image = tap.fresh("errno.img")
    with open(image, "wb") as f:
        f.truncate(32 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *mkfs, image], check=True, stdout=subprocess.DEVNULL)
    lines = [line.strip().format(**NAMES) for line in setup.strip().splitlines()]
    if lines:
        with tap.mounted(image) as root:
            for line, result in zip(lines, script("kernel", root, lines, keys=keys)):
                tap.equal(result, "0", line)
    return image


NAMES = {"A": A, "B": B, "V1": V1, "n255": "n" * 255, "n256": "n" * 256, "n240": "m" * 240}
FULL = ("-b", "4096", "-O", "encrypt,stable_inodes")


@tap.test
def set_policy():
    """Setting a policy"""
    check(volume(*FULL, setup="""
        mkdir full
        create full/f
        create file
        symlink link 5
        mkfifo fifo
        mkdir e
        set e {A}
        mkdir e/sub
        create e/f"""), """
        mkdir d = 0
        set d 3:1:4:3:0:0:0 = EINVAL
        set file 3:1:4:3:0:0:0 = EINVAL
        set d 2:4:1:3:0:0:0 = EINVAL
        set d 2:1:1:3:0:0:0 = EINVAL
        set d 2:1:6:3:0:0:0 = EINVAL
        set d 2:1:9:3:0:0:0 = EINVAL
        set d 2:5:4:3:0:0:0 = EINVAL
        set d 2:10:10:3:0:0:0 = EINVAL
        set d 2:2:3:3:0:0:0 = EINVAL
        set d 2:0:0:3:0:0:0 = EINVAL
        set d 2:255:4:3:0:0:0 = EINVAL
        set d 1:1:10:3:0:0:2 = EINVAL
        set d 1:7:8:3:0:0:2 = EINVAL
        set d 2:1:4:32:0:0:0 = EINVAL
        set d 2:1:4:131:0:0:0 = EINVAL
        set d 2:1:4:24:0:0:0 = EINVAL
        set d 2:1:4:12:0:0:0 = EINVAL
        set d 2:1:4:20:0:0:0 = EINVAL
        set d 2:1:4:4:0:0:0 = EINVAL
        set d 2:5:6:8:0:0:0 = EINVAL
        set d 2:5:6:16:0:0:0 = EINVAL
        set d 2:9:9:11:0:0:0 = EINVAL
        set d 1:1:4:8:0:0:2 = EINVAL
        set d 1:1:4:16:0:0:2 = EINVAL
        set d 1:1:4:4:0:0:2 = EINVAL
        set d 2:1:4:3:1:0:0 = EINVAL
        set d 2:1:4:3:8:0:0 = EINVAL
        set d 2:1:4:3:13:0:0 = EINVAL
        set d 2:1:4:3:255:0:0 = EINVAL
        set d 2:1:4:8:9:0:0 = EINVAL
        set d 2:1:4:16:9:0:0 = EINVAL
        set d 2:1:4:16:11:0:0 = EINVAL
        set d 2:1:4:3:0:1:0 = EINVAL
        policy d = ENODATA
        list d = 0
        set  {A} = ENOTEMPTY
        set  2:1:1:3:0:0:0 = ENOTEMPTY
        set lost+found {A} = 0
        rmdir lost+found = 0
        mkdir lost+found = 0
        set file {A} = ENOTDIR
        set file 2:1:1:3:0:0:0 = ENOTDIR
        set full {A} = ENOTEMPTY
        set full 2:1:1:3:0:0:0 = ENOTEMPTY
        set full 2:1:4:3:0:0:- = ENOTEMPTY
        set e {A} = 0
        set e {B} = EEXIST
        set e 2:1:4:2:0:0:0 = EEXIST
        set e 2:1:1:3:0:0:0 = EEXIST
        set e 2:1:4:3:0:1:0 = EEXIST
        set e {V1} = EEXIST
        set e 3:1:4:3:0:0:0 = EINVAL
        set e/sub {A} = 0
        set e/sub {B} = EEXIST
        set e/f {A} = 0
        set e/f {B} = EEXIST
        mkdir gone = 0
        hold gone = 0
        rmdir gone = 0
        set ! {A} = ENOENT
        set ! 2:1:1:3:0:0:0 = ENOENT
        set d {A} = 0
        set d {A} = 0
        policy d = 0
        create d/f = 0
        set d {A} = 0
        mkdir d9 = 0
        set d9 2:1:4:0:9:0:1 = 0
        create d9/f = 0
        mkdir d12 = 0
        set d12 2:1:4:8:12:0:1 = 0
        mkdir d32 = 0
        set d32 2:1:4:16:12:0:1 = 0
        mkdir v = 0
        set v {V1} = 0
        mkdir v/d = 0
        set v/d {V1} = 0
        set v/d {A} = EEXIST
        """, NAMES)


@tap.test
def root_directory():
    """The root of a volume"""
    check(volume(*FULL), """
        rmdir lost+found = 0
        set  {A} = EPERM
        set  2:1:1:3:0:0:0 = EINVAL
        policy  = ENODATA
        mkdir lost+found = 0
        """, NAMES)


@tap.test
def keys_and_ciphers():
    """Setting a policy whose key or cipher is not there"""
    check(volume(*FULL), f"""
        mkdir absent = 0
        chown absent 1000 = 0
        user 1000 = 0
        set absent 2:1:4:3:0:0:- = ENOKEY
        user 0 = 0
        mkdir absent2 = 0
        set absent2 2:1:4:3:0:0:- = 0 ENOKEY: {CAP_FOWNER}
        mkdir absent1 = 0
        set absent1 1:1:4:3:0:0:- = 0
        create absent1/f = ENOKEY
        mkdir absent1/d = ENOKEY
        symlink absent1/l 5 = ENOKEY
        mkfifo absent1/p = ENOKEY
        list absent1 = 0
        rmdir absent1 = 0
        mkdir short = 0
        set short 2:1:4:3:0:0:3 = 0 ENOKEY: {TOO_SHORT}
        mkdir short1 = 0
        set short1 1:1:4:3:0:0:4 = 0 ENOKEY: {TOO_SHORT}
        mkdir adiantum = 0
        set adiantum 2:9:9:3:0:0:0 = 0 ENOPKG: {CIPHER}
        mkdir direct = 0
        set direct 2:9:9:7:0:0:0 = 0 ENOPKG: {CIPHER}
        mkdir hctr2 = 0
        set hctr2 2:1:10:3:0:0:0 = 0 ENOPKG: {CIPHER}
        mkdir sm4 = 0
        set sm4 2:7:8:3:0:0:0 = 0 ENOPKG: {CIPHER}
        """, NAMES)


@tap.test
def volumes():
    """Volumes that cannot have a policy"""
    plain = "mkdir d\ncreate f"
    for mkfs in (("-b", "4096"), ("-b", "1024", "-O", "stable_inodes")):
        check(volume(*mkfs, setup=plain, keys=()), """
            set d 2:1:4:3:0:0:- = EOPNOTSUPP
            set d 3:1:4:3:0:0:- = EOPNOTSUPP
            set f 2:1:4:3:0:0:- = EOPNOTSUPP
            """, keys=())
    check(volume("-b", "4096", "-O", "encrypt", setup=plain), """
        set d 2:1:4:8:0:0:0 = EINVAL
        set d 2:1:4:16:0:0:0 = EINVAL
        set d 2:1:4:0:9:0:0 = 0
        """, NAMES)
    check(volume("-b", "1024", "-O", "encrypt,stable_inodes", setup=plain), """
        set d 2:1:4:3:11:0:0 = EINVAL
        set d 2:1:4:8:9:0:0 = EINVAL
        set d 2:1:4:8:10:0:0 = 0
        """, NAMES)


@tap.test
def read_only():
    """A volume that is open for reading only"""
    check(volume(*FULL, setup="mkdir d\ncreate f\nmkdir full\ncreate full/f\nmkdir e\nset e {A}"), """
        set d {A} = EROFS
        set full {A} = EROFS
        set f {A} = EROFS
        set e {A} = EROFS
        set e {B} = EROFS
        create e/f = EROFS
        mkdir e/f = EROFS
        unlink full/f = EROFS
        """, NAMES, ("ro",), ("ro",))


TREES = """
    mkdir p
    create p/f
    mkdir p/d
    mkdir p/empty
    create p/d/f
    symlink p/l 5
    mkfifo p/p
    mkdir a
    set a {A}
    create a/f
    create a/g
    write a/f
    mkdir a/d
    mkdir a/empty
    create a/d/f
    symlink a/l 5
    mkfifo a/p
    create a/{n255}
    create a/{n240}
    mkdir b
    set b {B}
    create b/f
    mkdir b/d
    mkdir b/empty
    create b/d/f
    symlink b/l 5
    mkfifo b/p
    mkdir v
    set v {V1}
    create v/f
    mkdir a4
    set a4 2:1:4:0:0:0:0
    create a4/f
    mkdir a2
    set a2 {A}
    mkdir a2/d"""


@tap.test
def crossing():
    """From one policy to another"""
    check(volume(*FULL, setup=TREES), """
        link a/f b/new = EXDEV
        link a/f a4/new = EXDEV
        link a/f v/new = EXDEV
        link v/f a/new = EXDEV
        link p/f a/new = EXDEV
        link p/l a/new = EXDEV
        link a/l b/new = EXDEV
        link a/f b/f = EEXIST
        link p/f a/f = EEXIST
        link a/d b/new = EPERM
        link p/d a/new = EPERM
        link p/p a/fifo = 0
        link b/p a/fifo2 = 0
        link a/f p/new = 0
        link p/new a/again = 0
        link a/f a2/new = 0
        link a/f a/d/new = 0
        link p/new b/new = EXDEV
        rename a/f b/new = EXDEV
        rename a/f b/f = EXDEV
        rename a/f b/d = EISDIR
        rename a/d b/f = ENOTDIR
        rename a/d b/d = EXDEV
        rename a/d b/empty = EXDEV
        rename a/empty b/new = EXDEV
        rename a/l b/new = EXDEV
        rename p/f a/new = EXDEV
        rename p/d a/new = EXDEV
        rename p/d a/d = EXDEV
        rename p/l a/l = EXDEV
        rename a/f v/new = EXDEV
        rename v/f a/new = EXDEV
        rename a/f a4/new = EXDEV
        noreplace a/f b/f = EEXIST
        noreplace a/f b/new = EXDEV
        noreplace p/f a/f = EEXIST
        rename a/none b/new = ENOENT
        whiteout a/f b/new = EXDEV
        whiteout p/f a/f = EXDEV
        whiteout-noreplace a/f b/f = EEXIST
        exchange a/f b/f = EXDEV
        exchange a/f p/f = EXDEV
        exchange p/f a/f = EXDEV
        exchange a/d b/f = EXDEV
        exchange a/d p/d = EXDEV
        exchange a/f b/new = ENOENT
        exchange a/p b/p = 0
        exchange a/p b/f = EXDEV
        exchange b/f a/p = EXDEV
        exchange p/p a/p = 0
        exchange p/p a/f = 0
        exchange p/p a/f = 0
        exchange a/f a2/new = 0
        rename a/d a/d/sub = EINVAL
        rename a/d/f a/d = ENOTEMPTY
        rename a p/d/a = 0
        rename p/d/a a = 0
        rename a b/a = EXDEV
        rename a a2/a = 0
        rename a2/a a = 0
        rename b a/b = EXDEV
        rename a/d/f a2/moved = 0
        rename a/empty a2/d = 0
        rename a/l p/l2 = 0
        rename p/l2 b/l2 = EXDEV
        rename p/l2 a2/l2 = 0
        rename a/p b/q = 0
        rename b/d p/moved = 0
        create p/moved/f = EEXIST
        create p/moved/g = 0
        rename p/moved a/moved = EXDEV
        rename p/moved b/back = 0
        """, NAMES)


@tap.test
def lengths():
    """The longest names and targets"""
    check(volume(*FULL, setup=TREES), """
        create b/{n255} = 0
        create b/{n256} = ENAMETOOLONG
        mkdir b/{n256} = ENAMETOOLONG
        stat b/{n255} = 0
        stat b/{n256} = ENAMETOOLONG
        unlink b/{n256} = ENAMETOOLONG
        rename b/f b/{n256} = ENAMETOOLONG
        rename b/{n256} b/x = ENAMETOOLONG
        link b/f b/{n256} = ENAMETOOLONG
        rename b/f b/{n240} = 0
        symlink b/s1 1 = 0
        symlink b/s4093 4093 = 0
        symlink b/s4094 4094 = ENAMETOOLONG
        symlink b/s4095 4095 = ENAMETOOLONG
        symlink p/s4095 4095 = 0
        symlink v/s4093 4093 = 0
        symlink v/s4094 4094 = ENAMETOOLONG
        symlink b/s0 0 = ENOENT
        readlink b/s4093 = 0
        unlink b/s4093 = 0
        """, NAMES)
    check(volume("-b", "1024", "-O", "encrypt", setup="mkdir a\nset a {A}\nmkdir p"), """
        symlink a/s1021 1021 = 0
        symlink a/s1022 1022 = ENAMETOOLONG
        symlink a/s1023 1023 = ENAMETOOLONG
        symlink a/s1024 1024 = ENAMETOOLONG
        symlink p/s1023 1023 = 0
        symlink p/s1024 1024 = ENAMETOOLONG
        readlink a/s1021 = 0
        """, NAMES)


def numbers(image):
    """The inodes of all paths, seen with the keys."""
    seen = {}
    with tap.mounted(image, "ro") as root:
        args = [program(), "dump", "kernel", root, *("policy=" + key for key in KEYS)]
        with open(os.devnull, "wb") as null:
            subprocess.run(args, check=True, stdout=null)
        for folder, dirs, files in os.walk(os.fsencode(root)):
            for name in dirs + files:
                path = os.path.join(folder, name)
                seen[os.path.relpath(path, os.fsencode(root)).decode()] = os.lstat(path).st_ino
    return seen


def nokey_names(image):
    """{a_f}: what the kernel shows instead of a/f while it has no key; of names of 255 bytes {a_n255}."""
    inodes, paths = {ino: path for path, ino in numbers(image).items()}, dict(NAMES)
    with tap.mounted(image, "ro") as root:
        for folder, dirs, files in os.walk(root):
            for name in dirs + files:
                path = os.path.join(folder, name)
                real = inodes[os.lstat(path).st_ino].replace(NAMES["n255"], "n255").replace(NAMES["n240"], "n240")
                paths[real.replace("/", "_")] = os.path.relpath(path, root)
    return paths


LOCKED = f"""
    stat {{a_f}} = 0
    list a = 0
    list {{a_d}} = 0
    policy a = 0
    readlink {{a_l}} = 0
    stat {{a_l}} = 0
    stat {{a_n255}} = 0
    read {{a_f}} = ENOKEY
    write {{a_f}} = ENOKEY
    truncate {{a_f}} 0 = ENOKEY
    truncate {{a_f}} 4 = ENOKEY
    truncate {{a_f}} 4611686018427387904 = EFBIG
    truncate {{a_d}} 0 = EISDIR
    allocate {{a_f}} = ENOKEY
    chown {{a_f}} 7 = 0
    stat a/f = ENOENT ENOKEY: {NO_NOKEY}
    unlink a/f = ENOENT ENOKEY: {NO_NOKEY}
    rmdir a/d = ENOENT ENOKEY: {NO_NOKEY}
    rename a/f p/new = ENOENT ENOKEY: {NO_NOKEY}
    stat a/AAAAAAAAAAAAAAAAAAAAAAAA = ENOENT
    unlink a/AAAAAAAAAAAAAAAAAAAAAAAA = ENOENT
    rmdir a/AAAAAAAAAAAAAAAAAAAAAAAA = ENOENT
    rename a/AAAAAAAAAAAAAAAAAAAAAAAA p/new = ENOENT
    rename a/AAAAAAAAAAAAAAAAAAAAAAAA a/new = ENOENT
    exchange p/f a/AAAAAAAAAAAAAAAAAAAAAAAA = ENOENT
    whiteout a/AAAAAAAAAAAAAAAAAAAAAAAA p/new = ENOENT
    whiteout {{a_f}} p/new = ENOKEY
    whiteout p/f a/new = ENOKEY
    stat a/{{n256}} = ENAMETOOLONG
    create a/new = ENOKEY
    create a/AAAAAAAAAAAAAAAAAAAAAAAA = ENOKEY
    create a/{{n255}} = ENOKEY
    create a/{{n256}} = ENAMETOOLONG
    create {{a_f}} = EEXIST
    mkdir a/new = ENOKEY
    mkdir {{a_f}} = EEXIST
    mkfifo a/new = ENOKEY
    symlink a/new 5 = ENOKEY
    symlink a/new 4095 = ENOKEY
    symlink {{a_l}} 5 = EEXIST
    link p/f a/new = ENOKEY
    link p/p a/new = ENOKEY
    link p/d a/new = EPERM
    link p/f {{a_f}} = EEXIST
    link {{a_f}} {{a_d}}/new = ENOKEY
    link {{a_f}} a/new = ENOKEY
    link {{a_d}} a/new = EPERM
    link {{a_f}} p/new = 0
    rename {{a_f}} p/new = 0
    unlink p/new = 0
    link {{a_f}} b/new = ENOKEY
    link p/f a/{{n256}} = ENAMETOOLONG
    rename p/f a/new = ENOKEY
    rename p/f {{a_f}} = ENOKEY
    rename p/f {{a_d}} = EISDIR
    rename p/d {{a_f}} = ENOTDIR
    rename p/d {{a_d}} = ENOKEY
    rename {{a_f}} a/new = ENOKEY
    rename {{a_f}} p/new = ENOKEY
    rename {{a_f}} p/f = ENOKEY
    rename {{a_f}} p/d = EISDIR
    rename {{a_d}} p/f = ENOTDIR
    rename {{a_f}} {{a_g}} = ENOKEY
    rename {{a_f}} {{a_f}} = 0
    rename {{a_d}} {{a_d}}/new = EINVAL
    rename {{a_f}} b/new = ENOKEY
    rename {{a_p}} p/new = ENOKEY
    noreplace p/f {{a_f}} = EEXIST
    noreplace {{a_f}} p/f = EEXIST
    noreplace {{a_f}} p/new = ENOKEY
    exchange {{a_f}} {{a_g}} = ENOKEY
    exchange {{a_f}} p/f = ENOKEY
    exchange p/f {{a_f}} = ENOKEY
    exchange p/p {{a_p}} = ENOKEY
    exchange p/f a/new = ENOENT
    hold {{b_empty}} = 0
    rmdir {{b_empty}} = 0
    create !/new = ENOENT
    mkdir !/new = ENOENT
    link p/f !/new = ENOENT
    link p/d !/new = ENOENT
    rename p/f !/new = ENOENT
    set ! {{A}} = EEXIST
    hold p/empty = 0
    rmdir p/empty = 0
    create !/new = ENOENT
    link p/f !/new = ENOENT
    rename p/f !/new = ENOENT
    rename a p/a = 0
    rename p/a a = 0
    rename a a2/x = ENOKEY
    rename a {{b_f}} = ENOTDIR
    unlink {{a_d}} = EISDIR
    rmdir {{a_f}} = ENOTDIR
    rmdir {{a_d}} = ENOTEMPTY
    unlink {{a_d_f}} = 0
    rmdir {{a_d}} = 0
    rmdir {{a_empty}} = 0
    unlink {{a_l}} = 0
    unlink {{a_p}} = 0
    unlink {{a_n255}} = 0
    unlink {{a_n240}} = 0
    unlink {{v_f}} = 0
    rmdir v = 0
    rmdir a = ENOTEMPTY
    unlink {{a_f}} = 0
    unlink {{a_g}} = 0
    rmdir a = 0
    """


@tap.test
def locked():
    """Without keys"""
    for mkfs in (FULL, ("-b", "1024", "-O", "encrypt,^dir_index"),
                 ("-b", "1024", "-I", "128", "-O", "encrypt,^metadata_csum")):
        image = volume(*mkfs, setup=TREES)
        check(image, LOCKED, nokey_names(image), ("locked",))


def debugfs(image, *commands):
    done = subprocess.run(["debugfs", "-w", image], input="".join(c + "\n" for c in commands), text=True, check=True,
                          capture_output=True)
    return done.stdout


@tap.test
def too_many_links():
    """Too many links, which comes before or behind other errors"""
    image = volume("-b", "4096", "-O", "encrypt,stable_inodes,^dir_nlink,^metadata_csum", setup=TREES)
    seen = numbers(image)
    debugfs(image, *(f"sif <{seen[path]}> links_count 65000" for path in ("a/f", "p/f", "a/d", "b")))
    check(image, """
        link a/f a/new = EMLINK
        link a/f p/new = EMLINK
        link a/f b/new = EMLINK
        link p/f a/new = EMLINK
        link p/f a/g = EEXIST
        mkdir a/d/new = EMLINK
        create a/d/new = 0
        mkdir b/new = EMLINK
        rename a/empty a/d/new2 = EMLINK
        rename a/empty b/new = EXDEV
        rename p/d b/new = EXDEV
        exchange a/empty b/f = EXDEV
        """, NAMES, sane=False)
    names = nokey_names(image)
    check(image, """
        link p/f a/new = EMLINK
        link {a_f} p/new = EMLINK
        link {a_f} a/new = EMLINK
        mkdir b/new = EMLINK
        mkdir {b_f} = EEXIST
        mkdir b/AAAAAAAAAAAAAAAAAAAAAAAA = EMLINK
        create b/new = ENOKEY
        rename p/empty b/new = ENOKEY
        """, names, ("locked",), sane=False)


def swap(image, seen, first, second):
    """Two names come to stand for each other's inodes, as somebody could do it who has the device and no key."""
    places = []
    for path in (first, second):
        folder = seen[os.path.dirname(path)]
        block = int(debugfs(image, f"blocks <{folder}>").split("\n")[1].split()[0])
        with open(image, "rb") as f:
            f.seek(block * 4096)
            data = f.read(4096)
        at = 0
        while struct.unpack_from("<I", data, at)[0] != seen[path]:
            at += struct.unpack_from("<H", data, at + 4)[0]
        places.append((block * 4096 + at, seen[path]))
    with open(image, "r+b") as f:
        for place, ino in zip(places, (places[1][1], places[0][1])):
            f.seek(place[0])
            f.write(struct.pack("<I", ino))


SWAPPED = f"""
    stat a/f = EPERM
    read a/f = EPERM
    truncate a/f 0 = EPERM
    stat a/d = EPERM
    list a/empty = EPERM
    create a/d/new = EPERM
    readlink a/l = EPERM
    stat a/l = EPERM
    stat a/p = 0
    rmdir a/empty = EPERM
    rmdir a/d = EPERM
    unlink a/d = EPERM
    unlink a/l = EPERM
    rename a/l a/x = EPERM
    rename a/d a/x = EPERM
    rename a/d p/x = EPERM
    rename a/g a/l = EPERM
    rename a/g a/d = EPERM
    exchange a/g a/l = EPERM
    create a/l = EPERM EEXIST: {PATHS}
    create a/f = EEXIST
    mkdir a/d = EPERM EEXIST: {PATHS}
    link p/p a/l = EPERM EEXIST: {PATHS}
    link p/p a/f = EEXIST
    rename a/f a2/x = EXDEV
    rename a/f a/x = 0
    rename a/x a/f = 0
    rename a/f {{other}}/x = 0
    unlink a/g = 0
    """


SWAPPED_LOCKED = f"""
    stat {{a_d}} = EPERM
    list {{a_empty}} = EPERM
    stat {{a_l}} = EPERM
    stat {{a_p}} = 0
    read {{a_f}} = ENOKEY EPERM: {PATHS}
    create {{a_f}} = EEXIST
    create {{a_l}} = EPERM EEXIST: {PATHS}
    rmdir {{a_empty}} = EPERM
    unlink {{a_d}} = EPERM
    unlink {{a_l}} = EPERM
    rename {{a_l}} p/x = EPERM
    rename {{a_f}} p/x = ENOKEY
    rename {{a_f}} {{a_l}} = EPERM
    stat p/f = 0
    unlink {{a_f}} = 0
    unlink {{a_g}} = 0
    """


@tap.test
def swapped():
    """What somebody has put into a directory with another policy"""
    for other in ("b", "p"):
        image = volume("-b", "4096", "-O", "encrypt,stable_inodes,^metadata_csum", setup=TREES)
        seen, names = numbers(image), nokey_names(image)
        for name in ("f", "d", "l", "p", "empty"):
            swap(image, seen, "a/" + name, other + "/" + name)
        check(image, SWAPPED, dict(NAMES, other=other), sane=False)
        if other == "b":
            check(image, SWAPPED_LOCKED, names, ("locked",), sane=False)


tap.main()
