//! What a peer says of whom it forwards for; see `src/forwarded.rs`.
#![no_main]

#[path = "../src/forwarded.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = harness::run(bytes) {
        panic!("{finding}");
    }
});
