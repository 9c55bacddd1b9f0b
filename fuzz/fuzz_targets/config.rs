//! A file of an operator; see `src/config.rs`.
#![no_main]

#[path = "../src/config.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = harness::run(bytes) {
        panic!("{finding}");
    }
});
