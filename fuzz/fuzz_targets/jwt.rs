//! A target of cargo-fuzz; what it does stands in `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "the others are for the other targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::jwt(data));
