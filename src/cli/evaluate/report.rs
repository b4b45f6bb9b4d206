//! What is told: the steps as they happen, what held, and the verdict.

use tokio::time::Instant;

use crate::cli::error::CliError;
use crate::cli::output::{self, counted};

/// Tells the story on standard output.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    held: u64,
    broken: Vec<String>,
    /// The part of the story that is being told.
    act: String,
}

impl Default for Report {
    fn default() -> Self {
        Self { started: Instant::now(), held: 0, broken: Vec::new(), act: String::new() }
    }
}

impl Report {
    /// A part of the story begins.
    ///
    /// # Errors
    /// That nobody reads what is told any more; so with all of these.
    pub fn act(&mut self, title: &str) -> Result<(), CliError> {
        title.clone_into(&mut self.act);
        output::print(&format!("\n{title}"))
    }

    /// Something is done.
    ///
    /// # Errors
    /// As [`Report::act`].
    pub fn step(&self, what: &str) -> Result<(), CliError> {
        let seconds = self.started.elapsed().as_secs();
        output::print(&format!("{:4}:{:02}  {what}", seconds / 60, seconds % 60))
    }

    /// Something that is worth knowing.
    ///
    /// # Errors
    /// As [`Report::act`].
    pub fn note(&self, what: &str) -> Result<(), CliError> {
        output::print(&format!("           {what}"))
    }

    /// Something that must hold.
    ///
    /// # Errors
    /// As [`Report::act`].
    pub fn expect(&mut self, holds: bool, what: &str) -> Result<(), CliError> {
        if holds {
            self.held += 1;
            return self.note(&format!("holds: {what}"));
        }
        let act = self.act.split(':').next().unwrap_or_default();
        self.broken.push(format!("{act}: {what}"));
        self.note(&format!("BROKEN: {what}"))
    }

    /// What came of it all, in words, and whether everything held.
    #[must_use]
    pub fn verdict(&self) -> (bool, String) {
        let held = counted(self.held, "expectation");
        if self.broken.is_empty() {
            return (true, format!("\nverdict: everything held ({held})"));
        }
        let broken: Vec<String> = self.broken.iter().map(|what| format!("  {what}")).collect();
        (false, format!("\nverdict: {held} held, {} did not:\n{}", broken.len(), broken.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_thing_that_did_not_hold_is_the_verdict() {
        let mut report = Report::default();
        report.act("Act 1: beginnings").expect("printed");
        report.expect(true, "a").expect("printed");
        assert_eq!(report.verdict(), (true, "\nverdict: everything held (1 expectation)".to_owned()));
        report.expect(false, "b").expect("printed");
        report.expect(true, "c").expect("printed");
        assert_eq!(report.verdict(), (false, "\nverdict: 2 expectations held, 1 did not:\n  Act 1: b".to_owned()));
    }
}
