# For scripts that run in the project's folder: what they need to build for other machines, and to run what they built.

# Puts cargo-zigbuild and zig on the path, as Python packages if they are not there.
zig_on_path() {
    local tools="$PWD/target/cross/tools"
    command -v cargo-zigbuild > /dev/null && python3 -c 'import ziglang' 2> /dev/null && return
    [ -x "$tools/bin/cargo-zigbuild" ] || { python3 -m venv "$tools" && "$tools/bin/pip" install -q cargo-zigbuild ziglang; }
    export PATH="$tools/bin:$PATH"
}

# Shows qemu the target's C library: its own, or that of a cross compiler. Both at once do not go together: programs hang.
library_for_qemu() { # loader, folder of the cross compiler
    [ -e "/lib/$1" ] || export QEMU_LD_PREFIX="${QEMU_LD_PREFIX:-$2}"
}
