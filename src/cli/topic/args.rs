//! What `callboard topic` takes.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand, value_parser};

use crate::cli::args::key_value;
use crate::cli::consume::start;
use crate::cli::examples;
use crate::protocol::messages::OffsetAt;
use crate::types::topic_config::MIN_CATCH_UP_BYTES_PER_SECOND;
use crate::types::{Offset, TimestampMs};

/// `callboard topic`.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    #[command(after_help = examples::TOPIC_CREATE)]
    Create(CreateTopicArgs),
    /// List all topics
    #[command(after_help = examples::TOPIC_LIST)]
    List,
    /// Show settings, partitions, leaders, offsets, sizes and damage
    #[command(after_help = examples::TOPIC_DESCRIBE)]
    Describe {
        /// The topics; all when none is named
        names: Vec<String>,
    },
    /// Change the settings of a topic, at once
    #[command(after_help = examples::TOPIC_ALTER)]
    Alter {
        /// The topic
        name: String,
        /// Override a setting
        #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, required_unless_present = "reset")]
        set: Vec<(String, String)>,
        /// Let a setting follow the cluster's default again
        #[arg(long, value_name = "KEY")]
        reset: Vec<String>,
    },
    /// Delete the first records of a topic's partitions, for good
    #[command(after_help = examples::TOPIC_TRIM)]
    Trim(TrimArgs),
    /// Show where a topic's partitions start and end, or the offsets at a time
    #[command(after_help = examples::TOPIC_OFFSETS)]
    Offsets(OffsetsArgs),
    /// Give a topic more partitions
    #[command(after_help = examples::TOPIC_ADD_PARTITIONS)]
    AddPartitions {
        /// The topic
        name: String,
        /// How many partitions it is to have in all
        #[arg(long, value_name = "N")]
        total: u32,
    },
    /// Move the partitions of a topic to other brokers, or end such a move
    #[command(after_help = examples::TOPIC_REASSIGN)]
    Reassign(ReassignArgs),
    /// Have the preferred replicas lead: the first ones
    #[command(after_help = examples::TOPIC_ELECT_LEADER)]
    ElectLeader(ElectLeaderArgs),
    /// Delete topics with all their records
    #[command(after_help = examples::TOPIC_DELETE)]
    Delete {
        /// The topics
        #[arg(required = true)]
        names: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Create the topics of a JSON file that are missing; never change one that exists
    #[command(after_help = examples::TOPIC_APPLY)]
    Apply {
        /// A JSON array of topics
        file: PathBuf,
    },
}

/// `callboard topic create`.
#[derive(Debug, Args)]
pub struct CreateTopicArgs {
    /// Its name: letters, digits, '.', '_' and '-', at most 249
    pub name: String,
    /// How many partitions; the cluster's default when left out
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// How many replicas of each; the cluster's default when left out
    #[arg(long, value_name = "R")]
    pub replication_factor: Option<u32>,
    /// Override a setting
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub config: Vec<(String, String)>,
    /// Succeed when the topic exists already, whatever its settings
    #[arg(long)]
    pub if_not_exists: bool,
    /// Check only, create nothing
    #[arg(long)]
    pub validate_only: bool,
}

/// `callboard topic reassign`.
#[derive(Debug, Args)]
pub struct ReassignArgs {
    /// The topic
    pub topic: String,
    /// This partition only; may repeat
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// The brokers that are to hold a replica, the preferred leader first
    #[arg(long, value_name = "BROKER,...", value_delimiter = ',', required_unless_present = "cancel")]
    pub replicas: Vec<u32>,
    /// End a move that is under way, and go back to the replicas before it
    #[arg(long, conflicts_with = "replicas")]
    pub cancel: bool,
    /// Wait until the move is done, and tell how far it is
    #[arg(long, conflicts_with = "cancel")]
    pub wait: bool,
    /// Set the topic's catch_up_bytes_per_second before the move, 65536 or more; with --wait it is as before in the end
    #[arg(long, value_name = "BYTES_PER_SECOND", conflicts_with = "cancel", value_parser = throttle())]
    pub throttle: Option<i64>,
}

/// `callboard topic elect-leader`.
#[derive(Debug, Args)]
pub struct ElectLeaderArgs {
    /// The topics; all when none is named
    pub names: Vec<String>,
    /// This partition only, of the one topic that is named; may repeat
    #[arg(long, short, value_name = "N", requires = "names")]
    pub partition: Vec<u32>,
}

/// `callboard topic trim`.
#[derive(Debug, Args)]
pub struct TrimArgs {
    /// The topic
    pub topic: String,
    /// This partition only; may repeat
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// What to delete
    #[command(flatten)]
    pub place: TrimPlace,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Where the records to delete end; one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TrimPlace {
    /// Delete all records before this offset
    #[arg(long, value_name = "OFFSET", value_parser = offset)]
    pub before_offset: Option<Offset>,
    /// Delete all records before the first one of this time or later: 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970
    #[arg(long, value_name = "TIME", value_parser = start::time)]
    pub before_time: Option<TimestampMs>,
    /// Delete all records
    #[arg(long)]
    pub all: bool,
}

/// `callboard topic offsets`.
#[derive(Debug, Args)]
pub struct OffsetsArgs {
    /// The topic
    pub topic: String,
    /// This partition only; may repeat
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Which offset: earliest, latest, max-timestamp (the record with the newest timestamp), or the first of a time such as
    /// 2026-01-31T12:00:00Z or @MILLISECONDS since 1970. Left out: earliest and latest
    #[arg(long, value_name = "PLACE", value_parser = place)]
    pub at: Option<OffsetAt>,
}

fn throttle() -> RangedI64ValueParser<i64> {
    value_parser!(i64).range(MIN_CATCH_UP_BYTES_PER_SECOND..)
}

fn offset(text: &str) -> Result<Offset, String> {
    let offset = text.parse().ok().map(Offset).filter(|offset| *offset <= Offset::MAX);
    offset.ok_or_else(|| format!("give a number from 0 to {}", Offset::MAX))
}

fn place(text: &str) -> Result<OffsetAt, String> {
    match text {
        "earliest" => Ok(OffsetAt::Earliest),
        "latest" => Ok(OffsetAt::Latest),
        "max-timestamp" => Ok(OffsetAt::MaxTimestamp),
        _ => start::time(text).map(OffsetAt::Timestamp).map_err(|_| {
            "give earliest, latest, max-timestamp, a time with its zone such as 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970"
                .to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Callboard, Command};

    fn topic(arguments: &[&str]) -> Result<TopicCommand, String> {
        let arguments = ["callboard", "topic"].iter().chain(arguments);
        match Callboard::try_parse_from(arguments).map_err(|error| error.to_string())?.command {
            Command::Topic(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_trim_says_exactly_one_place() {
        for wrong in [
            &["trim", "t"][..],
            &["trim", "t", "--all", "--before-offset", "5"],
            &["trim", "t", "--before-time", "@5", "--before-offset", "5"],
            &["trim", "t", "--before-time", "yesterday"],
            &["trim", "t", "--before-offset", "-1"],
            &["trim", "t", "--before-offset", "9223372036854775808"],
            &["trim", "--all"],
        ] {
            assert!(topic(wrong).is_err(), "{wrong:?}");
        }
        let Ok(TopicCommand::Trim(args)) = topic(&["trim", "t", "-p", "0", "-p", "2", "--before-time", "@5"]) else {
            panic!("legal")
        };
        assert_eq!((args.partition, args.place.before_time, args.yes), (vec![0, 2], Some(TimestampMs(5)), false));
    }

    #[test]
    fn a_move_may_be_waited_for_and_throttled_and_a_cancellation_not() {
        let moved = ["reassign", "t", "--replicas", "2,3", "--wait", "--throttle", "65536"];
        let Ok(TopicCommand::Reassign(args)) = topic(&moved) else { panic!("legal") };
        assert_eq!((args.replicas, args.wait, args.throttle), (vec![2, 3], true, Some(65_536)));
        for wrong in [
            &["reassign", "t", "--replicas", "2", "--throttle", "65535"][..],
            &["reassign", "t", "--replicas", "2", "--throttle", "-1"],
            &["reassign", "t", "--cancel", "--wait"],
            &["reassign", "t", "--cancel", "--throttle", "65536"],
        ] {
            assert!(topic(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn offsets_are_asked_for_by_place_or_time() {
        for (text, expected) in [
            ("earliest", OffsetAt::Earliest),
            ("latest", OffsetAt::Latest),
            ("max-timestamp", OffsetAt::MaxTimestamp),
            ("@17", OffsetAt::Timestamp(TimestampMs(17))),
            ("2026-01-01T00:00:00Z", OffsetAt::Timestamp(TimestampMs(1_767_225_600_000))),
        ] {
            let Ok(TopicCommand::Offsets(args)) = topic(&["offsets", "t", "--at", text]) else { panic!("{text}") };
            assert_eq!(args.at, Some(expected));
        }
        let error = topic(&["offsets", "t", "--at", "17"]).expect_err("an offset is no place");
        assert!(error.contains("give earliest, latest, max-timestamp, a time"), "{error}");
    }
}
