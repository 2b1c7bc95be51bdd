#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    latency_probe_fuzz::accept_header(bytes);
});
