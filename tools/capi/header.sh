#!/usr/bin/env bash
# Writes include/edgegen.h from src/capi, with cbindgen 0.29; with --check, fails if it is stale instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
header="$(mktemp)"; all="$(mktemp --suffix .rs)"
trap 'rm -f "$header" "$all"' EXIT
cat src/capi/{status,model,generator,policy_options,policy,decoder,mod}.rs | grep -v -e '^//!' -e '^#!\[' > "$all"
cbindgen --quiet --config tools/capi/cbindgen.toml --output "$header" "$all"
if [ "${1:-}" = --check ]; then
    diff -u include/edgegen.h "$header" || { echo "include/edgegen.h is stale: run tools/capi/header.sh" >&2; exit 1; }
else
    mkdir -p include && cp "$header" include/edgegen.h
fi
