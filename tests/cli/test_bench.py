#!/usr/bin/env python3
"""`inlay bench`: block does the I/O that it was asked for, counts it, and destroys nothing unasked; ciphers measures all.

Not here: how fast it is (bench/).
Read more: doc/inlay.1, "BENCHMARKS".
"""
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
PERCENTILES = ("p50", "p90", "p99", "p99_9", "max")


def bench(spec, *options):
    return cli.good("bench", "block", "--json", *options, spec).json()


def counters(dev, driver):
    """Of every device of this driver, in order."""
    here = [dev["counters"]] if dev["driver"] == driver else []
    return here + [c for child in dev["children"] for c in counters(child, driver)]


def file_of_noise(size=MIB):
    path = tap.fresh("disk")
    with open(path, "wb") as f:
        f.write(os.urandom(size))
    return path


def content(path):
    with open(path, "rb") as f:
        return f.read()


@tap.test
def counts():
    """--count: exactly so many I/Os, whatever the depth, the threads and the batches"""
    for options in ((), ("--depth=1",), ("--depth=3", "--threads=2"), ("--threads=7", "--plug=5"), ("--depth=4096",),
                    ("--rw=write", "--bs=64K", "--threads=2"), ("--key=raw", "--unit=512", "--plug=32")):
        got = bench("slice(ram(1M))", "--count=1001", *options)
        tap.equal(got["ios"], 1001, f"I/Os, {options}")
        kind, other = ("write", "read") if "--rw=write" in options else ("read", "write")
        tap.equal((got[kind]["n"], got[other]["n"], got["errors"], got["interrupted"]), (1001, 0, 0, False), str(options))
        tap.equal(got[kind]["bytes"], 1001 * got["bs"], str(options))
        for driver in ("slice", "ram"):
            name = "bytes_written" if kind == "write" else "bytes_read"
            tap.equal(counters(got["device"], driver)[0][name], 1001 * got["bs"], f"{name} of {driver}, {options}")


@tap.test
def rates_and_times():
    """Rates and percentiles fit a device that takes 20 ms for each I/O"""
    got = bench("fault(ram(1M), delay=20ms)", "--count=40", "--depth=4")
    assert 200e6 <= got["elapsed_ns"] < 2e9, got["elapsed_ns"]
    tap.equal(got["ios_per_second"], int(40 * 1e9 / got["elapsed_ns"]))
    tap.equal(got["read"]["bytes_per_second"], int(40 * 4096 * 1e9 / got["elapsed_ns"]))
    times = got["read"]["latency_ns"]
    assert times["n"] == 40 and 20e6 <= times["p50"] <= times["max"] < 1e9 and 20e6 <= times["mean"] <= times["max"], times
    tap.equal(sorted(times[p] for p in PERCENTILES), [times[p] for p in PERCENTILES], "percentiles in their order")
    tap.equal(bench("ram(1M)", "--count=100", "--sample=10")["read"]["latency_ns"]["n"], 10, "times that were measured")
    tap.equal(bench("ram(1M)", "--count=100", "--sample=0")["read"]["latency_ns"]["n"], 0, "times that were measured")


@tap.test
def percentiles():
    """Percentiles tell the few slow ones from the many fast ones"""
    times = bench("fault(ram(1M), read@101..105=delay:50ms)", "--count=1000", "--depth=1")["read"]["latency_ns"]
    assert times["p50"] < 20e6 and times["p99"] < 50e6 <= times["p99_9"] <= times["max"], times
    times = bench("fault(ram(1M), read@101..300=delay:2ms)", "--count=1000", "--depth=1")["read"]["latency_ns"]
    assert times["p50"] < 2e6 <= times["p90"] <= times["p99"], times
    times = bench("fault(ram(1M), delay=20ms+read@10=delay:300ms)", "--count=10", "--depth=1")["read"]["latency_ns"]
    assert 20e6 <= times["p50"] < 35e6 and times["max"] >= 300e6, times


@tap.test
def duration():
    """--time: not longer, and the first of --time and --count ends it"""
    got = bench("ram(1M)", "--time=0.3", "--threads=2")
    assert 0.3e9 <= got["elapsed_ns"] < 3e9, got["elapsed_ns"]
    assert got["ios"] > 100, got["ios"]
    assert got["cpu_user_ns"] + got["cpu_system_ns"] > 0 and got["cpu_ns_per_io"] > 0
    tap.equal(bench("ram(1M)", "--time=60", "--count=10")["ios"], 10)
    assert bench("fault(ram(1M), delay=50ms)", "--time=0.2", "--count=1000000")["ios"] < 1000


@tap.test
def mix():
    """Reads, writes and flushes in the proportion that was asked for; the seed decides"""
    got = bench("ram(1M)", "--rw=mix", "--read=70", "--count=4000")
    assert 2600 < got["read"]["n"] < 3000, got["read"]["n"]
    tap.equal(got["read"]["n"] + got["write"]["n"], 4000)
    tap.equal(bench("ram(1M)", "--read=70", "--count=4000")["read"]["n"], got["read"]["n"], "--read alone, the same seed")
    assert bench("ram(1M)", "--read=70", "--count=4000", "--seed=2")["read"]["n"] != got["read"]["n"], "another seed"
    assert 1800 < bench("ram(1M)", "--rw=mix", "--count=4000")["read"]["n"] < 2200
    flushed = bench("linear(ram(1M), ram(1M))", "--rw=write", "--flush=10", "--count=1000")
    assert flushed["flush"]["n"] in (99, 100), flushed["flush"]["n"]
    tap.equal((flushed["ios"], flushed["write"]["n"]), (1000, 1000), "flushes do not count")
    for ram in counters(flushed["device"], "ram"):
        tap.equal(ram["flushes"], flushed["flush"]["n"], "flushes reach every child")


@tap.test
def places():
    """--pattern, --size, --threads: where the I/Os go"""
    spec = "linear(ram(64K), ram(64K))"

    def reads(*options):
        return [c["bytes_read"] // 4096 for c in counters(bench(spec, *options)["device"], "ram")]
    tap.equal(reads("--pattern=sequential", "--count=16", "--depth=2"), [16, 0])
    tap.equal(reads("--pattern=sequential", "--count=48"), [32, 16], "it begins again")
    tap.equal(reads("--pattern=sequential", "--count=20", "--threads=2"), [10, 10], "each thread has its part")
    tap.equal(reads("--count=200", "--size=64KiB"), [200, 0])
    first, second = reads("--count=1000")
    assert 400 < first < 600 and first + second == 1000, (first, second)
    merged = bench("ram(1M)", "--pattern=sequential", "--plug=8", "--count=64")
    tap.equal(counters(merged["device"], "ram")[0]["merges"], 56, "bios that went along with another one")
    tap.equal(merged["ios"], 64)
    merged = bench("ram(1M)", "--pattern=sequential", "--plug=8", "--count=64", "--key=raw")
    tap.equal(counters(merged["device"], "ram")[0]["merges"], 56, "data unit numbers follow the places")


@tap.test
def keys():
    """--key=raw: every unit is encrypted or decrypted once, by the fallback or by the engine; keys are chosen as told"""
    for rw, done in (("read", "decrypted"), ("write", "encrypted")):
        got = bench("ram(1M)", "--key=raw", "--unit=512", f"--rw={rw}", "--count=100")
        tap.equal((got["keys"], got["unit"], got["native"]), (1, 512, False))
        tap.equal(counters(got["device"], "ram")[0]["fallback_units_" + done], 800)
        got = bench("engine(ram(1M), slots=2)", "--key=raw", f"--rw={rw}", "--count=100", "--keys=3")
        tap.equal((got["keys"], got["unit"], got["native"]), (3, 4096, True))
        engine = counters(got["device"], "engine")[0]
        tap.equal((engine["engine_units_" + done], engine["slot_hits"] + engine["slot_programs"]), (100, 100))
    assert not bench("ram(1M)", "--count=10")["native"]
    tap.equal(bench("ram(1M)", "--count=10", "--key=raw", "--bs=512")["unit"], 512)


@tap.test
def key_choice():
    """Keys alike, and by Zipf's law: one slot is hit as often as two keys in a row are the same"""
    for options, wanted in ((("--keys=4",), 1 / 4), (("--keys=4", "--zipf=1"), 1.4236 / 2.0833 ** 2),
                            (("--keys=1000", "--zipf=2"), 1.0823 / 1.6439 ** 2), (("--keys=1",), 1)):
        got = bench("engine(ram(1M), slots=1)", "--key=raw", "--depth=1", "--count=20000", *options)
        rate = counters(got["device"], "engine")[0]["slot_hits"] / 20000
        assert abs(rate - wanted) < 0.02, f"{options}: {rate}, wanted {wanted}"


@tap.test
def overwrite():
    """Writes go to memory; to anything else only with --overwrite, and only to the range"""
    path = file_of_noise()
    before = content(path)
    for spec in (path, f"linear(ram(1M), {path})", f"engine(slice({path}, offset=64K))", f"fault({path}, delay=1us)"):
        for rw in ("--rw=write", "--read=99"):
            cli.bad(cli.USAGE, "bench", "block", rw, "--count=100", spec, says="--overwrite")
    bench(path, "--count=100")
    bench(path, "--count=100", "--key=raw", "--overwrite")
    assert content(path) == before, "the file was written to"
    bench(path, "--rw=write", "--count=500", "--size=256K", "--overwrite")
    after = content(path)
    tap.equal((len(after), after[256 * KIB:]), (len(before), before[256 * KIB:]), "beyond the range")
    assert after[:256 * KIB] != before[:256 * KIB], "nothing was written"
    bench(f"linear(ram(1M), {path})", "--count=10")
    bench("linear(ram(1M), engine(ram(1M)))", "--rw=write", "--count=10")
    tap.equal(content(path), after)


@tap.test
def read_only():
    """Reading takes no right to write"""
    path = file_of_noise()
    os.chmod(path, 0o444)
    tap.equal(cli.good("bench", "block", "--json", "--count=10", path, **cli.as_nobody()).json()["ios"], 10)
    cli.bad(cli.FAILED, "bench", "block", "--rw=write", "--overwrite", "--count=10", path, says="permission denied",
            **cli.as_nobody())


def judged(code, spec, *options):
    """An exit code, JSON all the same, and one line on standard error."""
    result = cli.bad(code, "bench", "block", "--json", *options, spec)
    return result.json(), result.err.decode()


@tap.test
def failures():
    """I/O errors: counted, the first one told, exit 1; the others are done"""
    got, said = judged(cli.FAILED, "fault(ram(64K), read@3=EIO)", "--pattern=sequential", "--count=10")
    tap.equal((got["errors"], got["read"]["n"], got["first_error"]), (1, 9, {"op": "read", "offset": 8192, "errno": 5}))
    tap.contains(said, "1 I/O failed", "read at 8192", "input/output error")
    got, said = judged(cli.FAILED, "fault(ram(64K), read@3=EIO+read@5=ENOSPC)", "--pattern=sequential", "--count=10")
    tap.equal((got["errors"], got["first_error"]["offset"], got["first_error"]["errno"]), (2, 8192, 5))
    got, said = judged(cli.FAILED, "fault(ram(64K), write@2..4=ENOSPC)", "--rw=write", "--count=10", "--depth=1")
    tap.equal((got["errors"], got["write"]["n"], got["first_error"]["errno"]), (3, 7, 28))
    tap.contains(said, "3 I/Os failed", "write at", "no space")
    got, said = judged(cli.FAILED, "fault(ram(1M), flush@*=EIO)", "--rw=write", "--flush=5", "--count=50")
    tap.equal((got["write"]["n"], got["flush"]["n"], got["first_error"]["op"]), (50, 0, "flush"))
    got, said = judged(cli.FAILED, "fault(ram(1M), read@*=EIO)", "--count=100", "--threads=2")
    tap.equal((got["errors"], got["ios"], got["cpu_ns_per_io"]), (100, 0, 0))


@tap.test
def refused_keys():
    """A key that nobody serves is refused before any I/O"""
    for spec in ("ram(1M, fallback=off)", "engine(ram(1M), unit=512, fallback=off)"):
        cli.bad(cli.FAILED, "bench", "block", "--key=raw", "--count=10", spec, says=("fallback", "4096"))
    got = bench("engine(ram(1M), unit=512)", "--key=raw", "--count=10")
    tap.equal((got["native"], counters(got["device"], "engine")[0]["fallback_units_decrypted"]), (False, 10))


@tap.test
def misuse():
    """Options that make no sense: exit 2, which option, and why"""
    for options, says in (
            (("--rw=banana",), ("--rw", "read, write or mix")), (("--read=101",), ("--read", "100")),
            (("--rw=read", "--read=50"), "--read"), (("--bs=0",), "--bs"), (("--bs=1000",), ("--bs", "512")),
            (("--bs=4x",), ("--bs", "4x")), (("--bs=4Kx",), "4Kx"), (("--bs= 4K",), "--bs"), (("--bs=-1",), "--bs"),
            (("--bs=99999999999999999999",), "--bs"), (("--bs=18014398509481985K",), "--bs"), (("--depth=0",), "--depth"),
            (("--depth=4097",), ("--depth", "4096")), (("--threads=0",), "--threads"), (("--time=0",), "--time"),
            (("--time=nan",), "--time"), (("--time=1e3",), "--time"), (("--time=1.2.3",), "--time"),
            (("--time=",), "--time"), (("--count=0",), "--count"), (("--count=ten",), "ten"),
            (("--pattern=zigzag",), "--pattern"),
            (("--size=2M",), "--size"), (("--size=1K",), "--bs"), (("--threads=200", "--bs=64K"), "--bs"),
            (("--key=wrapped",), ("--key", "none or raw")), (("--unit=512",), "--unit"), (("--keys=2",), "--keys"),
            (("--zipf=1",), "--zipf"), (("--key=raw", "--unit=600"), "--unit"), (("--key=raw", "--keys=0"), "--keys"),
            (("--key=raw", "--bs=512", "--unit=4096"), "--unit"), (("--plug=33",), "--plug"),
            (("--plug=2", "--depth=1"), "--plug"), (("--seed=-1",), "--seed"), (("--depth=4096", "--bs=1M"), "--depth"),
            (("--nope",), "--nope"), (("--json=1",), "--json")):
        cli.bad(cli.USAGE, "bench", "block", *options, "ram(1M)", says=says)
    cli.bad(cli.USAGE, "bench", "block", "ram(1M)", "--depth", says=("--depth", "must follow"))
    cli.bad(cli.USAGE, "bench", "rock", "ram(1M)", says=("rock", "block, ciphers"))
    cli.bad(cli.USAGE, "bench", says="too few")
    cli.bad(cli.USAGE, "bench", "block", says="too few")
    cli.bad(cli.USAGE, "bench", "block", "ram(1M", says="column")
    cli.bad(cli.FAILED, "bench", "block", "/nonexistent/x", says="/nonexistent/x")


CIPHERS = ("AES-256-XTS", "AES-128-XTS", "AES-128-CBC-ESSIV", "AES-256-CBC-CTS", "AES-128-CBC-CTS")
QUICK = ("--size=4K", "--time=0.01")


def speeds(*options):
    """{(mode, unit, impl, direction): GB/s} of `bench ciphers`, where nothing comes twice."""
    rows = cli.good("bench", "ciphers", "--json", *options).json()
    for row in rows:
        tap.equal(list(row), ["mode", "unit", "impl", "direction", "gb_s"])
        assert isinstance(row["unit"], int) and 0 < row["gb_s"] < 1000, row
    found = {(row["mode"], row["unit"], row["impl"], row["direction"]): row["gb_s"] for row in rows}
    tap.equal(len(found), len(rows), "figures that differ in what they are about")
    return found


def runnable():
    """{mode: the implementations that run here, best first}."""
    ciphers = cli.good("info", "--cpu", "--json").json()["ciphers"]
    return {c["name"]: [i["name"] for i in c["implementations"] if not i["needs"]] for c in ciphers if c["available"]}


def figures(units, impls):
    return {(mode, unit, impl, direction) for mode, unit in units for impl in impls[mode] for direction in ("encrypt", "decrypt")}


@tap.test
def ciphers_json():
    """bench ciphers --json: a list of exactly these figures: every mode, unit, implementation that runs here, direction"""
    impls = runnable()
    tap.equal(set(CIPHERS) - set(impls), set(), "modes that are missing")
    for mode in CIPHERS[:2]:
        tap.equal((impls[mode][-2:]), ["portable", "openssl"])
    both = [(mode, unit) for mode in impls for unit in (512, 4096)]
    tap.equal(set(speeds(*QUICK)), figures(both, impls))


@tap.test
def ciphers_units():
    """bench ciphers --unit: others, several; modes that take no such units are left out"""
    impls = runnable()
    tap.equal(set(speeds("--unit=1K", "--unit=16", *QUICK)), figures([(m, u) for m in impls for u in (1024, 16)], impls))
    odd = set(speeds("--unit=255", *QUICK))
    assert {f[0] for f in odd} >= {"AES-256-CBC-CTS", "AES-128-CBC-CTS"} and {f[1] for f in odd} == {255}, odd
    assert not {f[0] for f in odd} & {"AES-256-XTS", "AES-128-XTS", "AES-128-CBC-ESSIV"}, odd
    tap.equal({f[1] for f in speeds("--unit=64K", "--size=100000", "--time=0.01", "--ciphers=openssl")}, {65536})


@tap.test
def ciphers_choice():
    """bench ciphers --ciphers: one implementation, of the ciphers that have it; best: of each the best"""
    impls = runnable()
    for name in impls["AES-256-XTS"]:
        having = [(mode, 512) for mode in impls if name in impls[mode]]
        tap.equal(set(speeds("--unit=512", "--ciphers", name, *QUICK)), figures(having, dict.fromkeys(impls, [name])), name)
    best = {mode: names[:1] for mode, names in impls.items()}
    tap.equal(set(speeds("--unit=512", "--ciphers=best", *QUICK)), figures([(mode, 512) for mode in impls], best))


@tap.test
def ciphers_speed():
    """bench ciphers: units of 4096 bytes are not slower by far than one of 16, and --time is how long it takes"""
    start = time.monotonic()
    fast = speeds("--time=0.5", "--unit=4096", "--ciphers=openssl")
    assert 0.4 < time.monotonic() - start < 20, time.monotonic() - start
    slow = speeds("--time=0.5", "--unit=16", "--ciphers=openssl")
    for mode in CIPHERS[:2]:
        assert fast[mode, 4096, "openssl", "encrypt"] > 2 * slow[mode, 16, "openssl", "encrypt"], (fast, slow)


@tap.test
def ciphers_text():
    """bench ciphers, text: the same figures, with ratios to openssl, whose own is 1"""
    impls, mode, unit, seen = runnable(), None, None, set()
    out = cli.good("bench", "ciphers", *QUICK).out.decode()
    tap.contains(out, "from one buffer of 4.0 KiB")
    figure = r" +(\d+\.\d+) GB/s +(\d+\.\d+)"
    for line in out.splitlines():
        row = re.fullmatch(r"(?:(\S+) +(\d+)| +)  (\S+) *" + figure * 2, line)
        if row:
            mode, unit = (row[1], int(row[2])) if row[1] else (mode, unit)
            seen |= {(mode, unit, row[3], direction) for direction in ("encrypt", "decrypt")}
            assert row[3] != "openssl" or (row[5], row[7]) == ("1.00", "1.00"), line
    tap.equal(seen, figures([(mode, unit) for mode in impls for unit in (512, 4096)], impls))
    alone = cli.good("bench", "ciphers", "--ciphers=portable", "--unit=512", *QUICK).out.decode()
    assert re.search(r"^AES-256-XTS +512  portable +[\d.]+ GB/s +- +[\d.]+ GB/s +-$", alone, re.MULTILINE), alone


@tap.test
def ciphers_misuse():
    """bench ciphers: wrong options: exit 2, which, and why"""
    for options, says in (
            (("--ciphers=abacus",), ("--ciphers", "abacus", "best, ", "portable or openssl")), (("--unit=15",), ("--unit", "'15'")),
            (("--unit=512", "--unit=65537"), ("--unit", "'65537'")), (("--unit=banana",), "banana"),
            (("--size=511", "--unit=512"), ("--size", "512")), (("--size=5G",), "--size"), (("--size=0",), "--size"),
            (("--time=0",), "--time"), (("--unit=16",) * 17, ("--unit", "16")), (("ram(1M)",), "too many"),
            (("--depth=1",), ("--depth", "bench block")), (("--key=raw",), ("--key", "bench block")),
            (("--overwrite",), ("--overwrite", "bench block")), (("--count=1",), ("--count", "bench block"))):
        cli.bad(cli.USAGE, "bench", "ciphers", *options, says=says)


@tap.test
def help_text():
    """Help and the manual page name every option"""
    shown = cli.good("help", "bench").out.decode()
    tap.equal(cli.good("bench", "--help").out.decode(), shown)
    with open(os.path.join(cli.HERE, "..", "..", "doc", "inlay.1"), encoding="utf-8") as f:
        manual = f.read()
    options = set(re.findall(r"--([a-z]+)", shown.partition("Options:")[2])) - {"help"}
    assert len(options) >= 19, options
    for option in options:
        assert re.search(rf"\.(It|Op) Fl -{option}\b", manual), f"the manual page has no --{option}"


@tap.test
def text():
    """Text: what was done, a line for each kind, the counters as a tree"""
    out = cli.good("bench", "block", "--rw=mix", "--key=raw", "--keys=2", "--zipf=0.5", "--flush=3", "--count=50",
                   "engine(ram(1M), slots=1)").out.decode()
    tap.contains(out,
                 "random reads (50 %) and writes of 4.0 KiB in 1.0 MiB; depth 32, 1 thread, a flush every 3 writes\n",
                 "AES-256-XTS, data units of 4096 bytes, 2 keys (Zipf 0.5); by an engine (", "CPU time", "; 0 errors\n",
                 "engine: ", "\u2514\u2500\u2500 ram: 1M\n")
    rows = re.findall(r"^(read|write|flush) +(\d+) +\d+ +\S+ \w*B( +[\d.]+ (?:ns|us|ms|s)){5}$", out, re.MULTILINE)
    tap.equal([row[0] for row in rows], ["read", "write", "flush"])
    tap.equal(sum(int(row[1]) for row in rows[:2]), 50)
    plain = cli.good("bench", "block", "--count=5", "--pattern=sequential", "--sample=0", "ram(1M)").out.decode()
    tap.contains(plain, "sequential reads of 4.0 KiB", "no key\n")
    assert re.search(r"^read +5 .*( +-){5}$", plain, re.MULTILINE) and "write" not in plain, plain


@tap.test
def interrupted():
    """SIGINT: what there is is printed, exit 130"""
    for number in (signal.SIGINT, signal.SIGTERM):
        argv = [cli.command(), "bench", "block", "--json", "--time=60", "--threads=2", "fault(ram(1M), delay=1ms)"]
        start = time.monotonic()
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
        result = cli.judge(cli.Result(argv, child.returncode, out, err))
        tap.equal((result.code, result.err), (cli.INTERRUPTED, b"inlay: bench: interrupted\n"), repr(result))
        got = json.loads(out)
        assert got["interrupted"] and got["ios"] > 0 and got["elapsed_ns"] < 30e9, got
        assert time.monotonic() - start < 30


tap.main()
