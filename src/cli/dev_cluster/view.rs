//! One view of several logs: each line behind the name of the node that wrote it.

use std::io::{self, IsTerminal, Write};

/// Colours that can be read on dark and on light ground: cyan, yellow, green, magenta, blue.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

/// What the view itself says stands behind this.
const OWN_NAME: &str = "dev-cluster";

/// Prints lines on standard output.
#[derive(Clone, Debug)]
pub struct View {
    width: usize,
    is_coloured: bool,
}

impl View {
    /// A view of nodes whose names have at most `width` letters. It has colours on a terminal, unless `NO_COLOR` is set
    /// (<https://no-color.org>).
    #[must_use]
    pub fn new(width: usize) -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { width: width.max(OWN_NAME.len()), is_coloured: io::stdout().is_terminal() && !is_unwanted }
    }

    /// A line of a node.
    pub fn line(&self, name: &str, line: &str) {
        // Whoever does not read what the nodes say does not end them: Ctrl-C does.
        let _ = writeln!(io::stdout().lock(), "{}", self.shown(name, line));
    }

    /// A line about the cluster.
    pub fn say(&self, line: &str) {
        self.line(OWN_NAME, line);
    }

    fn shown(&self, name: &str, line: &str) -> String {
        let width = self.width;
        if !self.is_coloured {
            return format!("{name:width$} | {line}");
        }
        if name == OWN_NAME {
            return format!("\x1b[1m{name:width$} | {line}\x1b[0m");
        }
        // The same node has the same colour at every start, and neighbours have different ones.
        let number = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_add(byte.into()));
        format!("\x1b[{}m{name:width$} |\x1b[0m {line}", COLOURS[number % COLOURS.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_a_column() {
        let view = View { width: 12, is_coloured: false };
        assert_eq!(view.shown("broker-1", "hello"), "broker-1     | hello");
        assert_eq!(view.shown("controller-1", ""), "controller-1 | ");
        assert_eq!(view.shown(OWN_NAME, "ready"), "dev-cluster  | ready");
    }

    #[test]
    fn colours_end_where_the_line_of_the_node_begins() {
        let view = View { width: 12, is_coloured: true };
        let line = view.shown("broker-1", "hello");
        assert!(line.starts_with("\x1b[") && line.ends_with("broker-1     |\x1b[0m hello"), "{line:?}");
        assert_ne!(line[..5], view.shown("broker-2", "hello")[..5]);
        assert_eq!(view.shown(OWN_NAME, "ready"), "\x1b[1mdev-cluster  | ready\x1b[0m");
    }
}
