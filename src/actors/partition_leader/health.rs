//! Who hears that this replica is damaged, and that it is whole again: the broker, and people.

use super::actor::PartitionLeader;
use super::messages::Reported;

impl PartitionLeader {
    /// The broker is counted on with what it knows of its replicas: it hears of damage, and of its end.
    pub(super) fn report_health(&mut self) {
        let is_damaged = self.replica.is_damaged();
        if is_damaged != self.is_damaged {
            self.is_damaged = is_damaged;
            self.tell_people();
            self.report(Reported::Health { is_damaged });
        }
    }

    /// Storage has told which records are damaged. This is what comes of it.
    fn tell_people(&self) {
        let (topic, partition) = (&self.topic, self.partition.partition);
        if !self.is_damaged {
            tracing::info!(%topic, %partition, "all records of this replica are whole again");
            return;
        }
        let next = match self.replica.leader().map(|leader| leader.leadership().replicas.len()) {
            None => "they are fetched again from the leader",
            Some(1) => "there is no other replica: restore a backup, or let consumers go on after them",
            Some(_) => "another replica is to lead, and they are fetched again from it",
        };
        tracing::warn!(%topic, %partition, next, "records of this replica are damaged");
    }
}
