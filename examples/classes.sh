#!/bin/sh
# examples/classes.sh: two classes of keys on one mount: what services need at once, and what is there while somebody is logged in.
# Not here: units that lock before sleep and at the end of a session (doc/systemd).
# Read more: doc/inlay.1, "LOCKING".
#
# Usage: classes.sh [DIR]: works in a new directory below it (/tmp). Needs /dev/fuse. INLAY: the command.
set -eu
inlay=${INLAY:-inlay}
dir=$(mktemp -d "${1:-/tmp}/inlay-classes.XXXXXX")
trap '"$inlay" umount "$dir/mnt" 2>/dev/null || :; rm -rf "$dir"' EXIT
umask 077
cd "$dir"
mkdir mnt

"$inlay" keygen > device.key # for a real machine: sealed to it, so that it is there at boot and nowhere else
"$inlay" keygen > alice.key  # for a real user: protected by what alice knows
"$inlay" mkfs disk.img --size 64M > /dev/null

# At boot: a line of fstab does the same (IMAGE DIR fuse.inlay key=device.key,allow_other 0 0).
"$inlay" mount disk.img mnt --key device.key
mkdir mnt/services mnt/alice
"$inlay" encrypt mnt/services --key device.key
echo "wake at 7" > mnt/services/alarms

# At login.
"$inlay" unlock mnt --key alice.key
"$inlay" encrypt mnt/alice --key alice.key
echo "dear diary" > mnt/alice/diary

# The screen is locked: this key goes, the other stays.
"$inlay" lock mnt "$("$inlay" keyid < alice.key)"
echo "while locked:"
cat mnt/services/alarms
ls mnt/alice
if cat mnt/alice/* 2> /dev/null; then
	echo "the diary can still be read" >&2
	exit 1
fi

# Unlocked again.
"$inlay" unlock mnt --key alice.key
echo "unlocked:"
cat mnt/alice/diary
