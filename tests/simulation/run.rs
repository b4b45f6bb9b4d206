//! From a seed to an outcome.

use callboard::engine::metadata::{FEATURE_LEVEL, MetadataRecord};
use callboard::types::NodeId;

use crate::broker::Broker;
use crate::clients::Work;
use crate::coverage::Coverage;
use crate::faults::Fault;
use crate::metadata::Controller;
use crate::topics::LASTING;
use crate::world::{Event, Then, World};

/// What came of a seed.
pub struct Outcome {
    pub violation: Option<String>,
    pub story: Vec<String>,
    pub hash: u64,
    pub steps: u64,
    pub coverage: Coverage,
}

/// How long everything may go wrong, and how long it may take until all is well again.
const FAULTS_US: u64 = 12_000_000;
const RECOVERY_US: u64 = 40_000_000;

/// How many controllers there are, and how many count at first.
const CONTROLLERS: usize = 5;
const VOTERS: usize = 3;

pub fn run(seed: u64, is_told: bool) -> Outcome {
    let mut world = World::empty(seed, is_told);
    set_up(&mut world);
    if world.oracle.violation.is_none() {
        world.run_until(world.plan.ends_at);
    }
    if world.oracle.violation.is_none() {
        world.heal();
        settle(&mut world);
    }
    let World { oracle, story, steps, coverage, .. } = world;
    Outcome { violation: oracle.violation, hash: story.hash, story: story.lines, steps, coverage }
}

/// A cluster with its topics, before anything goes wrong.
fn set_up(world: &mut World) {
    let brokers = world.rng.usize(3..=4);
    let seed = world.seed;
    for number in 0..brokers {
        let rate = world.rng.u64(990..=1_010);
        let node = NodeId(u32::try_from(number + 1).expect("few"));
        let broker = Broker::new(node, seed.wrapping_mul(31) + number as u64, rate);
        broker.disk.set_short_writes(world.rng.u64(0..4) == 0);
        world.brokers.push(broker);
    }
    for number in 0..CONTROLLERS {
        world.controllers.push(Controller::new(world.cluster));
        world.after(1_000, Event::WakeController { controller: number, life: 0 });
    }
    world.raft.voters = (0..VOTERS).collect();
    world.elect_controller();
    let leader = world.raft.leader.expect("everybody can be elected");
    world.propose(leader, vec![MetadataRecord::FeatureLevel { level: FEATURE_LEVEL }], Then::Nothing);
    for broker in 0..brokers {
        world.after(5_000, Event::StartBroker { broker });
    }
    world.run_until(1_500_000);
    let is_synced = world.rng.u64(0..10) < 7;
    let partitions = world.rng.u32(1..=2);
    let factor = world.rng.u32(2..=3);
    let minimum = world.rng.u32(1..=2).to_string();
    let flush = if is_synced { "always" } else { "os" };
    let settings = [("flush", flush), ("min_insync_replicas", minimum.as_str()), ("segment_bytes", "16384")];
    if !world.create_topic(LASTING, partitions, factor, &settings) {
        world.oracle.fail("the topic cannot be created in a cluster where all is well".to_owned());
    }
    world.run_until(2_500_000);
    world.plan.ends_at = world.now + FAULTS_US;
    world.after(300_000, Event::Fault(Fault::Any));
}

/// Waits until all is well again, and says what is not if it takes too long.
fn settle(world: &mut World) {
    let deadline = world.now + RECOVERY_US;
    while world.now < deadline && world.oracle.violation.is_none() {
        world.run_until(world.now + 200_000);
        world.restart_sick();
        world.give_up_holes();
        if trouble(world).is_none() {
            return world.compare_replicas();
        }
        world.scrub_all();
    }
    if world.oracle.violation.is_none()
        && let Some(trouble) = trouble(world)
    {
        for broker in &world.brokers {
            for (partition, hosted) in broker.process.iter().flat_map(|process| &process.replicas) {
                let line = format!("broker {} {partition}: {:?}", broker.node, hosted.replica.describe());
                world.story.lines.push(line);
            }
        }
        world.oracle.fail(format!("{} s after everything works again: {trouble}", RECOVERY_US / 1_000_000));
    }
}

/// What is not as it should be.
fn trouble(world: &World) -> Option<String> {
    if let Some(untidy) = world.untidiness() {
        return Some(untidy);
    }
    for partition in &world.partitions {
        let state = world.plan.newest_state(*partition)?;
        if world.oracle.partitions.get(partition).is_some_and(|history| history.is_given_up) {
            continue;
        }
        if state.leader.is_none() {
            return Some(format!("nobody leads {partition}: {state:?}"));
        }
        if state.reassignment.is_some() {
            return Some(format!("{partition} is still being moved: {state:?}"));
        }
        if state.in_sync.len() < state.replicas.len() {
            return Some(format!("not all replicas of {partition} are in sync: {state:?}"));
        }
        if let Some(node) = world.still_flipped(*partition) {
            return Some(format!("the damage of {partition} on broker {node} was not found, or not repaired"));
        }
        let end = world.oracle.committed_end(*partition);
        for client in world.clients.iter().filter(|client| client.partition == *partition) {
            match &client.work {
                Work::Produce(_) if client.is_waiting() => {
                    return Some(format!("{} of {partition} still waits for an acknowledgement", client.name()));
                }
                Work::Consume(consuming) if consuming.position < end => {
                    let position = consuming.position;
                    return Some(format!("{} of {partition} is at {position}, {end} is committed", client.name()));
                }
                _ => {}
            }
        }
    }
    None
}
