//! The rules of the house that a compiler does not know: who may import whom, how long a file gets, what must not be left in
//! the code, and that the documents point at things that exist. Each failure names the place.
//!
//! The last test breaks every rule once, on text made up for it, and wants to see it noticed.
#![allow(missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use callboard::types::topic_config::TOPIC_CONFIG_KEYS;

/// What each top module may import from the others: `bin → cli, client, actors → raft → {engine, net, storage} → protocol →
/// types`. A module that is not listed fails the test.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("protocol", &["types"]),
    ("config", &["types"]),
    ("engine", &["protocol", "types"]),
    ("storage", &["types"]),
    ("net", &["protocol", "types"]),
    ("raft", &["engine", "storage", "types"]),
    ("metrics", &["protocol", "types"]),
    ("http", &["metrics", "protocol", "types"]),
    ("client", &["protocol", "types"]),
    ("replica", &["engine", "protocol", "storage", "types"]),
    ("actors", &["config", "engine", "http", "metrics", "net", "protocol", "raft", "replica", "storage", "types"]),
    ("cli", &["actors", "client", "config", "http", "protocol", "storage", "types"]),
    ("fuzz", &["protocol", "storage", "types"]),
    ("testing", &["actors", "client", "config", "types"]),
    ("bin", &["cli"]),
];

/// Libraries that a module does without, so that it runs unchanged in a simulation, or on any runtime.
const DOES_WITHOUT: &[(&str, &[&str])] = &[
    ("types", &["actix", "actix_rt", "futures_util", "rustix", "tokio"]),
    ("protocol", &["actix", "actix_rt", "rustix", "tokio"]),
    ("engine", &["actix", "actix_rt", "bytes", "fastrand", "futures_util", "rustix", "std::fs", "std::net", "tokio"]),
    ("storage", &["actix", "actix_rt", "futures_util", "tokio"]),
    ("net", &["actix", "actix_rt", "std::fs"]),
    ("raft", &["actix", "actix_rt", "std::fs", "std::net", "tokio::fs", "tokio::net"]),
    ("metrics", &["actix", "actix_rt", "actix_web", "futures_util", "prometheus", "rustix", "std::fs", "tokio"]),
    ("client", &["actix", "actix_rt", "std::fs"]),
    ("config", &["actix", "actix_rt", "tokio"]),
];

const MAX_LINES: usize = 400;

/// Files that are longer than the rule, with the most lines each may have: a debt that shrinks. Whoever splits one takes it
/// off the list; the test asks for that.
const TO_BE_SPLIT: &[(&str, usize)] = &[];

/// What must not be left in the code, and where it is fine: `(text, also in tests)`.
const LEFTOVERS: &[(&str, bool)] =
    &[("todo!(", true), ("unimplemented!(", true), ("dbg!(", true), ("FIXME", true), (".unwrap()", false)];

/// The code of one file, tests and comments apart.
struct Source {
    /// From the root of the repository, with forward slashes.
    path: String,
    text: String,
    /// Compiled for tests only.
    is_test: bool,
}

impl Source {
    /// `types`, `bin`, … or `lib` for the crate's page.
    fn top_module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules deep the file is: `src/a.rs` and `src/a/mod.rs` are at 1.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// The lines outside a module of tests, numbered from 1.
    fn lines_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let start = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let end = self.text[start..].find("\n}\n").map_or(self.text.len(), |end| start + end + 3);
        let first = self.text[..start].lines().count() + 1;
        let last = self.text[..end].lines().count();
        let numbered = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        numbered.filter(move |(number, _)| !(first..=last).contains(number))
    }

    /// Those lines with comments taken out: from `//` on, unless it stands inside a text.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines_without_tests().map(|(number, line)| {
            let comment = line.match_indices("//").find(|(at, _)| line[..*at].matches('"').count().is_multiple_of(2));
            (number, comment.map_or(line, |(at, _)| &line[..at]))
        })
    }

    fn at(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `name` stands in `text` as a whole path: not as the end of a longer word.
fn paths_of<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let preceded = |at: usize| text[..at].ends_with(|c| is_word(c) || c == ':');
    text.match_indices(name).map(|(at, _)| at).filter(move |at| !preceded(*at))
}

/// The names that follow `prefix` directly, or first in each branch of the braces that follow it, with the number of line ends
/// before the prefix.
fn names_after(text: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in paths_of(text, prefix) {
        let line = text[..at].matches('\n').count();
        let rest = &text[at + prefix.len()..];
        let name = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
        match rest.strip_prefix('{') {
            None => found.push((line, name(rest))),
            Some(inside) => {
                let (mut depth, mut branch) = (0, String::new());
                for c in inside.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if c == ',' && depth == 0 {
                        found.push((line, name(&std::mem::take(&mut branch))));
                    } else {
                        branch.push(c);
                    }
                }
                found.push((line, name(&branch)));
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// Imports that the layout does not allow.
fn wrong_imports(source: &Source) -> Vec<String> {
    let module = source.top_module();
    if module == "lib" || source.is_test {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return vec![
            source.at(1, format_args!("the module {module} is not in tests/layout.rs: say there what it may import")),
        ];
    };
    let mut code = String::new();
    let mut written = 0;
    for (number, line) in source.code() {
        // Lines that are left out stay as empty ones, so that a place in the code tells its line.
        code.push_str(&"\n".repeat(number - written));
        code.push_str(line);
        written = number;
    }
    // From here `super::` as often as the file is deep is the crate's root.
    let to_root = "super::".repeat(source.depth());
    let mut wrong = Vec::new();
    let own_name = if module == "bin" { "callboard::" } else { "crate::" };
    for prefix in [own_name, to_root.as_str()] {
        for (line, name) in names_after(&code, prefix) {
            if name != module && !allowed.contains(&name.as_str()) {
                wrong.push(source.at(line, format_args!("{module} must not import {name}")));
            }
        }
    }
    let without = DOES_WITHOUT.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, without)| without);
    for library in without {
        for at in paths_of(&code, &format!("{library}::")) {
            let line = code[..at].matches('\n').count();
            wrong.push(source.at(line, format_args!("{module} does without {library}")));
        }
    }
    wrong
}

/// A file that is too long, or no longer too long.
fn wrong_length(source: &Source, to_be_split: &[(&str, usize)]) -> Option<String> {
    let lines = source.lines_without_tests().count();
    let debt = to_be_split.iter().find(|(path, _)| *path == source.path).map(|(_, most)| *most);
    let most = debt.unwrap_or(MAX_LINES);
    if source.is_test {
        None
    } else if lines > most {
        Some(source.at(lines, format_args!("{lines} lines without tests, {most} at most: split it")))
    } else if debt.is_some() && lines <= MAX_LINES {
        Some(source.at(lines, "short enough now: take it off TO_BE_SPLIT in tests/layout.rs"))
    } else {
        None
    }
}

/// What was left in the code.
fn leftovers(source: &Source) -> Vec<String> {
    let find = |line: &str, left: &str| line.match_indices(left).any(|(at, _)| !line[..at].ends_with(is_word));
    let mut found = Vec::new();
    for (left, also_in_tests) in LEFTOVERS {
        let lines: Vec<_> = if *also_in_tests {
            source.text.lines().enumerate().map(|(at, line)| (at + 1, line)).collect()
        } else if source.is_test {
            Vec::new()
        } else {
            source.code().collect()
        };
        let method = left.starts_with('.');
        let hits = lines.into_iter().filter(|(_, line)| if method { line.contains(left) } else { find(line, left) });
        found.extend(hits.map(|(line, _)| source.at(line, format_args!("{left} is left in the code"))));
    }
    found
}

/// A module's page has a picture.
fn lacks_a_diagram(source: &Source) -> Option<String> {
    let page = source.path == "src/lib.rs" || source.depth() == 1 && !source.path.starts_with("src/bin/");
    let drawn = source.text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.trim() == "//! ```text");
    (page && !drawn).then(|| source.at(1, "the module's page has no diagram (```text)"))
}

/// Places on somebody's machine.
fn private_paths(path: &str, text: &str) -> Vec<String> {
    // In two halves, or this file would be found.
    let private = [concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/ho", "me/"), concat!("/ro", "ot/")];
    let lines = text.lines().enumerate();
    let hit = |line: &str| private.iter().find(|place| line.contains(**place)).copied();
    lines
        .filter_map(|(at, line)| Some(format!("{path}:{}: {} is a place on one machine", at + 1, hit(line)?)))
        .collect()
}

/// What the backticks of a page enclose, with the line; blocks of code left out.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let mut in_block = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(|token| (at + 1, token)));
        }
    }
    found
}

/// Links, paths and test names in a page that lead nowhere. `exists` is asked for paths from the root, `is_test` for names.
fn dead_ends(path: &str, text: &str, exists: impl Fn(&str) -> bool, is_test: impl Fn(&str) -> bool) -> Vec<String> {
    let mut dead = Vec::new();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (at, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let mut place: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            for part in file.split('/') {
                match part {
                    ".." => drop(place.pop()),
                    part => place.push(part),
                }
            }
            if !exists(&place.join("/")) {
                dead.push(format!("{path}:{}: the link {link} leads nowhere", at + 1));
            }
        }
    }
    let roots = ["src/", "tests/", "configs/", "examples/", "scripts/", "docs/", "benches/", "fuzz/", "packaging/"];
    for (line, token) in quoted(text) {
        let is_path = roots.iter().any(|root| token.starts_with(root)) && !token.contains(['*', '<', ' ', '{']);
        if is_path && !exists(token.split("::").next().unwrap_or_default()) {
            dead.push(format!("{path}:{line}: there is no {token}"));
        }
        let is_name =
            token.matches('_').count() >= 4 && token.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
        // Names of metrics look like names of tests; tests/docs_metrics.rs looks after those.
        let is_metric = ["callboard_", "process_"].iter().any(|start| token.starts_with(start));
        // So does one of a setting; tests/configuration.rs looks after those.
        let is_setting = TOPIC_CONFIG_KEYS.iter().any(|key| key.name == token);
        if is_name && !is_metric && !is_setting && !is_test(token) {
            dead.push(format!("{path}:{line}: there is no test {token}"));
        }
    }
    dead
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository that a developer writes, by its path from the root. No git is asked: a copy has none.
fn repository() -> BTreeMap<String, PathBuf> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![root().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name();
            if ["target", "data", "cluster-data", "dev-cluster", ".git", "Cargo.lock"]
                .iter()
                .any(|skipped| name == *skipped)
            {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let inside = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
                files.insert(inside, path);
            }
        }
    }
    files
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("a readable file")).into_owned()
}

/// The files that `#[cfg(test)] mod name;` in `path` brings in.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let own =
        if path.ends_with("/mod.rs") || path.ends_with("/lib.rs") { folder } else { path.trim_end_matches(".rs") };
    let mut found = Vec::new();
    for declared in text.split("#[cfg(test)]\n").skip(1) {
        let mut lines = declared.lines();
        let attribute = declared.lines().next().and_then(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
        let named = lines.find(|line| !line.starts_with("#[")).and_then(|line| line.strip_suffix(';'));
        let module = named.and_then(|line| line.trim_start_matches("pub(crate) ").strip_prefix("mod "));
        match (attribute, module) {
            (Some(file), _) => found.push(format!("{folder}/{file}")),
            (None, Some(name)) => found.extend([format!("{own}/{name}.rs"), format!("{own}/{name}/")]),
            (None, None) => {}
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let files = repository().into_iter().filter(|(path, _)| path.starts_with("src/") && path.ends_with(".rs"));
    let files: Vec<_> = files.map(|(path, place)| (path, read(&place))).collect();
    let tests: Vec<String> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &str| tests.iter().any(|test| path == test || test.ends_with('/') && path.starts_with(test));
    files.into_iter().map(|(path, text)| Source { is_test: is_test(&path), path, text }).collect()
}

fn none(wrong: impl IntoIterator<Item = String>) {
    let wrong: BTreeSet<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn modules_import_only_what_the_layout_allows() {
    none(sources().iter().flat_map(wrong_imports));
}

#[test]
fn no_file_has_more_than_400_lines_without_its_tests() {
    let sources = sources();
    let gone = TO_BE_SPLIT.iter().filter(|(path, _)| sources.iter().all(|source| source.path != *path));
    let gone = gone.map(|(path, _)| format!("{path}: is gone, take it off TO_BE_SPLIT"));
    none(sources.iter().filter_map(|source| wrong_length(source, TO_BE_SPLIT)).chain(gone));
}

#[test]
fn nothing_unfinished_and_no_unwrap_is_left_in_the_code() {
    none(sources().iter().flat_map(leftovers));
}

#[test]
fn every_top_module_opens_with_a_diagram() {
    none(sources().iter().filter_map(lacks_a_diagram));
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    none(repository().iter().flat_map(|(path, place)| private_paths(path, &read(place))));
}

#[test]
fn links_paths_and_tests_named_in_the_documents_exist() {
    let files = repository();
    let code: String = files.iter().filter(|(path, _)| path.ends_with(".rs")).map(|(_, place)| read(place)).collect();
    let is_test = |name: &str| code.contains(&format!("fn {name}("));
    let pages = files.iter().filter(|(path, _)| path.ends_with(".md"));
    none(pages.flat_map(|(path, place)| dead_ends(path, &read(place), |file| root().join(file).exists(), is_test)));
}

#[test]
fn each_rule_notices_what_it_forbids() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned(), is_test: false };
    let imports = |path, text| wrong_imports(&source(path, text));
    assert_eq!(
        imports("src/engine/a.rs", "use crate::types::Offset;\n// crate::storage\nuse crate::storage::Log;\n").len(),
        1
    );
    assert_eq!(imports("src/net/a.rs", "use crate::{\n    types::Offset,\n    storage::{Log, x},\n};").len(), 1);
    assert_eq!(imports("src/types/a/b.rs", "use super::super::super::actors::node;").len(), 1);
    assert_eq!(imports("src/client/mod.rs", "fn a() { actix::spawn(b) }").len(), 1);
    assert_eq!(imports("src/bin/a.rs", "use callboard::client::Client;").len(), 1);
    assert_eq!(imports("src/newcomer.rs", "").len(), 1);
    assert_eq!(
        imports("src/net/a.rs", "#[cfg(test)]\nmod tests {\n use crate::cli;\n}\nuse crate::cli;")[..],
        ["src/net/a.rs:5: net must not import cli"]
    );
    assert_eq!(
        imports("src/client/mod.rs", "//! callboard::testing\nuse crate::protocol::Api;\nuse tokio::net;"),
        [""; 0]
    );

    let long = source("src/types/a.rs", &"\n".repeat(MAX_LINES + 1));
    assert!(wrong_length(&long, &[]).is_some());
    assert!(wrong_length(&long, &[("src/types/a.rs", MAX_LINES + 1)]).is_none());
    assert!(wrong_length(&long, &[("src/types/a.rs", MAX_LINES + 2)]).is_none());
    let with_tests = "\n".repeat(MAX_LINES) + "#[cfg(test)]\nmod tests {\n}\n";
    assert!(wrong_length(&source("src/types/a.rs", &with_tests), &[]).is_none());
    assert!(wrong_length(&source("src/types/a.rs", ""), &[("src/types/a.rs", 500)]).is_some());

    assert_eq!(
        leftovers(&source("src/a.rs", "a.unwrap();\n// b.unwrap()\n#[cfg(test)]\nmod tests {\n c.unwrap()")).len(),
        1
    );
    assert_eq!(leftovers(&source("src/a.rs", "#[cfg(test)]\nmod tests {\n todo!()")).len(), 1);
    assert_eq!(leftovers(&source("src/a.rs", "let x = not_todo!();")).len(), 0);

    assert!(lacks_a_diagram(&source("src/types/mod.rs", "//! Types.\n")).is_some());
    assert!(lacks_a_diagram(&source("src/types/mod.rs", "//! ```text\n//! a ─► b\n//! ```\n")).is_none());
    assert!(lacks_a_diagram(&source("src/types/ids.rs", "//! Ids.\n")).is_none());

    assert_eq!(private_paths("a", concat!("see /wo", "rk/a.md\nsee work/a.md")).len(), 1);

    let page = "[a](../b.md) `tests/a.rs` `rule_99_a_test_with_a_name` `callboard_with_a_long_name`\n```\n`tests/gone.rs`\n```\n[web](https://a.b/c)";
    assert_eq!(dead_ends("docs/a.md", page, |_| true, |_| true), [""; 0]);
    assert_eq!(dead_ends("docs/a.md", page, |path| path != "b.md", |_| true).len(), 1);
    assert_eq!(dead_ends("docs/a.md", page, |path| path == "b.md", |_| false).len(), 2);

    let declared = "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n#[cfg(test)]\npub(crate) mod tests;\n#[cfg(test)]\nmod tests {";
    assert_eq!(test_modules("src/a/b.rs", declared), ["src/a/b_tests.rs", "src/a/b/tests.rs", "src/a/b/tests/"]);
}
