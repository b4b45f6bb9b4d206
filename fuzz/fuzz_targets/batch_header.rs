#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callboard::fuzz::fuzz_batch_header(bytes));
