//! The story: what is done, in which order, and what must hold after it. Nothing here does anything: [`super::stage`] does.

/// Replicas of every partition: one on each broker.
pub const REPLICATION_FACTOR: u32 = 4;
/// Topics of an act, and partitions of each.
pub const TOPICS: u32 = 2;
/// See [`TOPICS`].
pub const PARTITIONS: u32 = 2;

/// Whom a step kills. The partition under watch is the first of the act's first topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// So many brokers that do not lead the partition under watch.
    Followers(usize),
    /// The broker that leads it.
    Leader,
}

/// One thing that is done, and what must hold then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records are acknowledged in every partition, and all consumers see them.
    Flow,
    /// A producer and a consumer end as a killed process does: in the middle of what they do.
    KillClients,
    /// Another producer and another consumer take their places.
    RestartClients,
    /// One more consumer reads everything from the beginning.
    AnotherConsumer,
    /// Brokers are killed (SIGKILL).
    Kill(Victims),
    /// Nothing is acknowledged, no consumer sees anything new, and producers are told why.
    Halt,
    /// All killed brokers are started again, and become in sync.
    BringBack,
    /// The producers end, and the whole history of the act is checked.
    Check,
}

impl Step {
    /// What is done, in words.
    #[must_use]
    pub fn told(self) -> String {
        match self {
            Self::Flow => "let records flow".to_owned(),
            Self::KillClients => "kill a producer and a consumer".to_owned(),
            Self::RestartClients => "start a producer and a consumer in their places".to_owned(),
            Self::AnotherConsumer => "start another consumer, from the beginning".to_owned(),
            Self::Kill(Victims::Followers(1)) => {
                "kill -9 a broker that does not lead the partition under watch".to_owned()
            }
            Self::Kill(Victims::Followers(count)) => {
                format!("kill -9 {count} brokers that do not lead the partition under watch")
            }
            Self::Kill(Victims::Leader) => "kill -9 the broker that leads the partition under watch".to_owned(),
            Self::Halt => "see that nothing is committed".to_owned(),
            Self::BringBack => "bring the killed brokers back".to_owned(),
            Self::Check => "end the producers, and check every record".to_owned(),
        }
    }
}

/// A part of the story, on topics of its own.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// What it shows.
    pub title: &'static str,
    /// Replicas that must have a record before it counts.
    pub min_insync_replicas: u32,
    /// What happens.
    pub steps: &'static [Step],
}

const A_FOLLOWER: Step = Step::Kill(Victims::Followers(1));
const TWO_FOLLOWERS: Step = Step::Kill(Victims::Followers(2));
const THE_LEADER: Step = Step::Kill(Victims::Leader);

/// The whole story.
pub const ACTS: &[Act] = &[
    Act {
        title: "Act 1: two replicas must have a record; clients die, then followers, until too few are left",
        min_insync_replicas: 2,
        steps: &[
            Step::Flow,
            Step::KillClients,
            Step::Flow,
            Step::RestartClients,
            Step::Flow,
            TWO_FOLLOWERS,
            Step::Flow,
            Step::AnotherConsumer,
            Step::Flow,
            A_FOLLOWER,
            Step::Halt,
            Step::BringBack,
            Step::Flow,
            Step::Check,
        ],
    },
    Act {
        title: "Act 2: one replica is enough; three of four die one by one",
        min_insync_replicas: 1,
        steps: &[
            Step::Flow,
            A_FOLLOWER,
            Step::Flow,
            A_FOLLOWER,
            Step::Flow,
            A_FOLLOWER,
            Step::Flow,
            Step::BringBack,
            Step::Flow,
            Step::Check,
        ],
    },
    Act {
        title: "Act 3, first scene: two replicas must have a record; whoever leads dies",
        min_insync_replicas: 2,
        steps: &[
            Step::Flow,
            THE_LEADER,
            Step::Flow,
            THE_LEADER,
            Step::Flow,
            Step::AnotherConsumer,
            Step::Flow,
            THE_LEADER,
            Step::Halt,
            Step::BringBack,
            Step::Flow,
            Step::Check,
        ],
    },
    Act {
        title: "Act 3, second scene: one replica is enough; whoever leads dies",
        min_insync_replicas: 1,
        steps: &[
            Step::Flow,
            THE_LEADER,
            Step::Flow,
            THE_LEADER,
            Step::Flow,
            THE_LEADER,
            Step::Flow,
            Step::BringBack,
            Step::Flow,
            Step::Check,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// How many brokers a step kills.
    fn killed(step: Step) -> u32 {
        match step {
            Step::Kill(Victims::Leader) => 1,
            Step::Kill(Victims::Followers(count)) => count.try_into().expect("small"),
            _ => 0,
        }
    }

    #[test]
    fn records_flow_exactly_while_enough_replicas_are_left() {
        for act in ACTS {
            let mut left = REPLICATION_FACTOR;
            for step in act.steps {
                left = if *step == Step::BringBack { REPLICATION_FACTOR } else { left - killed(*step) };
                match step {
                    Step::Flow | Step::AnotherConsumer => assert!(left >= act.min_insync_replicas, "{}", act.title),
                    Step::Halt => assert!(left < act.min_insync_replicas, "{}", act.title),
                    _ => {}
                }
                assert!(left > 0, "{}: somebody must be left to lead", act.title);
            }
        }
    }

    #[test]
    fn each_act_brings_the_brokers_back_and_ends_with_the_check() {
        for act in ACTS {
            assert!(act.steps.ends_with(&[Step::BringBack, Step::Flow, Step::Check]), "{}", act.title);
            assert_eq!(act.steps.iter().filter(|step| **step == Step::Check).count(), 1, "{}", act.title);
            // What a kill does is judged before the next one.
            let kills_in_a_row = act.steps.windows(2).filter(|pair| killed(pair[0]) * killed(pair[1]) > 0).count();
            assert_eq!(kills_in_a_row, 0, "{}", act.title);
        }
    }
}
