#!/usr/bin/env bash
# The program for devices as a Debian package: tools/cross/deb.sh [TARGET] (default: aarch64-unknown-linux-gnu)
#
# Needs cargo-deb (`cargo install --locked cargo-deb`). The package lies in target/cross/debian/.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${1:-aarch64-unknown-linux-gnu}"

tools/cross/build.sh "$target"
# what this machine's program prints is what any would
mkdir -p target/completions
for shell in bash zsh fish; do
    cargo run --quiet --release -- completions "$shell" > "target/completions/edgegen.$shell"
done
CARGO_TARGET_DIR=target/cross cargo deb --no-build --no-strip --profile device --target "$target"
