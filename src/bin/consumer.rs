//! Reads records. Everything stands in `callboard::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    callboard::cli::consumer_main()
}
