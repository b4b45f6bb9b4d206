//! The command line: what is typed becomes calls of the client library, of the node, and of the offline log tools.
//!
//! ```text
//!   callboard ─┬─ node, config ───────────────► config ─► actors
//!              ├─ log dump, verify ───────────► storage::inspect
//!              ├─ topic, cluster ─► admin calls ┐
//!              ├─ doctor ─► checks ◄─ files, admin calls
//!              ├─ bench ─► bench/ ──────────────┤
//!   callboard-producer ─ produce/ ─► Producer ──┼─► client
//!   callboard-consumer ─ consume/ ─► Consumer ──┘
//! ```
//!
//! Records go to stdout, everything about them to stderr. Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration,
//! 3 the cluster was not reached. A reader of stdout that goes away (`| head`) ends a command quietly.
//!
//! Reading order: [`args`], [`error`], then the folder of the command.

pub mod args;
pub mod bench;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod consume;
pub mod dev_cluster;
pub mod doctor;
pub mod error;
pub mod evaluate;
pub mod examples;
pub mod lag;
pub mod local_cluster;
pub mod log;
pub mod log_level;
pub mod man;
pub mod node;
pub mod output;
pub mod produce;
pub mod progress;
pub mod stop;
pub mod topic;
pub mod warnings;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;

use args::{Callboard, Command, ConnectArgs, ConsumerProgram, ProducerProgram};
use error::CliError;

use crate::client::{Client, ClientConfig};

/// The threads of a command's runtime: one for the sockets, one for the command.
const RUNTIME_THREADS: usize = 2;

/// `callboard`.
#[must_use]
pub fn callboard_main() -> ExitCode {
    let Callboard { connect, command } = Callboard::parse();
    finish(match command {
        Command::Node(args) => node::run(&args),
        Command::Config(command) => config::run(&command, connect.json),
        Command::Doctor(args) => block_on(doctor::run(&connect, &args)),
        Command::Log(command) => log::run(&command, connect.json),
        Command::Topic(command) => block_on(topic::run(&connect, command)),
        Command::Cluster(command) => block_on(cluster::run(&connect, &command)),
        Command::Produce(args) => block_on(produce::run(&connect, *args)),
        Command::Consume(args) => block_on(consume::run(&connect, *args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Bench(command) => bench::run(&connect, command),
        Command::DevCluster(args) => block_on(dev_cluster::run(&args)),
        Command::Evaluate(command) => block_on(evaluate::run(command)),
    })
}

/// `callboard-producer`.
#[must_use]
pub fn producer_main() -> ExitCode {
    let ProducerProgram { connect, produce } = ProducerProgram::parse();
    finish(block_on(produce::run(&connect, produce)))
}

/// `callboard-consumer`.
#[must_use]
pub fn consumer_main() -> ExitCode {
    let ConsumerProgram { connect, consume } = ConsumerProgram::parse();
    finish(block_on(consume::run(&connect, consume)))
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    warnings::show();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(command);
    // What still runs is abandoned: a thread that waits for stdin would never end.
    runtime.shutdown_background();
    result
}

fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) | Err(CliError::OutputClosed) => ExitCode::SUCCESS,
        Err(error) => {
            progress::print_line(&format!("error: {}", one_line(&error.to_string())));
            ExitCode::from(error.exit_code())
        }
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

async fn connect(args: &ConnectArgs, client_id: &str) -> Result<Client, CliError> {
    Ok(Client::connect(ClientConfig::new(&args.server).client_id(client_id)).await?)
}
