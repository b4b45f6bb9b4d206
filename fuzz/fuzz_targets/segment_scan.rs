#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callboard::fuzz::fuzz_segment_scan(bytes));
