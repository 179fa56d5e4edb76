#!/usr/bin/env bash
# Prints the path of a qemu-aarch64 that runs Rust's test programs, after getting one if there is none.
# qemu 7.2, which Debian 12 has, hangs when they start threads; Debian's backports have a newer one, which is unpacked
# into target/cross, not installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
recent() { local v; v="$("$1" --version 2> /dev/null | sed -n 's/^qemu-aarch64 version \([0-9]*\).*/\1/p')"; [ "${v:-0}" -ge 8 ]; }
here="$PWD/target/cross/qemu"
for qemu in qemu-aarch64 qemu-aarch64-static "$here/usr/bin/qemu-aarch64"; do
    if recent "$qemu"; then
        command -v "$qemu"
        exit
    fi
done
release="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
mirror="$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2> /dev/null || true; } |
    sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\(http[^ ]*\).*/\2/p' | grep -m1 '/debian/*$')"
mkdir -p "$here/lists/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release-backports main" > "$here/sources"
options=(-qq -o "Dir::Etc::sourcelist=$here/sources" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$here/lists")
{
    apt-get "${options[@]}" update
    (cd "$here" && apt-get "${options[@]}" -t "$release-backports" download qemu-user && dpkg-deb -x qemu-user_*.deb . && rm qemu-user_*.deb)
} >&2
recent "$here/usr/bin/qemu-aarch64"
echo "$here/usr/bin/qemu-aarch64"
