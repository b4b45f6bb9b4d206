//! The regression guard that noise cannot trip: instructions of append, fetch, codec and client on fixed input, counted by
//! callgrind and compared with `recorded.txt`. scripts/instructions runs it; ADR 17 says why it is ours.
//!
//! ```text
//!   main ─ check, record ─► valgrind ─► this program again, "case NAME" ─► cases::measured, the part that is counted
//!     └──── recorded::judge ◄─ count ─────┘
//! ```
#![allow(missing_docs, reason = "a program")]

mod cases;
mod recorded;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use cases::{CASES, TIMES};
use recorded::{MARGIN_PER_MILLE, Recorded, Verdict};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/recorded.txt");

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["case", name] => run_case(name),
        ["check"] => check(),
        ["record"] => record(),
        _ => {
            println!("instructions are counted by scripts/instructions");
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_case(name: &str) -> Result<bool> {
    let case = CASES.iter().find(|case| case.name == name).ok_or_else(|| format!("there is no case {name}"))?;
    (case.run)();
    Ok(true)
}

/// Counts one turn of a case.
fn count(name: &str, directory: &Path) -> Result<u64> {
    let file = directory.join(name);
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--toggle-collect=*instructions*measured*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe()?)
        .args(["case", name])
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("valgrind cannot be run, install it: {error}"))?;
    if !status.success() {
        return Err(format!("case {name} failed under valgrind: {status}").into());
    }
    let text = fs::read_to_string(&file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("callgrind gave no total")?;
    match total.trim().parse::<u64>()? / TIMES {
        0 => Err(format!("case {name}: callgrind counted nothing, the name of its function must have changed").into()),
        count => Ok(count),
    }
}

fn count_all(tools: String) -> Result<Recorded> {
    let directory = tempfile::tempdir()?;
    let counts = CASES.iter().map(|case| Ok((case.name.to_owned(), count(case.name, directory.path())?)));
    Ok(Recorded { tools, counts: counts.collect::<Result<_>>()? })
}

/// What counts depend on beside the code: the compiler, and which variants of memcpy and checksum the CPU gets.
fn tools() -> Result<String> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = String::from_utf8(Command::new(rustc).arg("--version").output()?.stdout)?;
    let version = version.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |feature| cpu.split_whitespace().any(|word| word == feature);
    let features = ["avx2", "pclmulqdq"].map(|feature| if has(feature) { feature } else { "plain" });
    Ok(format!("{version}, {} {}", env::consts::ARCH, features.join(" ")))
}

fn record() -> Result<bool> {
    let now = count_all(tools()?)?;
    fs::write(RECORDED, now.to_text())?;
    println!("{}", now.to_text());
    Ok(true)
}

fn check() -> Result<bool> {
    let recorded = Recorded::parse(&fs::read_to_string(RECORDED)?)?;
    let now = count_all(tools()?)?;
    let (mut outside, mut gone) = (0, 0);
    println!("{:<16}{:>12}{:>12}{:>12}", "case", "recorded", "now", "difference");
    for (name, &count) in &now.counts {
        let before = recorded.counts.get(name).copied().unwrap_or_default();
        let difference = (count as f64 / before.max(1) as f64 - 1.0) * 100.0;
        let verdict = recorded.judge(name, count);
        outside += usize::from(verdict != Verdict::Same);
        let word = match verdict {
            Verdict::Same => "",
            Verdict::Worse => "  more",
            Verdict::Better => "  less",
            Verdict::New => "  not recorded",
        };
        println!("{name:<16}{before:>12}{count:>12}{difference:>+11.2}%{word}");
    }
    for name in recorded.counts.keys().filter(|name| !now.counts.contains_key(*name)) {
        println!("{name:<16} is recorded and not counted any more");
        gone += 1;
    }
    let failed = outside + gone;
    if failed > 0 {
        let margin = MARGIN_PER_MILLE as f64 / 10.0;
        println!(
            "{failed} outside {margin}%: undo what costs more, or, when it is meant (or a gain), run \
             scripts/instructions --record and say why in the commit"
        );
    }
    if failed > 0 && now.tools != recorded.tools {
        println!("warning only: recorded with {}, counted with {}", recorded.tools, now.tools);
        println!("test result: ok. 0 passed; 0 failed; {} not comparable", now.counts.len());
        return Ok(true);
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed;", now.counts.len() - outside);
    Ok(failed == 0)
}
