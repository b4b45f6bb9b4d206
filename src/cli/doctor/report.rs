//! What doctor says in the end: the findings, the worst first, and what was checked, so that silence means something.

use serde_json::{Value, json};

use super::code::{Code, Severity};
use super::finding::Finding;
use crate::cli::output::counted;

/// Findings of one kind beyond this many are counted, not listed: a thousand damaged partitions are one problem.
const LISTED_OF_A_KIND: usize = 20;

/// Everything that was found and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was found, in the order of the checks.
    pub findings: Vec<Finding>,
    /// What was looked at, in words.
    pub checked: Vec<String>,
}

impl Report {
    /// How many findings are this bad.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity() == severity).count()
    }

    /// "1 error, 2 warnings, 0 notes".
    #[must_use]
    pub fn counts(&self) -> String {
        let counted = |severity: Severity| counted(self.count(severity) as u64, severity.name());
        [Severity::Error, Severity::Warning, Severity::Note].map(counted).join(", ")
    }

    /// The findings to be listed, the worst first, and for each kind how many are not.
    fn listed(&self) -> (Vec<&Finding>, Vec<(Code, usize)>) {
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_key(|finding| (finding.severity(), finding.code));
        let (mut listed, mut left_out): (Vec<&Finding>, Vec<(Code, usize)>) = (Vec::new(), Vec::new());
        for kind in sorted.chunk_by(|one, other| one.code == other.code) {
            listed.extend(kind.iter().take(LISTED_OF_A_KIND));
            if kind.len() > LISTED_OF_A_KIND {
                left_out.push((kind[0].code, kind.len() - LISTED_OF_A_KIND));
            }
        }
        (listed, left_out)
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (listed, left_out) = self.listed();
        let mut lines = Vec::new();
        for finding in listed {
            let Finding { code, about, seen, cause, fix } = finding;
            lines.push(format!("{} {code}: {about}", code.severity().name().to_uppercase()));
            lines.extend([format!("  seen   {seen}"), format!("  cause  {cause}"), format!("  fix    {fix}")]);
            lines.push(String::new());
        }
        lines.extend(left_out.iter().map(|(code, count)| format!("and {count} more of {code}\n")));
        let result = if self.findings.is_empty() { "nothing is wrong".to_owned() } else { self.counts() };
        lines.push(format!("checked {}: {result}", self.checked.join("; ")));
        lines.join("\n")
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (listed, left_out) = self.listed();
        let finding = |finding: &&Finding| {
            json!({
                "severity": finding.severity().name(), "code": finding.code.name(), "about": finding.about,
                "seen": finding.seen, "cause": finding.cause, "fix": finding.fix,
            })
        };
        let left_out = left_out.iter().map(|(code, count)| json!({"code": code.name(), "count": count}));
        json!({
            "healthy": self.count(Severity::Error) == 0,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "findings": listed.iter().map(finding).collect::<Vec<_>>(),
            "not_listed": left_out.collect::<Vec<_>>(),
            "checked": self.checked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_the_last_line_says_what_was_checked() {
        let report = Report {
            findings: vec![
                Finding::new(Code::BindWide, "node 1", "it listens on 0.0.0.0:9644"),
                Finding::new(Code::DiskFull, "node 1", "5 B are free").because("a cause").fixed_by("a fix"),
            ],
            checked: vec!["node 1".to_owned(), "2 topics".to_owned()],
        };
        let text = report.to_text();
        let start = "ERROR disk-full: node 1\n  seen   5 B are free\n  cause  a cause\n  fix    a fix\n\nWARNING bind-wide: node 1\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("\n\nchecked node 1; 2 topics: 1 error, 1 warning, 0 notes"), "{text}");
        let json = report.to_json();
        assert_eq!(
            (json["healthy"].as_bool(), json["errors"].as_u64(), json["warnings"].as_u64()),
            (Some(false), Some(1), Some(1))
        );
        assert_eq!(json["findings"][0]["code"], "disk-full");
        assert_eq!(json["findings"][0]["fix"], "a fix");
        assert_eq!(
            Report { checked: report.checked, ..Report::default() }.to_text(),
            "checked node 1; 2 topics: nothing is wrong"
        );
    }

    #[test]
    fn a_thousand_findings_of_a_kind_are_counted_and_not_listed() {
        let finding = |n: usize| Finding::new(Code::RecordsDamaged, format!("partition {n}"), "damage");
        let mut report = Report { findings: (0..1_000).map(finding).collect(), checked: Vec::new() };
        report.findings.push(Finding::new(Code::DiskFull, "node 1", "full"));
        let text = report.to_text();
        assert_eq!(text.matches("ERROR records-damaged").count(), LISTED_OF_A_KIND);
        assert!(text.contains("and 980 more of records-damaged") && text.contains("1001 errors"), "{text}");
        assert!(text.contains("ERROR disk-full"));
        assert_eq!(report.to_json()["not_listed"][0]["count"], 980);
    }
}
