//! `callboard man`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::completions::Program;
use super::error::CliError;
use super::output::{self, counted};

/// `callboard man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write them; created when it is missing
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
}

/// Writes a page for each program and each of its commands: `callboard-topic-create.1` and so on.
///
/// # Errors
/// [`CliError::Output`] names the directory or file.
pub fn run(args: &ManArgs) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| CliError::Output { path, reason: error.to_string() }
    };
    std::fs::create_dir_all(&args.output).map_err(failed(&args.output))?;
    let mut pages = 0;
    for program in Program::value_variants() {
        let mut command = program.command().disable_help_subcommand(true);
        command.build();
        for (name, page) in pages_of(&command) {
            let path = args.output.join(name);
            let mut bytes = Vec::new();
            page.render(&mut bytes).and_then(|()| std::fs::write(&path, &bytes)).map_err(failed(&path))?;
            pages += 1;
        }
    }
    output::print(&format!("{} written to {}", counted(pages, "page"), args.output.display()))
}

/// The pages of a command and of all below it, by file name.
fn pages_of(command: &clap::Command) -> Vec<(String, clap_mangen::Man)> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = clap_mangen::Man::new(command.clone())
        .title(name.clone())
        .source(concat!("callboard ", env!("CARGO_PKG_VERSION")))
        .manual("Callboard");
    let mut pages = vec![(format!("{name}.1"), page)];
    pages.extend(command.get_subcommands().filter(|below| !below.is_hide_set()).flat_map(pages_of));
    pages
}
