#!/usr/bin/env python3
"""tools/run-tests itself: what it counts, what it must not overlook.

Not here: the checks that it runs.
Read more: HACKING.md, "Tests".
"""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

PATH = os.path.join(HERE, "..", "..", "tools", "run-tests")
LOADER = importlib.machinery.SourceFileLoader("run_tests", PATH)
run_tests = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_tests", LOADER))
LOADER.exec_module(run_tests)


def run(script, is_tap=True, limit=20, in_ci=False):
    """The verdict on a small shell program: passed, failed, skipped."""
    job = run_tests.Job("x", ["sh", "-c", script], tap=is_tap, limit=limit)
    totals = run_tests.Totals(in_ci)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        totals.add(job, run_tests.execute(job, run_tests.Runner()))
    return (totals.passed, totals.failed, totals.skipped), shown.getvalue()


def counts(script, *wanted, **options):
    tap.equal(run(script, **options)[0], wanted, script)


@tap.test
def plain_tap():
    """TAP is counted"""
    counts("printf '1..3\\nok 1 - a\\nok 2 - b # SKIP no time\\nnot ok 3 - c\\n'; exit 1", 1, 1, 1)
    counts("printf 'ok 1 - a\\nok 2\\n1..2\\n'", 2, 0, 0)
    counts("printf '1..1\\nok 1 - a\\n# talk\\n1..1\\nok 1 - b\\n'", 2, 0, 0)


@tap.test
def cmocka_dialect():
    """cmocka's own way to say skipped, and a group whose set-up fails"""
    counts("printf '1..2\\nnot ok 1 # SKIP test_a\\nok 2 - test_b\\n# ok - tests\\n'", 1, 0, 1)
    counts("printf '1..4\\nnot ok 0 - tests [  FAILED  ] GROUP SETUP\\n# ok - tests\\n'; exit 4", 0, 2, 0)


@tap.test
def names_with_hashes():
    """A hash inside a name is no directive"""
    counts("printf '1..2\\nok 1 - a#b\\nok 2 - # of skips\\n'", 2, 0, 0)


@tap.test
def short_plan():
    """Fewer or more tests than planned is a failure"""
    counts("printf '1..2\\nok 1 - a\\n'", 1, 1, 0)
    counts("printf '1..1\\nok 1 - a\\nok 2 - b\\n'", 2, 1, 0)


@tap.test
def silence():
    """No plan, no output, an empty plan: failures"""
    counts("true", 0, 1, 0)
    counts("echo hello", 0, 1, 0)
    counts("echo 1..0", 0, 1, 0)
    counts("echo '1..0 # SKIP no cmocka'", 0, 0, 1)


@tap.test
def crash():
    """A program that dies of a signal failed, whatever it printed before"""
    counts("printf '1..1\\nok 1 - a\\n'; kill -SEGV $$", 1, 1, 0)
    counts("kill -ABRT $$", 0, 1, 0, is_tap=False)


@tap.test
def status_without_reason():
    """A bad exit status without a failed test is a failure"""
    counts("printf '1..1\\nok 1 - a\\n'; exit 3", 1, 1, 0)
    counts("printf '1..1\\nok 1 - a\\nBail out! lost\\n'", 1, 1, 0)


@tap.test
def hang():
    """A program that hangs is ended, and what it started with it"""
    marker = tap.fresh("pid")
    start = time.monotonic()
    counts(f"echo 1..1; sleep 300 & echo $! > {marker}; wait", 0, 1, 0, limit=1)
    if time.monotonic() - start > 15:
        tap.fail("took too long")
    with open(marker, encoding="ascii") as f:
        pid = int(f.read())
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or "State:\tZ" in open(f"/proc/{pid}/status", encoding="ascii").read():
            return
        time.sleep(0.05)
    tap.fail(f"process {pid} is still there")


@tap.test
def skips_in_ci():
    """In CI a skip for want of a loop device is a failure, one for want of a CPU feature is not"""
    loop = "printf '1..2\\nok 1 - a # SKIP needs loop\\nok 2 - b\\n'"
    counts(loop, 1, 0, 1)
    counts(loop, 1, 1, 0, in_ci=True)
    counts("printf '1..2\\nskipped: no loop devices here\\nnot ok 1 # SKIP test_a\\nok 2 - b\\n'", 1, 1, 0, in_ci=True)
    counts("printf '1..2\\nok 1 - a # SKIP this CPU has no VAES\\nok 2 - b\\n'", 1, 0, 1, in_ci=True)


@tap.test
def output_of_failures():
    """The output of a failed program is shown, that of a good one is not"""
    tap.contains(run("echo 1..1; echo not ok 1 - a; echo the reason >&2")[1], "the reason", "FAIL")
    if "talk" in run("echo 1..1; echo ok 1 - a; echo talk")[1]:
        tap.fail("output of a good program shown")


@tap.test
def nothing_passed():
    """Zero tests is not success"""
    totals = run_tests.Totals(False)
    tap.equal(totals.good(), False)
    totals.passed = 1
    tap.equal(totals.good(), True)
    totals.failed = 1
    tap.equal(totals.good(), False)


@tap.test
def failed_need():
    """What needs a build that failed counts as failed"""
    jobs = [run_tests.Job("build x", ["false"]), run_tests.Job("t", ["true"], ["build x"])]
    totals = run_tests.Totals(False)
    with contextlib.redirect_stdout(io.StringIO()):
        run_tests.run_all(jobs, totals, run_tests.Runner(), 2)
    tap.equal((totals.passed, totals.failed), (0, 2))


@tap.test
def absent_need():
    """What needs a build that cannot be made here is skipped for the same reason; in CI that is a failure"""
    script = f"echo hello; echo needs arm64 libraries: no network; exit {run_tests.NOT_HERE}"
    for in_ci, wanted in ((False, (0, 0, 2)), (True, (0, 2, 0))):
        jobs = [run_tests.Job("build x", ["sh", "-c", script]), run_tests.Job("t", ["true"], ["build x"])]
        totals = run_tests.Totals(in_ci)
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            run_tests.run_all(jobs, totals, run_tests.Runner(), 2)
        tap.equal((totals.passed, totals.failed, totals.skipped), wanted, shown.getvalue())
        tap.contains(shown.getvalue(), "needs arm64 libraries: no network")


@tap.test
def emulated():
    """Every emulated CPU runs tests of a build that has them, and no emulator is a failure in CI"""
    for label, (build, _, names) in run_tests.EMULATED.items():
        targets = run_tests.TARGETS.get(build)
        for name in names:
            tap.equal(name in run_tests.UNIT_NAMES, True, name)
            tap.equal(targets is None or "tests/test_" + name in targets, True, f"{name} ({label})")
    skip = "echo '1..0 # SKIP needs qemu-aarch64'"
    counts(skip, 0, 0, 1)
    counts(skip, 0, 1, 0, in_ci=True)


def ci(recipe):
    """What .ci/run makes of a project whose `make test` is this."""
    top = tap.fresh_dir("ci")
    os.mkdir(os.path.join(top, ".ci"))
    shutil.copy(os.path.join(HERE, "..", "..", ".ci", "run"), os.path.join(top, ".ci", "run"))
    with open(os.path.join(top, "Makefile"), "w", encoding="ascii") as f:
        f.write("test:\n" + "".join(f"\t@{line}\n" for line in recipe))
    done = subprocess.run([os.path.join(top, ".ci", "run")], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


@tap.test
def ci_last_line():
    """.ci/run ends with the count, in success and in failure, and its exit status says which it was"""
    status, lines = ci(["echo '7 passed, 0 failed, 0 skipped'"])
    tap.equal((status, lines[-1]), (0, "7 passed, 0 failed, 0 skipped"))
    status, lines = ci(["echo '6 passed, 1 failed, 0 skipped'", "exit 1"])
    tap.equal((status != 0, lines[-1]), (True, "6 passed, 1 failed, 0 skipped"))
    status, lines = ci(["echo 'These packages are missing'", "exit 1"])
    tap.equal((status != 0, lines[-1]), (True, "0 passed, 1 failed, 0 skipped"))


@tap.test
def ci_environment():
    """.ci/run sets CI and gives nothing to read"""
    _, lines = ci(["echo CI=$$CI; cat; echo '1 passed, 0 failed, 0 skipped'"])
    tap.equal(lines, ["CI=true", "1 passed, 0 failed, 0 skipped"])


if __name__ == "__main__":
    tap.main()
