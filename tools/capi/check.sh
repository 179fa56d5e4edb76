#!/usr/bin/env bash
# Builds the C library and the C examples, runs them, and looks at what they do to the system:
#
#   tools/capi/check.sh           build, run; memory errors, leaks and allocations by valgrind, and system calls by
#                                 strace, if they are installed
#   tools/capi/check.sh threads   the API's tests under ThreadSanitizer and AddressSanitizer; needs a nightly toolchain
#                                 with rust-src
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "${1:-}" = threads ]; then
    host="$(rustc -vV | sed -n 's/^host: //p')"
    for sanitizer in thread address; do
        echo "== $sanitizer"
        RUSTFLAGS="-Zsanitizer=$sanitizer" cargo +nightly test -Zbuild-std --target "$host" \
            --target-dir "target/sanitize-$sanitizer" --no-default-features --features capi,embedded-model,output --test c_api
    done
    exit
fi

prefix="$PWD/target/capi-installed"
tools/capi/build.sh "$prefix"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig" LD_LIBRARY_PATH="$prefix/lib"
read -ra flags <<< "$(pkg-config --cflags --libs edgegen 2> /dev/null || echo "-I$prefix/include -L$prefix/lib -ledgegen")"
for example in frame_filler control_loop policy_loop; do
    "${CC:-cc}" -std=c11 -Wall -Wextra -Wpedantic -Werror -O2 "examples/c/$example.c" "${flags[@]}" -o "$out/$example"
done
# a C++ program may include the header too
echo '#include <edgegen.h>' | "${CXX:-c++}" -std=c++17 -Wall -Wextra -Wpedantic -Werror "-I$prefix/include" -fsyntax-only -x c++ -
# and the library may be linked whole
read -ra alone <<< "$(sed -n 's/^Libs.private: //p' "$prefix/lib/pkgconfig/edgegen.pc")"
"${CC:-cc}" -std=c11 -O2 "-I$prefix/include" examples/c/frame_filler.c "$prefix/lib/libedgegen.a" "${alone[@]}" -o "$out/static"

"$out/frame_filler" "$out/a.pgm"
"$out/static" "$out/b.pgm"
cmp "$out/a.pgm" "$out/b.pgm"
"$out/control_loop" 20000 100
policy=examples/policy/push.onnx
"$out/policy_loop" "$policy" 2 10000 200

if command -v valgrind > /dev/null; then
    valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=all "$out/frame_filler" "$out/c.pgm"
    # valgrind's CPU has no AVX-512: the same picture by other kernels
    cmp "$out/a.pgm" "$out/c.pgm"
    valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=all "$out/control_loop" 200000 5
    valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=all "$out/policy_loop" "$policy" 2 100000 10
    echo "valgrind: no errors, no leaks"
    allocations() {
        valgrind "$out/control_loop" 200000 "$1" 2>&1 | sed -n 's/.*total heap usage: \([0-9,]*\) allocs.*/\1/p'
    }
    few="$(allocations 5)" more="$(allocations 25)"
    echo "valgrind: $few allocations by 5 cycles, $more by 25"
    [ -n "$few" ] && [ "$few" = "$more" ]
fi

if command -v strace > /dev/null; then
    strace -f -o "$out/trace" "$out/control_loop" 20000 100 > /dev/null
    # from the first sleep to the last; one that a signal breaks off is gone on with
    awk '/clock_nanosleep|restart_syscall/ { sleeps++; others += since; since = 0; next } sleeps { since++ }
        END { printf "strace: %d sleeps of the loop, %d other system calls between them\n", sleeps, others; exit others > 0 || sleeps < 50 }' \
        "$out/trace"
    # the loop of a policy: of the thread that acts, whose calls begin the trace, futex alone wakes the one that plans
    strace -f -o "$out/trace" "$out/policy_loop" "$policy" 2 20000 100 > /dev/null
    awk 'NR == 1 { loop = $1 } $1 != loop { next }
        /clock_nanosleep|restart_syscall/ { sleeps++; others += since; wakes += woken; since = woken = 0; next }
        /futex/ { woken += !/resumed/; next } sleeps { since++ }
        END { printf "strace: %d sleeps of a policy\047s loop, %d wakes and %d other system calls between them\n", sleeps, wakes, others
            exit others > 0 || wakes > sleeps || sleeps < 50 }' "$out/trace"
fi
