//! `callboard completions`.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::args::{Callboard, ConsumerProgram, ProducerProgram};
use super::error::CliError;
use super::output;

/// `callboard completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
    /// The program that is to be completed
    #[arg(long, value_name = "NAME", default_value = "callboard")]
    pub program: Program,
}

/// The programs that can be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// `callboard`.
    #[value(name = "callboard")]
    Callboard,
    /// `callboard-producer`.
    #[value(name = "callboard-producer")]
    Producer,
    /// `callboard-consumer`.
    #[value(name = "callboard-consumer")]
    Consumer,
}

impl Program {
    /// What it takes.
    #[must_use]
    pub fn command(self) -> clap::Command {
        match self {
            Self::Callboard => Callboard::command(),
            Self::Producer => ProducerProgram::command(),
            Self::Consumer => ConsumerProgram::command(),
        }
    }
}

/// Prints the script.
///
/// # Errors
/// [`CliError`] when it could not be written.
pub fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut command = args.program.command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())
}
