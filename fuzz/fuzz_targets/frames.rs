//! Bytes of a tunnel; see `src/frames.rs`.
#![no_main]

#[path = "../src/frames.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = harness::run(bytes) {
        panic!("{finding}");
    }
});
