//! docs/replication.md lists the tests of each rule: all of them, and of every rule at least one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of tests that stand in `text` after `before`.
fn names_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let found = text.match_indices(before).map(|(at, _)| &text[at + before.len()..]);
    let names = found.map(|rest| rest.split_once(|c| !is_word(c)).map_or(rest, |(name, _)| name));
    names.filter(|name| name.starts_with("rule_")).collect()
}

#[test]
fn the_page_names_all_tests_of_the_rules_and_leaves_no_rule_without_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/replication.md")).unwrap();
    let listed = names_after(&page, "`");
    let untested: Vec<_> =
        (1..=19).filter(|n| !listed.iter().any(|name| name.starts_with(&format!("rule_{n:02}_")))).collect();
    assert_eq!(untested, [0; 0], "rules without a test in docs/replication.md");
    let files = fs::read_dir(root.join("tests/rules")).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let text = fs::read_to_string(&file).unwrap();
        let missing: Vec<_> = names_after(&text, "\nfn ").into_iter().filter(|name| !listed.contains(name)).collect();
        assert_eq!(missing, [""; 0], "tests of {} that docs/replication.md does not name", file.display());
    }
}
