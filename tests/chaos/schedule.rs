//! Which faults happen when: the same for the same seed. Whom a fault meets is decided when it happens, by who leads then.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Partitions that a round writes to.
pub const PLACES: usize = 6;

/// Whom a fault meets. Where that is nobody now, it is some node of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The broker that leads this partition.
    Leader(usize),
    /// One that follows in it.
    Follower(usize),
    /// The controller that decides.
    ActiveController,
    /// Another one.
    OtherController,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader(_) => "a leader",
            Self::Follower(_) => "a follower",
            Self::ActiveController => "the active controller",
            Self::OtherController => "another controller",
        })
    }
}

/// What becomes of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// Connections are closed, and new ones, too.
    Broken,
    /// Nothing arrives.
    Silent,
    /// Everything arrives late.
    Slow,
}

/// In which direction links are hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// In both.
    Both,
    /// It hears, and is not heard.
    From,
    /// It is heard, and does not hear.
    To,
}

/// One thing that goes wrong, or is done while others go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill(Whom),
    /// SIGSTOP, and later SIGCONT.
    Pause(Whom),
    /// SIGKILL, and again each time that it has just been started, so often.
    KillDuringRecovery(Whom, u8),
    /// SIGKILL of all brokers at once.
    KillAllBrokers,
    /// SIGKILL of brokers and controllers.
    KillAllNodes,
    /// The links between two nodes.
    Between(Whom, Whom, Hurt, Direction),
    /// The links between a node and all others.
    Isolate(Whom, Hurt, Direction),
    /// The links between a node and all clients.
    Clients(Whom, Hurt, Direction),
    /// A bit of what is committed flips in one replica of this partition, or of the next one that may lose a replica.
    Flip(usize),
    /// The disk of one broker has no room: little is left, or nothing at all.
    FillDisk(bool),
    /// A partition moves to the other brokers, counted from this one.
    Reassign(usize, usize),
    /// A topic that is written to and read from is deleted, and created again under its name.
    Recreate,
    /// A producer and a consumer end as killed processes do, and others come.
    ReplaceClients,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |hurt: &Hurt, direction: &Direction| {
            let what = match hurt {
                Hurt::Broken => "cut",
                Hurt::Silent => "silent",
                Hurt::Slow => "slow",
            };
            if *direction == Direction::Both { what.to_owned() } else { format!("{what} in one direction") }
        };
        match self {
            Self::Kill(whom) => write!(f, "kill -9: {whom}"),
            Self::Pause(whom) => write!(f, "SIGSTOP, SIGCONT: {whom}"),
            Self::KillDuringRecovery(..) => write!(f, "kill -9 again while it starts"),
            Self::KillAllBrokers => write!(f, "kill -9: all brokers at once"),
            Self::KillAllNodes => write!(f, "kill -9: all nodes at once"),
            Self::Between(_, _, hurt, direction) => write!(f, "links between two nodes: {}", told(hurt, direction)),
            Self::Isolate(_, hurt, direction) => write!(f, "links of a node to all others: {}", told(hurt, direction)),
            Self::Clients(_, hurt, direction) => write!(f, "links of a broker to clients: {}", told(hurt, direction)),
            Self::Flip(_) => write!(f, "a flipped bit in a replica"),
            Self::FillDisk(false) => write!(f, "a disk with little room"),
            Self::FillDisk(true) => write!(f, "a full disk"),
            Self::Reassign(..) => write!(f, "a reassignment"),
            Self::Recreate => write!(f, "a topic deleted, and created again"),
            Self::ReplaceClients => write!(f, "a producer and a consumer killed"),
        }
    }
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// After the one before.
    pub after: Duration,
    /// What happens.
    pub fault: Fault,
    /// How long it lasts, where it ends by itself. Others may come meanwhile.
    pub lasts: Duration,
}

/// The faults of one round of a long run.
pub fn round(seed: u64, number: u64) -> Vec<Step> {
    // So that neighbouring seeds and rounds have nothing in common.
    let mut rng = Rng::with_seed(seed);
    let mut rng = Rng::with_seed(rng.u64(..) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let count = rng.usize(8..=16);
    (0..count).map(|_| step(&mut rng)).collect()
}

/// What the tests of every change meet: each kind of fault once or so, in half a minute.
pub fn subset() -> Vec<Step> {
    let step =
        |after, fault, lasts| Step { after: Duration::from_millis(after), fault, lasts: Duration::from_millis(lasts) };
    vec![
        step(0, Fault::Kill(Whom::Leader(0)), 1_000),
        step(400, Fault::Reassign(1, 1), 0),
        step(800, Fault::Flip(2), 0),
        step(300, Fault::Between(Whom::Leader(3), Whom::Follower(3), Hurt::Silent, Direction::From), 1_500),
        step(300, Fault::Kill(Whom::ActiveController), 1_000),
        step(500, Fault::Clients(Whom::Leader(2), Hurt::Broken, Direction::Both), 500),
        step(500, Fault::Recreate, 0),
        step(300, Fault::Pause(Whom::Leader(4)), 2_500),
        step(500, Fault::FillDisk(true), 1_500),
        step(500, Fault::ReplaceClients, 0),
        step(1_500, Fault::KillAllBrokers, 200),
        step(500, Fault::KillDuringRecovery(Whom::Follower(0), 2), 100),
        step(1_000, Fault::Isolate(Whom::Leader(1), Hurt::Silent, Direction::To), 2_500),
        step(300, Fault::Pause(Whom::ActiveController), 1_500),
        step(2_700, Fault::Flip(4), 0),
        step(300, Fault::Isolate(Whom::ActiveController, Hurt::Slow, Direction::Both), 500),
        step(500, Fault::Kill(Whom::Follower(4)), 300),
        step(300, Fault::FillDisk(false), 500),
        step(700, Fault::KillAllNodes, 0),
    ]
}

fn step(rng: &mut Rng) -> Step {
    let fault = fault(rng);
    let lasts = match fault {
        // Shorter and longer than a lease.
        Fault::Pause(_) => rng.u64(200..6_000),
        Fault::KillAllBrokers | Fault::KillAllNodes => rng.u64(0..2_000),
        _ => rng.u64(100..5_000),
    };
    Step { after: Duration::from_millis(rng.u64(50..2_500)), fault, lasts: Duration::from_millis(lasts) }
}

fn fault(rng: &mut Rng) -> Fault {
    let place = rng.usize(..PLACES);
    match rng.u8(..100) {
        0..18 => Fault::Kill(whom(rng)),
        18..33 => Fault::Pause(whom(rng)),
        33..39 => Fault::KillDuringRecovery(whom(rng), rng.u8(1..=3)),
        39..43 => Fault::KillAllBrokers,
        43..45 => Fault::KillAllNodes,
        45..53 => {
            let (one, other) = (whom(rng), whom(rng));
            Fault::Between(one, other, hurt(rng), direction(rng))
        }
        53..61 => Fault::Isolate(whom(rng), hurt(rng), direction(rng)),
        61..67 => Fault::Clients(broker(rng), hurt(rng), direction(rng)),
        67..77 => Fault::Flip(place),
        77..83 => Fault::FillDisk(rng.bool()),
        83..91 => Fault::Reassign(place, rng.usize(..4)),
        91..96 => Fault::Recreate,
        _ => Fault::ReplaceClients,
    }
}

fn broker(rng: &mut Rng) -> Whom {
    let place = rng.usize(..PLACES);
    if rng.bool() { Whom::Leader(place) } else { Whom::Follower(place) }
}

fn whom(rng: &mut Rng) -> Whom {
    match rng.u8(..10) {
        0..7 => broker(rng),
        7..9 => Whom::ActiveController,
        _ => Whom::OtherController,
    }
}

fn hurt(rng: &mut Rng) -> Hurt {
    [Hurt::Broken, Hurt::Silent, Hurt::Slow][rng.usize(..3)]
}

fn direction(rng: &mut Rng) -> Direction {
    [Direction::Both, Direction::From, Direction::To][rng.usize(..3)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_has_one_schedule_and_no_other_seed_or_round_has_it() {
        let rounds: Vec<_> = (0..4).flat_map(|seed| (0..4).map(move |number| round(seed, number))).collect();
        let again: Vec<_> = (0..4).flat_map(|seed| (0..4).map(move |number| round(seed, number))).collect();
        assert_eq!(rounds, again);
        let told: BTreeSet<_> = rounds.iter().map(|round| format!("{round:?}")).collect();
        assert_eq!(told.len(), rounds.len());
    }

    #[test]
    fn an_hour_has_every_fault_in_it() {
        let all: BTreeSet<_> =
            (0..100).flat_map(|number| round(1, number)).map(|step| step.fault.to_string()).collect();
        // Kills and pauses of four kinds of nodes each, links of three kinds in six ways, and nine more.
        assert_eq!(all.len(), 4 + 4 + 3 * 6 + 9, "{all:#?}");
    }
}
