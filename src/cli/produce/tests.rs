//! How a line becomes a record.

use clap::Parser;

use super::*;
use crate::cli::args::ProducerProgram;

fn template(arguments: &[&str]) -> Template {
    let arguments = ["callboard-producer", "--topic", "t"].iter().chain(arguments);
    Template::new(&ProducerProgram::try_parse_from(arguments).expect("legal arguments").produce)
}

#[test]
fn a_line_is_the_value_and_everything_else_is_the_same_for_all() {
    let template = template(&["--key", "k", "--header", "a=1", "--header", "a=2=3", "--partition", "4"]);
    let expected = OutgoingRecord::to("t").key("k").value("x=y").header("a", "1").header("a", "2=3").partition(4);
    assert_eq!(template.record("x=y".into()), expected);
}

#[test]
fn a_line_is_split_at_the_first_separator_and_without_one_it_has_no_key() {
    let template = template(&["--key-separator", "::"]);
    assert_eq!(template.record("k::v::w".into()), OutgoingRecord::to("t").key("k").value("v::w"));
    assert_eq!(template.record("::v".into()), OutgoingRecord::to("t").key("").value("v"));
    assert_eq!(template.record("k::".into()), OutgoingRecord::to("t").key("k").value(""));
    assert_eq!(template.record("k:v".into()), OutgoingRecord::to("t").value("k:v"));
}

#[test]
fn the_first_failure_is_what_is_reported_with_the_count() {
    let counters = Counters { failed: AtomicU64::new(1_200), ..Counters::default() };
    let mut ending = Ending::default();
    ending.merge(Ending { first_failure: Some(ClientError::NothingAssigned), ..Ending::default() });
    ending.merge(Ending { first_failure: Some(ClientError::Closed { what: "producer" }), ..Ending::default() });
    let error = ending.into_result(&counters).expect_err("records failed");
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        (
            "1,200 records were not delivered; the first one: no partition is assigned to this consumer: call assign first",
            1
        )
    );
}
