//! Fields of cookies; see `src/cookies.rs`.
#![no_main]

#[path = "../src/cookies.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = harness::run(bytes) {
        panic!("{finding}");
    }
});
