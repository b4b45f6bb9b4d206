//! Who counts for a majority of the controllers: how that changes, and how whoever is behind catches up.

use callboard::raft::{decode_image, encode_image};

use crate::metadata::{Controller, RaftLog};
use crate::world::World;

impl World {
    /// Whoever follows the log is some way behind it; now and then it forgets what its image holds.
    pub fn follow_raft(&mut self, number: usize) {
        let is_voter = self.raft.voters.contains(&number);
        let leader = self.raft.leader.filter(|leader| self.has_quorum(*leader));
        let is_taught = leader.is_some_and(|leader| self.reaches(leader, number));
        let follows = if is_voter { self.has_quorum(number) } else { self.raft.learner == Some(number) && is_taught };
        if follows && self.controllers[number].term.is_none() {
            if let Some(leader) = leader
                .filter(|leader| is_taught && self.controllers[*leader].compacted > self.controllers[number].applied)
            {
                self.give_snapshot(leader, number);
            }
            let (applied, end) = (self.controllers[number].applied, self.raft.entries.len());
            let upto = if self.rng.u64(0..4) == 0 { end } else { applied + self.rng.usize(0..=end - applied) };
            let raft = std::mem::replace(&mut self.raft, RaftLog::new());
            self.controllers[number].apply_up_to(&raft, upto);
            self.raft = raft;
        }
        if self.rng.u64(0..30) == 0 {
            self.controllers[number].compacted = self.controllers[number].applied;
        }
    }

    fn give_snapshot(&mut self, leader: usize, number: usize) {
        let bytes = encode_image(&self.controllers[leader].image).expect("an image can be encoded");
        let image = decode_image(&bytes, self.cluster).expect("it was just encoded");
        let applied = self.controllers[leader].applied;
        let controller = &mut self.controllers[number];
        if controller.image.install(image) {
            (controller.applied, controller.compacted) = (applied, applied);
            self.coverage.count("a controller is given a snapshot");
        }
    }

    /// Another controller is to count, or one no more. A new one starts with nothing, as one whose disk was replaced does.
    pub fn change_voters(&mut self) {
        let Some(leader) = self.raft.leader.filter(|leader| self.has_quorum(*leader)) else { return };
        let outside = (0..self.controllers.len()).find(|number| !self.raft.voters.contains(number));
        let grows = self.raft.voters.len() < 3 || self.rng.bool();
        if let Some(new) = outside.filter(|_| grows && self.raft.learner.is_none()) {
            let life = self.controllers[new].life + 1;
            self.controllers[new] = Controller { life, ..Controller::new(self.cluster) };
            self.raft.learner = Some(new);
            self.tell(format_args!("controller {new} is to become a voter"));
            self.after(1_000, crate::world::Event::WakeController { controller: new, life });
            return;
        }
        let voters: Vec<_> = self.raft.voters.iter().copied().collect();
        let leaves = voters[self.rng.usize(0..voters.len())];
        let mut rest = self.raft.voters.clone();
        rest.remove(&leaves);
        if rest.len() >= 2 && self.has_quorum_of(leader, &rest) {
            self.raft.voters = rest;
            self.coverage.count("a controller leaves the voters");
            self.tell(format_args!("controller {leaves} is a voter no more"));
            if leaves == leader {
                self.raft.leader = None;
                self.controllers[leaves].leave_office();
            }
        }
    }

    /// A controller that has caught up becomes a voter, if old and new majority agree.
    pub fn admit_learner(&mut self, leader: usize) {
        let Some(learner) = self.raft.learner.filter(|_| self.controllers[leader].term == Some(self.raft.term)) else {
            return;
        };
        let mut voters = self.raft.voters.clone();
        voters.insert(learner);
        let has_caught_up = self.controllers[learner].applied == self.raft.entries.len();
        if has_caught_up && self.has_quorum(leader) && self.has_quorum_of(leader, &voters) {
            self.raft.voters = voters;
            self.raft.learner = None;
            self.coverage.count("a controller joins the voters");
            self.tell(format_args!("controller {learner} is a voter now"));
        }
    }
}
