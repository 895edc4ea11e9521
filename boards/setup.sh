#!/bin/sh
# Installs what the emulated boards need, where it is not there yet: a compiler for the Cortex-M targets and the emulator.
# Compiler: by rustup where it can download; else Debian's with the library's sources (tucano then builds `core` itself).
set -eu

targets="thumbv6m-none-eabi thumbv7m-none-eabi thumbv7em-none-eabihf thumbv8m.main-none-eabihf"
# Of the tests of the host runtime on another processor. Its library is only to be had precompiled.
host_target=aarch64-unknown-linux-musl
root=
[ "$(id -u)" = 0 ] || root=sudo
updated=

debian() {
    if ! command -v apt-get >/dev/null; then
        echo "setup.sh: no apt-get here; install by hand: $*" >&2
        exit 1
    fi
    [ -n "$updated" ] || $root apt-get update -q
    updated=yes
    DEBIAN_FRONTEND=noninteractive $root apt-get install -q -y --no-install-recommends "$@"
}

precompiled() {
    libraries="$(rustc --print sysroot 2>/dev/null)/lib/rustlib"
    for target in $targets; do
        [ -d "$libraries/$target/lib" ] || timeout 120 rustup target add "$target" || return 1
    done
}

from_source() {
    [ -f "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/core/src/lib.rs" ] ||
        debian rustc-web cargo-web rust-web-src
    # The linker: the one of any toolchain, else the system's.
    for rustc in rustc /usr/bin/rustc; do
        for linker in "$($rustc --print sysroot 2>/dev/null)"/lib/rustlib/*/bin/rust-lld; do
            [ ! -x "$linker" ] || return 0
        done
    done
    command -v ld.lld >/dev/null || debian lld
}

if [ "${TUCANO_BOARDS_TOOLCHAIN:-}" != source ] && precompiled; then
    echo "setup.sh: compiler: precompiled libraries of $(rustc --version)"
else
    echo "setup.sh: rustup cannot add the targets; taking a compiler with sources"
    from_source
    echo "setup.sh: compiler: libraries from source with $(/usr/bin/rustc --version)"
fi
command -v qemu-system-arm >/dev/null || debian qemu-system-arm
echo "setup.sh: emulator: $(qemu-system-arm --version | head -n 1)"
command -v qemu-aarch64 >/dev/null || debian qemu-user
echo "setup.sh: emulator: $(qemu-aarch64 --version | head -n 1)"
if [ -d "$(rustc --print sysroot)/lib/rustlib/$host_target/lib" ] || timeout 120 rustup target add "$host_target"; then
    echo "setup.sh: library of $host_target: there"
else
    echo "setup.sh: library of $host_target: ABSENT, rustup cannot add it; the tests of aarch64 will say so and run nothing"
fi
