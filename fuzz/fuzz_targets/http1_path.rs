//! Bytes of a client, or of a node, through the whole path of an exchange; see `src/harness.rs`.
#![no_main]

#[allow(dead_code)] // each target uses a part of it
#[path = "../src/harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    if let Err(finding) = harness::run(script) {
        panic!("{finding}");
    }
});
