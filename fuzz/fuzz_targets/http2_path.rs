//! Bytes of a client of HTTP/2 through the whole path of an exchange; see `src/http2.rs`.
#![no_main]

#[allow(dead_code)] // each target uses a part of it
#[path = "../src/harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    if let Err(finding) = harness::http2::run(script) {
        panic!("{finding}");
    }
});
