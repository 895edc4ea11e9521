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
cargo fmt --manifest-path boards/qemu/Cargo.toml --check

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

stage "done"
