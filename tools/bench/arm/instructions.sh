#!/usr/bin/env bash
# Guest instructions a network call, in millions, on emulated ARM cores: tools/bench/arm/instructions.sh MODEL.onnx…
#
# The difference of runs of 2 and of 6 DDIM steps, over 4. It repeats to five digits, whatever else the machine does.
# It is no time: a core issues more or fewer of them a cycle. Needs qemu 5 to 8, dynamically linked, for its plugins
# (Debian 12: qemu-user, libc6:arm64), and what tools/cross/build.sh built.
set -euo pipefail
models=()
for model in "$@"; do models+=("$(realpath "$model")"); done
cd "$(dirname "$0")/../../.."
program=target/cross/aarch64-unknown-linux-gnu/device/edgegen
. tools/cross/tools.sh
library_for_qemu ld-linux-aarch64.so.1 /usr/aarch64-linux-gnu
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
"${CC:-cc}" -shared -fPIC -O2 -o "$out/count.so" tools/bench/arm/count.c

count() { # core, steps, model
    COUNT_OUT="$out/count" qemu-aarch64 -cpu "$1" -plugin "$out/count.so" "$program" -m "$3" --quiet \
        --threads 1 --sampler ddim --spacing leading --steps "$2" "$out/sample.npy"
    cat "$out/count"
}

printf '| network |'
printf ' %s |' cortex-a53 cortex-a72 cortex-a76 max
printf '\n|---|---|---|---|---|\n'
for model in "${models[@]}"; do
    printf '| %s |' "$(basename "$model" .onnx)"
    for core in cortex-a53 cortex-a72 cortex-a76 max; do
        few="$(count "$core" 2 "$model")" more="$(count "$core" 6 "$model")"
        awk -v n="$((more - few))" 'BEGIN { printf " %.1f |", n / 4e6 }'
    done
    printf '\n'
done
