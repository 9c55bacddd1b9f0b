//! What is read as NocoBase's words; see `src/nocobase.rs`.
#![no_main]

#[path = "../src/nocobase.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = harness::run(bytes) {
        panic!("{finding}");
    }
});
