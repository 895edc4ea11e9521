//! Coverage-guided fuzzing of `tucano_tests::fuzz::host`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tucano_tests::fuzz::host(bytes));
