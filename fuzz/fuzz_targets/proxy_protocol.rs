//! The header of a proxy in front of a listener; see `src/proxy_header.rs`.
#![no_main]

#[path = "../src/proxy_header.rs"]
mod proxy_header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = proxy_header::run(bytes) {
        panic!("{finding}");
    }
});
