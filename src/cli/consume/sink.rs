//! Where records are written: stdout or a file, through one buffer.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::format::Formatter;
use crate::cli::error::CliError;
use crate::client::ConsumedRecord;

/// Bytes collected before they are written: a pipe's or a few pages' worth of system calls saved.
const BUFFER_BYTES: usize = 256 << 10;

/// A buffered output with its name for errors.
pub struct Sink {
    out: Box<dyn Write + Send>,
    name: String,
    buffer: Vec<u8>,
    formatter: Formatter,
}

impl Sink {
    /// Standard output.
    #[must_use]
    pub fn stdout(formatter: Formatter) -> Self {
        Self::new(Box::new(io::stdout()), "standard output".to_owned(), formatter)
    }

    /// A file, made anew.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn file(path: &Path, formatter: Formatter) -> Result<Self, CliError> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|error| CliError::writing(&name, &error))?;
        Ok(Self::new(Box::new(file), name, formatter))
    }

    /// Any output, with its name for errors.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, name: String, formatter: Formatter) -> Self {
        Self { out, name, buffer: Vec::with_capacity(BUFFER_BYTES), formatter }
    }

    /// Adds a record, and writes when enough has been collected.
    ///
    /// # Errors
    /// [`CliError::OutputClosed`] when the reader is gone, [`CliError::Output`] for anything else.
    pub fn append(&mut self, record: &ConsumedRecord) -> Result<(), CliError> {
        self.formatter.append(record, &mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what has been collected.
    ///
    /// # Errors
    /// As [`Sink::append`].
    pub fn flush(&mut self) -> Result<(), CliError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
        self.buffer.clear();
        // One large record must not hold its memory for ever.
        self.buffer.shrink_to(BUFFER_BYTES);
        written.map_err(|error| CliError::writing(&self.name, &error))
    }
}
