//! Standard input as records: bytes between delimiters, whatever the bytes are.
//!
//! A record is what stands before a delimiter; what follows the last one is a record too, unless it is empty. So `a\nb\n`
//! and `a\nb` are the same two records, and whether the last one was ended is told by [`Lines::last_is_open`].

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes asked of the input at a time: large enough that reading costs little, small enough to start at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The longest record, in bytes: what no topic's `max_batch_bytes` can exceed. Bounds the memory of input without an end.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// Records handed over at a time. Smaller than a chunk of short lines, so that what waits in the queue stays small.
const RECORDS_AT_A_TIME: usize = 4_096;

/// Portions waiting to be sent: enough to keep the sender busy while the next chunk is read.
const QUEUE_PORTIONS: usize = 4;

/// One or more bytes that end a record, or stand between key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiter(Vec<u8>);

impl Delimiter {
    /// From text with the escapes `\n`, `\r`, `\t`, `\0` and `\\`.
    ///
    /// # Errors
    /// A sentence about the text, when it is empty or has another escape.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            bytes.push(match characters.next() {
                Some('n') => b'\n',
                Some('r') => b'\r',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                _ => return Err("after \\ give n, r, t, 0 or \\".to_owned()),
            });
        }
        if bytes.is_empty() { Err("give at least one character".to_owned()) } else { Ok(Self(bytes)) }
    }

    /// The bytes themselves.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where it first stands in `text`.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        let (&first, rest) = self.0.split_first()?;
        let mut from = 0;
        while let Some(found) = text[from..].iter().position(|&byte| byte == first) {
            let at = from + found;
            if text[at + 1..].starts_with(rest) {
                return Some(at);
            }
            from = at + 1;
        }
        None
    }
}

/// The input cannot be split any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinesError {
    /// A record without an end in sight.
    #[error(
        "record {number} of the input is longer than {MAX_RECORD_BYTES} bytes, more than any topic takes: check --delimiter"
    )]
    TooLong {
        /// Which record, from 1.
        number: u64,
    },
    /// The input could not be read.
    #[error("cannot read standard input: {reason}")]
    Unreadable {
        /// What the operating system says.
        reason: String,
    },
}

/// Splits a stream of bytes at a delimiter. Records share the memory of the chunk that brought them.
#[derive(Debug)]
pub struct Lines {
    delimiter: Delimiter,
    /// What came after the last delimiter.
    rest: BytesMut,
    /// How much of `rest` is known to hold no delimiter.
    searched: usize,
    count: u64,
    max_record_bytes: usize,
}

impl Lines {
    /// Splits at `delimiter`.
    #[must_use]
    pub fn new(delimiter: Delimiter) -> Self {
        Self { delimiter, rest: BytesMut::new(), searched: 0, count: 0, max_record_bytes: MAX_RECORD_BYTES }
    }

    /// Adds `chunk` and gives each record that it completes to `out`.
    ///
    /// # Errors
    /// [`LinesError::TooLong`].
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<Bytes>) -> Result<(), LinesError> {
        self.rest.extend_from_slice(chunk);
        while let Some(found) = self.delimiter.find(&self.rest[self.searched..]) {
            let mut record = self.rest.split_to(self.searched + found + self.delimiter.0.len());
            record.truncate(self.searched + found);
            self.searched = 0;
            self.take(record.freeze(), out)?;
        }
        // The end may hold the beginning of a delimiter of several bytes.
        self.searched = self.rest.len().saturating_sub(self.delimiter.0.len() - 1);
        self.check(self.rest.len())
    }

    /// Gives what follows the last delimiter, if anything does.
    ///
    /// # Errors
    /// [`LinesError::TooLong`].
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), LinesError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let record = self.rest.split().freeze();
        self.searched = 0;
        self.take(record, out)
    }

    /// Whether something follows the last delimiter.
    #[must_use]
    pub fn last_is_open(&self) -> bool {
        !self.rest.is_empty()
    }

    fn take(&mut self, record: Bytes, out: &mut Vec<Bytes>) -> Result<(), LinesError> {
        self.check(record.len())?;
        self.count += 1;
        out.push(record);
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), LinesError> {
        if length > self.max_record_bytes {
            return Err(LinesError::TooLong { number: self.count + 1 });
        }
        Ok(())
    }
}

/// What the reading thread hands over.
#[derive(Debug)]
pub enum Portion {
    /// Records, in the order of the input.
    Records(Vec<Bytes>),
    /// The input has ended.
    End {
        /// Whether the last record had no delimiter behind it.
        last_is_open: bool,
    },
    /// The input cannot be read further.
    Failed(LinesError),
}

/// Reads `input` on a thread of its own, because reading a terminal or a pipe blocks for as long as nobody writes. The
/// thread ends with the input or when the receiver is dropped; one that waits for input dies with the process.
#[must_use]
pub fn read_on_thread(mut input: impl Read + Send + 'static, delimiter: Delimiter) -> mpsc::Receiver<Portion> {
    let (sender, receiver) = mpsc::channel(QUEUE_PORTIONS);
    std::thread::spawn(move || {
        let last = match read_all(&mut input, delimiter, &sender) {
            Ok(last_is_open) => Portion::End { last_is_open },
            Err(error) => Portion::Failed(error),
        };
        // Nobody listens any more after Ctrl-C or a failure.
        let _ = sender.blocking_send(last);
    });
    receiver
}

fn read_all(input: &mut impl Read, delimiter: Delimiter, sender: &mpsc::Sender<Portion>) -> Result<bool, LinesError> {
    let mut lines = Lines::new(delimiter);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut records = Vec::new();
    loop {
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(LinesError::Unreadable { reason: error.to_string() }),
        };
        let last_is_open = lines.last_is_open();
        let split = if length == 0 { lines.finish(&mut records) } else { lines.push(&chunk[..length], &mut records) };
        for portion in records.chunks(RECORDS_AT_A_TIME) {
            if sender.blocking_send(Portion::Records(portion.to_vec())).is_err() {
                return Ok(false);
            }
        }
        records.clear();
        split?;
        if length == 0 {
            return Ok(last_is_open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newline() -> Delimiter {
        Delimiter::parse("\\n").expect("a good delimiter")
    }

    /// The records of `input`, handed over in chunks of `chunk` bytes.
    fn split(input: &[u8], chunk: usize, delimiter: &Delimiter) -> (Vec<Bytes>, bool) {
        let mut lines = Lines::new(delimiter.clone());
        let mut out = Vec::new();
        for piece in input.chunks(chunk) {
            lines.push(piece, &mut out).expect("short records");
        }
        let open = lines.last_is_open();
        lines.finish(&mut out).expect("short records");
        (out, open)
    }

    #[test]
    fn records_are_the_same_however_the_input_is_cut() {
        let input = b"one\r\n\ntwo\xff\x00\nthree";
        for chunk in 1..=input.len() {
            let (records, open) = split(input, chunk, &newline());
            assert_eq!(records, [&b"one\r"[..], b"", b"two\xff\x00", b"three"], "chunks of {chunk}");
            assert!(open);
        }
    }

    #[test]
    fn an_end_after_the_last_record_makes_no_further_one() {
        assert_eq!(split(b"a\nb\n", 64, &newline()), (vec!["a".into(), "b".into()], false));
        assert_eq!(split(b"", 64, &newline()), (vec![], false));
        assert_eq!(split(b"\n", 64, &newline()), (vec![Bytes::new()], false));
    }

    #[test]
    fn a_delimiter_of_several_bytes_is_found_across_chunks() {
        let delimiter = Delimiter::parse("\\r\\n").expect("a good delimiter");
        for chunk in 1..12 {
            let (records, open) = split(b"a\rb\r\r\nc\nd\r\n", chunk, &delimiter);
            assert_eq!(records, [&b"a\rb\r"[..], b"c\nd"], "chunks of {chunk}");
            assert!(!open);
        }
    }

    #[test]
    fn a_record_that_never_ends_is_refused_by_number_before_it_fills_the_memory() {
        let mut lines = Lines { max_record_bytes: 10, ..Lines::new(newline()) };
        let mut out = Vec::new();
        assert_eq!(lines.push(b"short\n12345", &mut out), Ok(()));
        assert_eq!(lines.push(b"678901", &mut out), Err(LinesError::TooLong { number: 2 }));
        assert_eq!(out, ["short"]);
    }

    #[test]
    fn a_thread_reads_the_input_to_its_end() {
        let input: Vec<u8> = (0..20_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let mut portions = read_on_thread(io::Cursor::new(input.clone()), newline());
        let mut back = Vec::new();
        loop {
            match portions.blocking_recv().expect("the end is announced") {
                Portion::Records(records) => {
                    assert!(records.len() <= RECORDS_AT_A_TIME);
                    records.iter().for_each(|record| back.extend_from_slice(&[record, &b"\n"[..]].concat()));
                }
                Portion::End { last_is_open } => break assert!(!last_is_open),
                Portion::Failed(error) => panic!("{error}"),
            }
        }
        assert!(back == input, "what was read differs");
    }

    #[test]
    fn delimiters_are_text_with_escapes() {
        assert_eq!(Delimiter::parse("\\t").map(|d| d.0), Ok(vec![b'\t']));
        assert_eq!(Delimiter::parse("\\\\n").map(|d| d.0), Ok(b"\\n".to_vec()));
        assert_eq!(Delimiter::parse(": ").map(|d| d.0), Ok(b": ".to_vec()));
        assert!(Delimiter::parse("").is_err());
        assert!(Delimiter::parse("\\x").is_err());
        assert!(Delimiter::parse("\\").is_err());
    }
}
