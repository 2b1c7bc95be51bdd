#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| placement_fuzz::run("matrix", data));
