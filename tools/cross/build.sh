#!/usr/bin/env bash
# Builds edgegen for another machine, without docker: tools/cross/build.sh TARGET [CARGO ARGUMENTS…]
#
#   aarch64-unknown-linux-gnu       64-bit Raspberry Pi OS (bullseye on), JetPack 5 on, and any other with glibc 2.31
#   aarch64-unknown-linux-musl      any 64-bit ARM Linux: a static program
#   armv7-unknown-linux-gnueabihf   32-bit Raspberry Pi OS, with glibc 2.31
#
# Without further arguments it builds the program for devices (profile device, without tract). zig links, which brings
# every C library along. The standard library for the target is rustup's, or Debian's, or else made from its source.
# GLIBC (default: 2.31) is the oldest C library that the program is to run on. Built files lie in
# target/cross/TARGET/.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${1:?usage: tools/cross/build.sh TARGET [CARGO ARGUMENTS]}"
shift
[ $# -gt 0 ] || set -- build --profile device --no-default-features --features cli,embedded-model --bin edgegen

. tools/cross/tools.sh
zig_on_path

has_std() { [ -d "$("$1" --print sysroot)/lib/rustlib/$target/lib" ]; }
debian=/usr/bin/rustc # of Debian's rustc-web
std=()
if has_std rustc || { command -v rustup > /dev/null && rustup target add "$target" 2> /dev/null && has_std rustc; }; then
    :
elif [ -x "$debian" ] && has_std "$debian"; then
    export RUSTC="$debian"
else
    # the standard library's source: rustup's, or of Debian's rust-web-src
    for rustc in rustc "$debian"; do
        command -v "$rustc" > /dev/null && [ -d "$("$rustc" --print sysroot)/lib/rustlib/src/rust/library" ] || continue
        export RUSTC="$rustc" RUSTC_BOOTSTRAP=1
        std=(-Z build-std=std,panic_abort)
    done
    if [ ${#std[@]} = 0 ]; then
        echo "there is no standard library for $target: install it with \`rustup target add $target\`, or its source with" \
            "\`rustup component add rust-src\`; on Debian, with \`apt-get install rustc-web libstd-rust-web-dev:arm64\` or" \
            "\`rust-web-src\`" >&2
        exit 1
    fi
fi
command="$1"
shift
case "$target" in *-gnu*) versioned="$target.${GLIBC:-2.31}" ;; *) versioned="$target" ;; esac
exec cargo-zigbuild "$([ "$command" = build ] && echo zigbuild || echo "$command")" --target "$versioned" \
    --target-dir target/cross ${std[@]+"${std[@]}"} "$@"
