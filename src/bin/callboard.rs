//! The node, and the administration of a cluster. Everything stands in `callboard::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    callboard::cli::callboard_main()
}
