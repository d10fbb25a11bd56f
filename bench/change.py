# bench/change.py: the rows about writing volumes: put, rm, creates, what a commit writes.
# Not here: the table, measuring, other rows (bench/run.py).
# Read more: HACKING.md, "Speed".
"""Rows of bench/run.py. The reference is the kernel's ext4 on a loop mount of an equal image; the images lie in memory."""
import os
import subprocess

GIB = 1 << 30
MIB = 1 << 20
OPTIONS = ("-O", "encrypt,64bit,metadata_csum,stable_inodes", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")


def fresh(bench, name, size, *options):
    """An empty volume, the same for both sides."""
    image = bench.path(name + ".img")
    if os.path.exists(image):
        os.unlink(image)
    with open(image, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *OPTIONS, *options, image], check=True)
    return image


def kernel(bench, image, *argv):
    """The command in a loop mount of the image, with a sync of it at the end; mounting takes no part in the time."""
    directory = bench.mount(image, bench.path("change.mnt"))
    command = " ".join(argv).replace("MNT", directory)
    seconds = bench.measure("sh", "-c", f"{command} && sync -f {directory}")[0]
    bench.umount(directory)
    return seconds


def check(image):
    subprocess.run(["e2fsck", "-fn", image], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tree(bench):
    source = bench.path("source")
    if not os.path.isdir(source):
        for folder in range(20):
            os.makedirs(os.path.join(source, f"folder-{folder:02d}"))
            for i in range(1000):
                with open(os.path.join(source, f"folder-{folder:02d}", f"file-{i:04d}"), "wb") as f:
                    f.write(bytes([i & 255, folder]) * 512)
    return source


def bench_put_big(bench):
    """put: 1 GiB in one file."""
    bench.needs_kernel()
    source, size = bench.path("big"), 1280 * MIB
    bench.noise(source, GIB)

    def ours():
        image = fresh(bench, "ours", size)
        return bench.measure(bench.inlay, "put", "--quiet", source, image + ":/")[0]

    def reference():
        return kernel(bench, fresh(bench, "theirs", size), "cp", source, "MNT/")

    mine, theirs, ratio = bench.duel(ours, reference)
    check(bench.path("ours.img"))
    bench.ratio("put: 1 GiB / cp + sync, kernel on a loop mount", f"{GIB / mine / 1e9:.2f} GB/s", f"{GIB / theirs / 1e9:.2f} GB/s",
                ratio, 0.7)
    for path in (source, bench.path("ours.img"), bench.path("theirs.img")):
        os.unlink(path)


def bench_put_tree(bench):
    """put, rm: 20,000 files of 1 KiB in 20 directories."""
    bench.needs_kernel()
    source, size, removed = tree(bench), 256 * MIB, ([], [])

    def ours():
        image = fresh(bench, "ours", size, "-N", "30000")
        seconds = bench.measure(bench.inlay, "put", "--quiet", source, image + ":/")[0]
        removed[0].append(bench.measure(bench.inlay, "rm", "-r", image + ":/source")[0])
        return seconds

    def reference():
        image = fresh(bench, "theirs", size, "-N", "30000")
        seconds = kernel(bench, image, "cp", "-a", source, "MNT/")
        removed[1].append(kernel(bench, image, "rm", "-r", "MNT/source"))
        return seconds

    mine, theirs, ratio = bench.duel(ours, reference)
    check(bench.path("ours.img"))
    bench.ratio("put: 20,000 files of 1 KiB / cp -a + sync, kernel", f"{20000 / mine:,.0f} /s", f"{20000 / theirs:,.0f} /s",
                ratio, 1.0)
    pairs = list(zip(*(times[1:] for times in removed)))
    bench.ratio("rm: them / rm -r + sync, kernel", *(f"{20000 / sorted(times)[len(times) // 2]:,.0f} /s" for times in zip(*pairs)),
                sorted(b / a for a, b in pairs)[len(pairs) // 2], 1.0)


def put_into(bench, name, encrypted, size, *options):
    """How long put takes into a directory of a fresh volume, encrypted or plain."""
    image, key = fresh(bench, name, size, *options), bench.path("key")
    if not os.path.exists(key):
        with open(key, "wb") as f:
            f.write(os.urandom(64))
    subprocess.run([bench.inlay, "mkdir", image + ":/d"], check=True)
    if encrypted:
        subprocess.run([bench.inlay, "encrypt", image + ":/d", "--key", key], check=True, stdout=subprocess.DEVNULL)
    return bench.measure(bench.inlay, "put", "--quiet", bench.path("what"), image + ":/d", "--key", key)[0]


def bench_put_encrypted(bench):
    """put into an encrypted directory beside put into a plain one: 1 GiB in one file; 20,000 files of 1 KiB."""
    what = bench.path("what")
    for text, unit, n, size, options in (("1 GiB", "GB/s", GIB / 1e9, 1280 * MIB, ()),
                                         ("20,000 files of 1 KiB", "/s", 20000, 256 * MIB, ("-N", "30000"))):
        if n == 20000:
            os.rename(tree(bench), what)
        else:
            bench.noise(what, GIB)
        mine, theirs, ratio = bench.duel(lambda: put_into(bench, "ours", True, size, *options),
                                         lambda: put_into(bench, "theirs", False, size, *options))
        check(bench.path("ours.img"))
        shown = [f"{n / seconds:.2f} {unit}" if n < 100 else f"{n / seconds:,.0f} {unit}" for seconds in (mine, theirs)]
        bench.ratio(f"put: {text}, encrypted / plain", *shown, ratio, 0.9)
        if n == 20000:
            os.rename(what, bench.path("source"))
        else:
            os.unlink(what)


def bench_creates(bench):
    """creates: a million empty files in one directory, the last 10,000 beside the 10,000 that follow the first 10,000."""
    image = fresh(bench, "many", 2 * GIB, "-N", "1100000")
    out = subprocess.run([bench.program("creates"), image, "1000000"], check=True, capture_output=True, text=True).stdout
    early, late, peak = (float(word) for word in out.split())
    check(image)
    os.unlink(image)
    bench.row("creates: one of a million in a directory, at the end / at 10,000", f"{late * 1e6:.2f} µs", f"{early * 1e6:.2f} µs",
              f"{late / early:.2f}", "<= 2.00", late <= 2 * early)
    bench.limit("creates: peak memory", peak / MIB, "MiB", 192)


def bench_commit(bench):
    """commit: what one changed inode of a volume of 1 TiB writes."""
    image = fresh(bench, "large", 1 << 40)
    out = subprocess.run([bench.program("creates"), image, "commit"], check=True, capture_output=True, text=True).stdout
    os.unlink(image)
    bench.limit("commit: written for one changed inode, 1 TiB", float(out) / 1024, "KiB", 64)


ROWS = {"put-big": bench_put_big, "put-tree": bench_put_tree, "put-encrypted": bench_put_encrypted, "creates": bench_creates, "commit": bench_commit}
