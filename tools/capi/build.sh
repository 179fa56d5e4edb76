#!/usr/bin/env bash
# Builds the C library and installs it with its header and pkg-config file: tools/capi/build.sh PREFIX
# FEATURES (default: capi,embedded-model) and PROFILE (default: dist) may be set; so may TARGET, for another machine, by
# tools/cross/build.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix="$(realpath -m "${1:?usage: tools/capi/build.sh PREFIX}")"
profile="${PROFILE:-dist}"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)"
library=(rustc -p edgegen --lib --profile "$profile" --no-default-features --features "${FEATURES:-capi,embedded-model}"
    --crate-type staticlib,cdylib -- -C link-arg=-Wl,-soname,libedgegen.so.0)
if [ -n "${TARGET:-}" ]; then
    tools/cross/build.sh "$TARGET" "${library[@]}"
    built="target/cross/$TARGET/$profile"
else
    cargo "${library[@]}"
    built="${CARGO_TARGET_DIR:-target}/$profile"
fi
install -d "$prefix/lib/pkgconfig" "$prefix/include"
install -m 644 include/edgegen.h "$prefix/include/"
install -m 644 "$built/libedgegen.a" "$prefix/lib/"
install -m 755 "$built/libedgegen.so" "$prefix/lib/libedgegen.so.0"
ln -sf libedgegen.so.0 "$prefix/lib/libedgegen.so"
cat > "$prefix/lib/pkgconfig/edgegen.pc" <<PC
prefix=$prefix
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: edgegen
Description: Samples from a diffusion model, on the device itself
Version: $version
Libs: -L\${libdir} -ledgegen
Libs.private: -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
Cflags: -I\${includedir}
PC
