//! Sends records. Everything stands in `callboard::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    callboard::cli::producer_main()
}
