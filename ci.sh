#!/usr/bin/env bash
# Everything that must hold before a change lands, from formatting to emulated boards: `./ci.sh`.
# Each stage prints what it ran. A stage that cannot run (no emulator, no cross toolchain) fails; none is skipped.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=never

stage() {
    printf '\n=== %s (%ss)\n' "$1" "$SECONDS"
}

stage "set-up: emulator and cross targets"
boards/setup.sh

stage "formatting"
cargo fmt --all --check
for crate in boards/qemu tests/panic-free tests/fuzz; do
    cargo fmt --manifest-path "$crate/Cargo.toml" --check
done

stage "rules that no tool knows"
# The compiler hides `dsp` on stable, so code behind it would silently be the slow one.
if grep -rn --include='*.rs' 'target_feature *= *"dsp"' runtime converter boards tests benches; then
    echo "a kernel must be chosen by the target, not by cfg(target_feature = \"dsp\")"
    exit 1
fi
# Needed to build `core` where no precompiled one is to be had, and nowhere else.
if grep -rln --include='*.rs' --include='*.toml' 'RUSTC_BOOTSTRAP' runtime converter boards tests benches |
    grep -v '^converter/src/boards/toolchain.rs$'; then
    echo "RUSTC_BOOTSTRAP is used outside converter/src/boards/toolchain.rs"
    exit 1
fi
# Unsafe code stands in backends, in firmware, and in the proof that nothing panics.
if grep -rln --include='*.rs' 'unsafe *{\|unsafe *fn\|unsafe *impl' runtime/src converter/src benches tests/src tests/tests |
    grep -v '^runtime/src/backend/'; then
    echo "unsafe code outside runtime/src/backend and boards"
    exit 1
fi
echo "kept"

stage "clippy, warnings denied"
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo clippy -p tucano --locked -- -D warnings

stage "documentation, warnings denied"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

stage "tests: host, emulated boards"
if [ -d "${TUCANO_ZOO:-../shared/zoo}" ]; then
    echo "zoo: present, the tests on its models run"
else
    echo "zoo: ABSENT. Only the models in tests/models are tested."
fi
cargo test --workspace --locked

stage "benches, once as tests"
cargo test --workspace --benches --locked

# A stable compiler has the sanitizer's runtime, but its flag is unstable. Loads of inline assembly are not seen.
stage "the fuzzers' mutants under AddressSanitizer, backends of hosts included"
RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --locked \
    --target x86_64-unknown-linux-gnu -p tucano-tests --test fuzz --test fuzz_load

stage "done"
