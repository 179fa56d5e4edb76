#!/usr/bin/env bash
# Guest instructions of onnxruntime a network call, in millions, on emulated ARM cores, as instructions.sh counts those of
# edgegen: tools/bench/arm/onnxruntime.sh MODEL.onnx…
#
# The difference of 2 and of 22 calls, over 20; Python's start differs by some millions from run to run, so it repeats to
# about 0.2. Needs what instructions.sh needs, on Debian 12 with its packages for arm64 (dpkg --add-architecture arm64), of
# which it unpacks Python into target/arm-python, beside onnxruntime's wheel; nothing is installed.
set -euo pipefail
models=()
for model in "$@"; do models+=("$(realpath "$model")"); done
cd "$(dirname "$0")/../../.."
root="$PWD/target/arm-python"
if [ ! -e "$root/ready" ]; then
    rm -rf "$root" && mkdir -p "$root/packages" "$root/wheels" "$root/site"
    (cd "$root/packages" && apt-get download {python3.11-minimal,libpython3.11-minimal,libpython3.11-stdlib}:arm64 \
        {zlib1g,libexpat1,libffi8,libstdc++6,libgcc-s1}:arm64)
    for package in "$root"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
    python3 -m pip download -q -d "$root/wheels" -r tools/bench/requirements.txt --no-deps --only-binary=:all: \
        --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64
    for wheel in "$root"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/site"; done
    touch "$root/ready"
fi
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
"${CC:-cc}" -shared -fPIC -O2 -o "$out/count.so" tools/bench/arm/count.c

# onnxruntime reads the core's features there, and falls over those of the host
cpuinfo() { # core, part, further features
    mkdir -p "$out/$1/proc"
    printf '%s\t: %s\n' processor 0 Features "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid$3" 'CPU implementer' 0x41 \
        'CPU architecture' 8 'CPU variant' 0x0 'CPU part' "$2" 'CPU revision' 3 > "$out/$1/proc/cpuinfo"
}
cpuinfo cortex-a72 0xd08 ''
cpuinfo cortex-a76 0xd0b ' atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp'

count() { # core, calls, model
    COUNT_OUT="$out/count" qemu-aarch64 -L "$out/$1" -cpu "$1" -plugin "$out/count.so" \
        -E LD_LIBRARY_PATH="$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu" -E PYTHONHOME="$root/usr" \
        -E PYTHONPATH="$root/site" -E PYTHONHASHSEED=0 -E ORT_DISABLE_TELEMETRY=1 \
        "$root/usr/bin/python3.11" tools/bench/arm/ort_calls.py "$3" "$2"
    cat "$out/count"
}

printf '| network | cortex-a72 | cortex-a76 |\n|---|---|---|\n'
for model in "${models[@]}"; do
    printf '| %s |' "$(basename "$model" .onnx)"
    for core in cortex-a72 cortex-a76; do
        few="$(count "$core" 2 "$model")" more="$(count "$core" 22 "$model")"
        awk -v n="$((more - few))" 'BEGIN { printf " %.1f |", n / 20e6 }'
    done
    printf '\n'
done
