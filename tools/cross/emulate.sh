#!/usr/bin/env bash
# Runs what tools/cross/build.sh built for 64-bit ARM on emulated cores: the tests, the program, and the C examples.
#
#   tools/cross/emulate.sh tests     the tests that need no tract, on each core
#   tools/cross/emulate.sh program   a picture by the program on each core, which must be the one that this machine makes
#
# Needs qemu-aarch64 and the target's C library (Debian: qemu-user-static and libc6:arm64).
set -euo pipefail
cd "$(dirname "$0")/../.."
# Raspberry Pi 3, 4 and 5, and all that the emulator has
cores=(cortex-a53 cortex-a72 cortex-a76 max)
qemu="$(command -v qemu-aarch64-static || command -v qemu-aarch64)"
# the target's C library: its own, or that of a cross compiler. Both at once do not go together: programs hang.
[ -e /lib/ld-linux-aarch64.so.1 ] || export QEMU_LD_PREFIX="${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT

tests() {
    local listed="$out/tests.json" name
    tools/cross/build.sh aarch64-unknown-linux-gnu test --no-run --release --no-default-features --features output,embedded-model,capi \
        --lib --test golden --test quantized --test c_api --test noise --message-format json > "$listed"
    python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        print(message["executable"])' < "$listed" > "$out/programs"
    for core in "${cores[@]}"; do
        while read -r program; do
            name="$(basename "$program")"
            echo "== $core: ${name%-*}"
            "$qemu" -cpu "$core" "$program" --test-threads 2 --quiet
        done < "$out/programs"
    done
}

program() {
    local built=target/cross/aarch64-unknown-linux-gnu/device/edgegen
    tools/cross/build.sh aarch64-unknown-linux-gnu
    local glibc
    glibc="$(aarch64-linux-gnu-objdump -T "$built" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)"
    echo "$(stat -c %s "$built") bytes, needs $glibc"
    cargo run --quiet --release -- --steps 10 "$out/here.png"
    for core in "${cores[@]}"; do
        local start end
        start="$(date +%s%N)"
        "$qemu" -cpu "$core" "$built" --quiet --steps 10 "$out/$core.png"
        end="$(date +%s%N)"
        cmp "$out/here.png" "$out/$core.png"
        echo "$core: the same picture, $(((end - start) / 1000000)) ms"
    done
}

case "${1:-}" in
    tests | program) "$1" ;;
    *)
        echo "usage: tools/cross/emulate.sh tests|program" >&2
        exit 2
        ;;
esac
