#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ring_record::check(data));
