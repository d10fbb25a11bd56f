#!/bin/sh
# tools/deps.sh run|test|bench: installs the Debian packages that building (run), testing or measuring needs, if any is missing.
# Not here: any other change to the machine; other distributions (HACKING.md lists what is needed in words).
# Read more: HACKING.md, "Building".
set -eu

build_set="gcc libc6-dev meson ninja-build pkg-config libssl-dev libext2fs-dev liburing-dev libfuse3-dev fuse3 e2fsprogs xz-utils
	libargon2-dev libprotobuf-c-dev protobuf-c-compiler"
test_set="libcmocka-dev clang libclang-rt-14-dev python3 valgrind acl git rsync sqlite3 stress-ng fscrypt"
cross_set="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" # for testing on emulated CPUs, where they are others
bench_set="fio nbdkit qemu-utils libgcrypt20-dev"
peers_set="gocryptfs securefs fuse2fs" # mounts are measured beside those of them that the archive has
extra_set="attr fdisk mandoc" # tests that need these are skipped without them; installed along, never on their own

[ "$(uname -m)" != x86_64 ] || test_set="$test_set $cross_set"
case "${1-}" in
run) wanted=$build_set peers="" extra="" ;;
test) wanted="$build_set $test_set" peers="" extra=$extra_set ;;
bench) wanted="$build_set $test_set $bench_set" peers=$peers_set extra=$extra_set ;;
*)
	echo "usage: tools/deps.sh run|test|bench" >&2
	exit 2
	;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
	echo "tools/deps.sh: no dpkg here, so nothing was checked; needed are what Debian calls: $wanted" >&2
	exit 0
fi

installed() {
	case "$(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null)" in
	ii*) return 0 ;;
	*) return 1 ;;
	esac
}

# missing PACKAGE...: those that are not installed, each with a space before it.
missing() {
	for package; do
		installed "$package" || printf ' %s' "$package"
	done
}

# offered PACKAGE...: those that the archive has, as far as this machine knows, each with a space before it.
offered() {
	for package; do
		apt-cache show "$package" >/dev/null 2>&1 && printf ' %s' "$package"
	done
	return 0
}

# Lists of packages are split into words on purpose, here and below.
# shellcheck disable=SC2046,SC2086
missing=$(missing $wanted)$(offered $(missing $peers))
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086
missing="$missing$(missing $extra)"

as_root=
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		as_root=sudo
	else
		echo "These Debian packages are missing:$missing" >&2
		echo "As root, type:  apt-get update && apt-get install -y --no-install-recommends$missing" >&2
		exit 1
	fi
fi

echo "Installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2046,SC2086
install_missing() {
	$as_root apt-get update -q &&
		$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing \
			$(offered $(missing $peers))
}
if ! install_missing >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	echo "tools/deps.sh: apt-get could not install:$missing" >&2
	exit 1
fi
