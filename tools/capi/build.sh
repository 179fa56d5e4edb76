#!/usr/bin/env bash
# Builds the C library and installs it with its header and pkg-config file: tools/capi/build.sh PREFIX
# FEATURES (default: capi,embedded-model), PROFILE (default: dist) and TARGET may be set.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix="$(realpath -m "${1:?usage: tools/capi/build.sh PREFIX}")"
profile="${PROFILE:-dist}"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)"
cargo rustc -p edgegen --lib --profile "$profile" --no-default-features --features "${FEATURES:-capi,embedded-model}" \
    ${TARGET:+--target "$TARGET"} --crate-type staticlib,cdylib -- -C link-arg=-Wl,-soname,libedgegen.so.0
built="${CARGO_TARGET_DIR:-target}/${TARGET:+$TARGET/}$profile"
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
