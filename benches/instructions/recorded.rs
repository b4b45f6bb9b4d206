//! The recorded counts, and how new ones are judged.

use std::collections::BTreeMap;

/// How far a count may be from the recorded one, in thousandths. docs/performance.md says what it is made of.
pub const MARGIN_PER_MILLE: u64 = 20;

/// What `recorded.txt` holds: the tools that the counts depend on, and the instructions of each case.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub tools: String,
    pub counts: BTreeMap<String, u64>,
}

/// How a count stands to the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// More work than recorded.
    Worse,
    /// Less: to be recorded, so that it cannot be lost unnoticed.
    Better,
    /// Nothing was recorded.
    New,
}

impl Recorded {
    /// Reads the file. Lines with `#` are for people.
    ///
    /// # Errors
    /// Says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut recorded = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || format!("neither `tools: ..` nor `case: count`: {line}");
            match line.split_once(": ").ok_or_else(wrong)? {
                ("tools", tools) => recorded.tools = tools.to_owned(),
                (name, count) => {
                    recorded.counts.insert(name.to_owned(), count.parse().map_err(|_| wrong())?);
                }
            }
        }
        Ok(recorded)
    }

    /// The file.
    pub fn to_text(&self) -> String {
        let counts = self.counts.iter().map(|(name, count)| format!("{name}: {count}\n"));
        let intro = "# Written by scripts/instructions --record: instructions of one turn of each case.\n";
        format!("{intro}tools: {}\n{}", self.tools, counts.collect::<String>())
    }

    /// Judges `now`, the count of the case `name`.
    pub fn judge(&self, name: &str, now: u64) -> Verdict {
        let Some(&before) = self.counts.get(name) else { return Verdict::New };
        if now.abs_diff(before) * 1_000 <= before * MARGIN_PER_MILLE {
            Verdict::Same
        } else if now > before {
            Verdict::Worse
        } else {
            Verdict::Better
        }
    }
}
