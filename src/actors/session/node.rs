//! What the node says of itself: gathered from the broker, from a disk thread and from the budgets, then answered.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::MailboxError;
use tokio::sync::oneshot;

use super::actor::Session;
use super::admin::stopping;
use crate::actors::broker::{BrokerHealth, ExamineReplicas};
use crate::actors::codec::{Held, ReplyBody, RequestPermit};
use crate::actors::machine;
use crate::actors::partition_leader::{CacheBudget, ReadBudget};
use crate::actors::threads::{DiskPool, Lane};
use crate::config::StorageSection;
use crate::net::{ByteBudget, ConnectionGate};
use crate::protocol::frame::FrameHead;
use crate::protocol::messages::{
    DescribeNodeReply, DiskDescription, MachineDescription, NodeBudgets, ProcessUsage, Usage,
};
use crate::storage::data_dir::DataDir;
use crate::types::Operation;

/// What a node knows of itself, shared by its sessions.
#[derive(Clone)]
pub struct NodeFacts {
    /// Where it listens.
    pub bound: SocketAddr,
    /// Its data directory.
    pub directory: Arc<DataDir>,
    /// Threads for what may block.
    pub disk: DiskPool,
    /// The `storage` section of the config.
    pub storage: StorageSection,
    /// Threads of sessions and partitions.
    pub core_threads: usize,
    /// Threads in each lane of `disk`.
    pub disk_threads: usize,
    /// Room for the requests of all connections.
    pub requests: ByteBudget,
    /// Room for cold reads.
    pub reads: ReadBudget,
    /// Room for the newest records.
    pub cache: CacheBudget,
    /// The count of connections.
    pub connections: ConnectionGate,
}

/// What only blocking calls tell.
struct Looked {
    process: ProcessUsage,
    memory: machine::Memory,
    free_bytes: Option<u64>,
    total_bytes: Option<u64>,
}

impl NodeFacts {
    /// Asks the operating system. Blocks.
    fn look(&self) -> Looked {
        let (disk, root) = (self.directory.disk(), self.directory.root());
        Looked {
            process: machine::process_usage(),
            memory: machine::memory(),
            free_bytes: disk.free_bytes(root).ok(),
            total_bytes: disk.total_bytes(root).ok(),
        }
    }

    fn budgets(&self, configured_connections: usize) -> NodeBudgets {
        let usage = |used: usize, limit: usize| Usage { used: used as u64, limit: limit as u64 };
        let requests = self.requests.total_bytes();
        let (reading, reads) = self.reads.used_and_total_bytes();
        NodeBudgets {
            request_bytes: usage(requests.saturating_sub(self.requests.available_bytes()), requests),
            read_bytes: usage(reading, reads),
            tail_cache_bytes: usage(self.cache.used_bytes(), self.cache.limit_bytes()),
            connections: usage(self.connections.open_count(), self.connections.limit()),
            configured_connections: configured_connections as u64,
            refused_connections: self.connections.refused_count(),
            open_files: self.storage.open_files as u64,
        }
    }

    fn machine(&self, memory: machine::Memory) -> MachineDescription {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        MachineDescription {
            cpus: count(machine::cpus()),
            core_threads: count(self.core_threads),
            disk_threads: count(self.disk_threads),
            memory_bytes: memory.machine_bytes,
            memory_limit_bytes: memory.limit_bytes,
        }
    }
}

impl Session {
    pub(super) fn describe_node(&mut self, head: FrameHead, permit: RequestPermit) {
        if let Err(denied) = self.allow(Operation::DescribeCluster) {
            self.send(head, Err(denied), Vec::new(), Held { permit: Some(permit), room: None });
            return;
        }
        let (node_id, view) = (self.settings.node, Arc::clone(self.view()));
        let (clock, broker, facts) =
            (Arc::clone(&self.settings.clock), self.settings.broker.clone(), Arc::clone(&self.settings.facts));
        let configured_connections = self.settings.limits.max_connections;
        self.reply_later(head, permit, async move {
            let (told, looked) = oneshot::channel();
            let looking = Arc::clone(&facts);
            facts.disk.run(Lane::Background, move || {
                // The connection may be gone.
                let _ = told.send(looking.look());
            });
            let BrokerHealth { replicas, refusing_appends } = broker.send(ExamineReplicas).await.map_err(stopping)?;
            let looked = looked.await.map_err(|_| stopping(MailboxError::Closed))?;
            let registration = view.image.brokers.get(&node_id).map(|broker| &broker.registration);
            Ok(ReplyBody::DescribeNode(Box::new(DescribeNodeReply {
                node_id,
                software: format!("callboard {}", env!("CARGO_PKG_VERSION")),
                uptime_ms: u64::try_from(clock.now().0.as_millis()).unwrap_or(u64::MAX),
                wall_clock: clock.wall(),
                advertised_host: registration.map(|broker| broker.host.clone()).unwrap_or_default(),
                advertised_port: registration.map_or(0, |broker| broker.port),
                bound: facts.bound.to_string(),
                process: looked.process,
                machine: facts.machine(looked.memory),
                disk: DiskDescription {
                    free_bytes: looked.free_bytes,
                    total_bytes: looked.total_bytes,
                    min_free_bytes: facts.storage.min_free_bytes,
                    refusing_appends,
                },
                replicas,
                budgets: facts.budgets(configured_connections),
            })))
        });
    }
}
