//! Everything that doctor can find: each code with its severity, its likely cause and what to do. docs/doctor.md lists the
//! same.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something does not work, or data is at risk: act now.
    Error,
    /// Something will not work for long, or not for everybody.
    Warning,
    /// Worth knowing; may be intended.
    Note,
}

impl Severity {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! codes {
    ($($variant:ident, $name:literal, $severity:ident, $cause:literal, $fix:literal;)*) => {
        /// What kind of finding it is. The names are stable: programs may go by them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $cause] $variant,)*
        }

        impl Code {
            /// Every kind, in the order of docs/doctor.md.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How bad it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What most likely causes it.
            #[must_use]
            pub fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            /// What to do about it.
            #[must_use]
            pub fn fix(self) -> &'static str {
                match self { $(Self::$variant => $fix,)* }
            }
        }
    };
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

codes! {
    // Reaching a node.
    NameUnresolved, "name-unresolved", Error,
        "the host name is mistyped, or this machine's resolver does not know it",
        "check --server (or CALLBOARD_SERVER), or use an IP address";
    ConnectionRefused, "connection-refused", Error,
        "no node runs there, or it listens on another address or port",
        "start the node, or compare --server with its listener.native.bind: `ss -ltn` on its machine shows what is listened on";
    ConnectionTimeout, "connection-timeout", Error,
        "a firewall drops the packets, or the machine is off or unreachable",
        "check the route and the firewall between here and there, for the port of listener.native.bind";
    HttpPort, "http-port", Error,
        "the port is an HTTP server's: another program's, or a node's metrics",
        "give --server the port of listener.native.bind";
    OtherProtocol, "other-protocol", Error,
        "the port belongs to another program, or wants TLS",
        "give --server the port of listener.native.bind";
    NoAnswer, "no-answer", Error,
        "the node hangs or is overloaded, or the port belongs to a program that waits for something else",
        "look at the node's log and its CPU use; give --server the port of listener.native.bind";
    HelloRefused, "hello-refused", Error,
        "the node has as many connections as it may have, or speaks another version of the protocol",
        "do what the refusal says: close connections or raise limits.max_connections, or upgrade the older side";
    AdvertisedUnreachable, "advertised-unreachable", Error,
        "clients connect to the advertised address, which does not lead to the node from here",
        "set listener.native.advertise to a HOST:PORT that clients can connect to, and restart the node";
    AdvertisedLoopback, "advertised-loopback", Error,
        "the node advertises an address that means every client's own machine",
        "set listener.native.advertise to a HOST:PORT that clients can connect to, and restart the node";
    AdvertisedElsewhere, "advertised-elsewhere", Error,
        "the advertised address was given to another node, or a proxy leads elsewhere",
        "set listener.native.advertise to this node's own HOST:PORT, and restart the node";
    // The machine.
    ClockOff, "clock-off", Warning,
        "one of the two machines does not synchronise its clock",
        "run NTP or chrony on both: retention and look-ups by time go by the node's clock and the producers'";
    DiskFull, "disk-full", Error,
        "less is free than storage.min_free_bytes, so appends are refused; reading goes on",
        "delete topics (callboard topic delete), lower retention_bytes or retention_ms (callboard topic alter), or add space";
    DiskNearlyFull, "disk-nearly-full", Warning,
        "appends are refused once less than storage.min_free_bytes is free",
        "lower retention_bytes or retention_ms (callboard topic alter), delete topics, or add space";
    MinFreeExceedsDisk, "min-free-exceeds-disk", Error,
        "storage.min_free_bytes is larger than the whole disk, so no append is ever accepted",
        "lower storage.min_free_bytes, or set node.data_dir to a directory on a larger disk";
    DescriptorsFew, "descriptors-few", Warning,
        "the limit of open files has no room for limits.max_connections beside storage.open_files",
        "raise the hard limit (`ulimit -Hn`, LimitNOFILE in systemd), or lower limits.max_connections";
    DescriptorsNearlyUsed, "descriptors-nearly-used", Warning,
        "more than nine tenths of the descriptors are open: connections are about to be refused",
        "raise the hard limit (`ulimit -Hn`, LimitNOFILE in systemd), or lower limits.max_connections";
    MemoryExceeded, "memory-exceeded", Error,
        "the configured budgets together exceed the memory, so that the kernel may kill the node under load",
        "lower limits.node_bytes_in_flight or storage.tail_cache_bytes, or give the node more memory";
    ConnectionsRefused, "connections-refused", Warning,
        "clients open more connections than the limits allow",
        "raise limits.max_connections or limits.max_connections_per_address, or find the client that opens so many";
    // The cluster.
    NoController, "no-controller", Error,
        "no majority of the controllers run and reach each other, or none of them is reached from the node that was asked",
        "start the controllers that are down (cluster.controllers names them), and see that all reach each other at listener.peer.bind";
    ControllerUnreached, "controller-unreached", Warning,
        "it is down, or its address does not lead to it",
        "start it; with its directory lost, start it with an empty node.data_dir and run callboard cluster reset-controller NODE; gone for good: callboard cluster remove-controller NODE";
    ControllerBehind, "controller-behind", Warning,
        "it was away and is catching up, or its disk or network is too slow or has failed",
        "run doctor again; if it comes no closer, look at its log and its disk";
    ControllerWithoutVote, "controller-without-vote", Warning,
        "it is being added at this moment, or that was broken off before it had all of the metadata",
        "callboard cluster add-controller NODE@HOST:PORT goes on from there; callboard cluster remove-controller NODE takes it back";
    ControllersEven, "controllers-even", Note,
        "a majority of an even number is one more than half, so that the last of them adds no loss that is survived",
        "have three or five: callboard cluster add-controller or remove-controller";
    BrokerFenced, "broker-fenced", Warning,
        "it was stopped, or the controllers have not heard from it for cluster.lease_ms",
        "start it, or look in its log for why it does not reach the controllers; gone for good: callboard cluster decommission NODE";
    PartitionBelowMinimum, "partition-below-minimum", Error,
        "too few of its replicas are in sync: what is sent with acks = all is refused, reading goes on",
        "start the brokers that are named; or have others hold it (callboard topic reassign), or lower min_insync_replicas (callboard topic alter)";
    PartitionUnderReplicated, "partition-under-replicated", Warning,
        "a broker with a replica is down, is about to stop, or still fetches what it lacks",
        "start the brokers that are named, or wait until they have caught up; gone for good: callboard cluster decommission NODE";
    // Partitions and topics.
    PartitionOffline, "partition-offline", Error,
        "its log could not be opened, or a write or sync failed; it takes no appends",
        "remove the cause that is named, then restart the node";
    RecordsDamaged, "records-damaged", Error,
        "the disk changed or lost what was written: see the kernel's log, SMART, and the file system",
        "restore the partition's directory from a backup; or go on without: consumers with on_damaged skip read past it";
    NotChecked, "not-checked", Warning,
        "a part of what doctor wanted to look at did not answer",
        "look at the node's log, and run doctor again";
    FlushNotAlways, "flush-not-always", Note,
        "with another flush than always, a power loss can take records that were acknowledged",
        "if that is not intended: callboard topic alter TOPIC --set flush=always";
    RetentionBelowSegment, "retention-below-segment", Warning,
        "whole segments are deleted, so that a partition keeps more than retention_bytes until a segment is full",
        "set segment_bytes below retention_bytes (callboard topic alter)";
    BatchExceedsFrame, "batch-exceeds-frame", Error,
        "a batch of max_batch_bytes does not fit into a frame of limits.max_frame_bytes, and is refused before it is looked at",
        "lower max_batch_bytes (callboard topic alter), or raise limits.max_frame_bytes and what must follow it";
    // The configuration.
    ConfigInvalid, "config-invalid", Error,
        "the node does not start with this configuration",
        "change what the message names; docs/configuration.md lists every key";
    TopicsFileInvalid, "topics-file-invalid", Error,
        "the node does not start with this topics file",
        "correct the file, or unset topics.file";
    DataDirDiffers, "data-dir-differs", Warning,
        "the configuration is for another directory than the one that was looked at",
        "give --data-dir the directory that node.data_dir names, or the configuration that belongs to this one";
    NodeDiffers, "node-differs", Error,
        "the directory belongs to another node: the node refuses to start on it",
        "set node.id to the directory's node, or node.data_dir to this node's directory";
    ClusterDiffers, "cluster-differs", Error,
        "the directory belongs to another cluster: the node refuses to start on it",
        "set node.cluster_id to the directory's cluster or leave it out, or set node.data_dir to this cluster's directory";
    DataDirInMemory, "data-dir-in-memory", Warning,
        "the directory lies on a file system in memory: a reboot takes everything",
        "set node.data_dir to a directory on a disk";
    BindWide, "bind-wide", Warning,
        "nothing authenticates clients: whoever reaches the address may read, write and delete everything",
        "set listener.native.bind to 127.0.0.1:PORT, or guard the port with a firewall";
    LogLevelCostly, "log-level-costly", Note,
        "debug and trace log several lines for each connection or request",
        "set log.level to info";
    // A stopped node's directory.
    DirectoryMissing, "directory-missing", Error,
        "the path is mistyped, or its disk is not mounted: a node would begin anew there, empty",
        "mount the disk, or correct node.data_dir";
    DirectoryNew, "directory-new", Note,
        "no node has used the directory yet",
        "nothing; if there was data here, check that the right disk is mounted";
    NotADataDirectory, "not-a-data-directory", Error,
        "there are files, but not callboard.meta: the node refuses to start there",
        "set node.data_dir to the right, a new or an empty directory, or put callboard.meta back from a backup";
    NewerFormat, "newer-format", Error,
        "a newer release wrote it",
        "install the release that wrote the directory, or a newer one";
    IdentityDamaged, "identity-damaged", Error,
        "callboard.meta is damaged: the node refuses to start",
        "restore callboard.meta from a backup of this directory; where others have all that this node has, begin with an empty node.data_dir (a controller then needs callboard cluster reset-controller NODE)";
    MetadataDamaged, "metadata-damaged", Error,
        "the cluster's metadata cannot be read: the node refuses to start",
        "restore __cluster_metadata (better: the whole directory) from one backup";
    VotesLost, "votes-lost", Error,
        "what this controller voted for or acknowledged is damaged or gone, so that it could help to elect two leaders: the node refuses to start",
        "where other controllers run: start the node with an empty node.data_dir, and run callboard cluster reset-controller NODE; the only controller: restore the whole directory from one backup";
    MetadataElsewhere, "metadata-elsewhere", Note,
        "the node is a broker only: its controllers have the metadata",
        "nothing, if that is so (--config FILE lets doctor know); if controller is one of its node.roles, its metadata was lost: put __cluster_metadata back";
    FileMode, "file-mode", Error,
        "the owner may not read and write it",
        "chmod u+rwX on the path that is named";
    FileOwner, "file-owner", Warning,
        "it was created by another user than the directory, as a node that ran as root does",
        "chown -R the data directory to the user that runs the node";
    UncleanStop, "unclean-stop", Warning,
        "the node was killed, or the machine lost power: the next start verifies what was written last",
        "start the node: it recovers by itself; docs/durability.md says what can be lost";
    TornTail, "torn-tail", Note,
        "the last write was cut short by an unclean stop; it was not acknowledged as durable",
        "start the node: it cuts the tail off";
    IndexDamaged, "index-damaged", Note,
        "an index does not fit its segment; records are not affected",
        "remove the .index and .timeindex files that are named: the next start rebuilds them";
    PartitionLost, "partition-lost", Error,
        "the partition was here before, and its directory is gone: it stays offline",
        "put the directory back (mount its disk, restore a backup), or delete the topic";
    PartitionForeign, "partition-foreign", Error,
        "the directory was copied or renamed: it holds another partition than its name says",
        "move it back to its own name, or out of the data directory";
    PartitionUnreadable, "partition-unreadable", Error,
        "one of the partition's own files is damaged or missing",
        "restore the partition's directory from a backup, or delete the topic";
    DirectoryUnknown, "directory-unknown", Warning,
        "no topic accounts for it: it was put there by hand, or comes from another data directory",
        "move it out of the data directory; the next start moves such a partition to quarantine/";
    DirectoryUnconfirmed, "directory-unconfirmed", Note,
        "the other controllers decided it when this one was not there any more, or it comes from another data directory",
        "start the node: it asks the others, and moves to quarantine/ what no topic accounts for";
    DirectoryQuarantined, "directory-quarantined", Warning,
        "a start found a directory that no topic accounts for, and put it aside",
        "look at it with callboard log dump, then remove it or put it back where it belongs";
    LeftoverFiles, "leftover-files", Note,
        "a crash interrupted the creation or the removal of a file or partition",
        "start the node: it finishes or undoes that";
    TailsAside, "tails-aside", Note,
        "a recovery after a power loss moved bytes aside that did not count any more",
        "look at them with callboard log dump, or delete the .cut- files";
    FutureTimestamps, "future-timestamps", Warning,
        "a producer's clock was wrong, or this machine's is: retention_ms keeps such records until their time has come",
        "synchronise the clocks; callboard topic alter TOPIC --set timestamp_type=log-append-time ignores those of producers";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_code_with_its_severity_cause_and_fix() {
        let page = include_str!("../../../docs/doctor.md");
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let row =
            |code: &Code| format!("| `{code}` | {} | {} | {} |", code.severity().name(), code.cause(), code.fix());
        assert_eq!(rows.collect::<Vec<_>>(), Code::ALL.iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_words_with_hyphens_and_differ() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
