#!/usr/bin/env bash
# Runs what tools/cross/build.sh builds for ARM on emulated cores: the tests, the program, and the C examples.
#
#   tools/cross/emulate.sh tests              the tests that need no tract, on each core
#   tools/cross/emulate.sh program [TARGET]   a picture by the program on each core, which must be the one that this
#                                             machine makes; for 64-bit ARM with glibc, or another target of build.sh
#   tools/cross/emulate.sh capi               the C examples with the C library on each core: the same pictures, and no
#                                             cycle that fails
#
# Needs qemu-user and the target's C library (Debian: qemu-user-static and libc6:arm64; libc6:armhf for 32 bits).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/cross/tools.sh
# Raspberry Pi 3, 4 and 5, and all that the emulator has
cores=(cortex-a53 cortex-a72 cortex-a76 max)
emulator() { qemu="$(command -v "qemu-$1-static" || command -v "qemu-$1")"; }
emulator aarch64
library_for_qemu ld-linux-aarch64.so.1 /usr/aarch64-linux-gnu
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT

tests() {
    local listed="$out/tests.json" name
    tools/cross/build.sh aarch64-unknown-linux-gnu test --no-run --release --no-default-features -p edgegen -p edgegen-kernels \
        --features edgegen/output,edgegen/embedded-model,edgegen/capi --lib --test golden --test quantized --test c_api --test noise \
        --message-format json > "$listed"
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
    local target="${1:-aarch64-unknown-linux-gnu}" core start end
    local built="target/cross/$target/device/edgegen"
    case "$target" in armv7-*)
        # Raspberry Pi 2, and all that the emulator has
        cores=(cortex-a7 max)
        emulator arm
        library_for_qemu ld-linux-armhf.so.3 /usr/arm-linux-gnueabihf
        ;;
    esac
    tools/cross/build.sh "$target"
    echo "$(stat -c %s "$built") bytes, needs $(readelf -V "$built" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1 || true)"
    cargo run --quiet --release -- --steps 10 "$out/here.png"
    for core in "${cores[@]}"; do
        start="$(date +%s%N)"
        "$qemu" -cpu "$core" "$built" --quiet --steps 10 "$out/$core.png"
        end="$(date +%s%N)"
        cmp "$out/here.png" "$out/$core.png"
        echo "$core: the same picture, $(((end - start) / 1000000)) ms"
    done
}

capi() {
    local target=aarch64-unknown-linux-gnu prefix="$PWD/target/capi-arm" example core
    zig_on_path
    TARGET=$target tools/capi/build.sh "$prefix"
    for example in frame_filler control_loop; do
        python3 -m ziglang cc -target aarch64-linux-gnu.2.31 -std=c11 -Wall -Wextra -Wpedantic -Werror -O2 \
            "examples/c/$example.c" "-I$prefix/include" "-L$prefix/lib" -ledgegen -o "$out/$example"
        # and all of the library in the program
        python3 -m ziglang cc -target aarch64-linux-gnu.2.31 -std=c11 -O2 "examples/c/$example.c" "-I$prefix/include" \
            "$prefix/lib/libedgegen.a" -lunwind -s -o "$out/$example-alone"
        stat -c '%n: %s bytes' "$out/$example-alone"
    done
    # as tools/capi/check.sh builds it
    tools/capi/build.sh "$PWD/target/capi-installed"
    "${CC:-cc}" -std=c11 -O2 examples/c/frame_filler.c -Iinclude target/capi-installed/lib/libedgegen.a -lm -lpthread -ldl -o "$out/here"
    "$out/here" "$out/here.pgm"
    for core in "${cores[@]}"; do
        for example in frame_filler frame_filler-alone; do
            "$qemu" -cpu "$core" -E "LD_LIBRARY_PATH=$prefix/lib" "$out/$example" "$out/$core.pgm"
            cmp "$out/here.pgm" "$out/$core.pgm"
        done
        echo "$core: the same pictures"
        "$qemu" -cpu "$core" -E "LD_LIBRARY_PATH=$prefix/lib" "$out/control_loop" 2000000 3
    done
}

case "${1:-}" in
    tests | program | capi) "$@" ;;
    *)
        echo "usage: tools/cross/emulate.sh tests|program|capi" >&2
        exit 2
        ;;
esac
