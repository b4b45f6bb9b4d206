//! What stands below each help text: commands to copy.

/// Below `callboard --help`.
pub const CALLBOARD: &str = "\
Examples:
  callboard node                                        run a node, with its data under ./data
  callboard topic create orders --partitions 3
  callboard produce --topic orders < FILE               each line becomes a record
  callboard consume --topic orders --from earliest

callboard COMMAND --help shows more, with examples.

Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration, 3 the cluster was not reached.";

/// Below `callboard node --help`.
pub const NODE: &str = "\
Each key stands in the environment and on the command line as it does in the file; the later one wins:
  [limits]                                              in the file of --config
  max_topics = 100
  CALLBOARD__LIMITS__MAX_TOPICS=100                     in the environment
  --set limits.max_topics=100                           on the command line

Examples:
  callboard node
  callboard node --config configs/single.toml
  callboard node --set node.data_dir=/var/lib/callboard --set listener.native.bind=127.0.0.1:9700

When it serves it says so on standard output; its log goes to standard error.
Exit codes: 0 stopped cleanly, 1 it could not start or stop cleanly, 2 wrong configuration, 130 ended by a second signal.";

/// Below `callboard config check --help`.
pub const CONFIG_CHECK: &str = "\
Examples:
  callboard config check --config configs/single.toml
  callboard config check --set limits.max_topics=100 --json

Exit codes: 0 the configuration is good, 2 it is not.";

/// Below `callboard config show --help`.
pub const CONFIG_SHOW: &str = "\
Examples:
  callboard config show --config configs/single.toml
  callboard config show --set limits.max_topics=100 --json

Exit codes: 0 done, 2 the configuration is not good.";

/// Below `callboard completions --help`.
pub const COMPLETIONS: &str = "\
Examples:
  callboard completions bash > /etc/bash_completion.d/callboard
  callboard completions zsh > ~/.zfunc/_callboard
  callboard completions fish --program callboard-producer > ~/.config/fish/completions/callboard-producer.fish

Exit codes: 0 done, 2 wrong usage.";

/// Below `callboard man --help`.
pub const MAN: &str = "\
Example:
  callboard man --output /usr/local/share/man/man1      then: man callboard-topic-create

Exit codes: 0 written, 1 a page could not be written, 2 wrong usage.";

/// Below `callboard topic create --help`.
pub const TOPIC_CREATE: &str = "\
Examples:
  callboard topic create orders --partitions 3
  callboard topic create logs --config retention_ms=86400000 --config flush=interval

callboard topic describe shows all settings there are.
Exit codes: 0 created, 1 refused, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard topic list --help`.
pub const TOPIC_LIST: &str = "\
Exit codes: 0 done, 3 the cluster was not reached.";

/// Below `callboard topic describe --help`.
pub const TOPIC_DESCRIBE: &str = "\
Examples:
  callboard topic describe
  callboard topic describe orders --json

Exit codes: 0 done, 1 a topic does not exist, 3 the cluster was not reached.";

/// Below `callboard topic alter --help`.
pub const TOPIC_ALTER: &str = "\
Examples:
  callboard topic alter orders --set retention_ms=86400000 --set flush=interval
  callboard topic alter orders --reset flush

Exit codes: 0 altered, 1 refused, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard topic delete --help`.
pub const TOPIC_DELETE: &str = "\
Examples:
  callboard topic delete orders
  callboard topic delete orders logs --yes              in scripts, where nobody can be asked

Exit codes: 0 deleted, 1 refused, 2 not confirmed, 3 the cluster was not reached.";

/// Below `callboard topic trim --help`.
pub const TOPIC_TRIM: &str = "\
Examples:
  callboard topic trim orders --before-time 2026-01-31T12:00:00Z
  callboard topic trim orders --partition 0 --before-offset 5000
  callboard topic trim orders --all --yes               in scripts, where nobody can be asked

What is trimmed is gone for good; offsets go on where they were. Only committed records can be
trimmed. Disk space comes back by whole segment files.
Exit codes: 0 trimmed, 1 one was not, 2 wrong usage or not confirmed, 3 the cluster was not reached.";

/// Below `callboard topic add-partitions --help`.
pub const TOPIC_ADD_PARTITIONS: &str = "\
Example:
  callboard topic add-partitions orders --total 6

A topic never loses partitions. Records with a key go to other partitions from then on: those of one
key that came before stay where they are.
Exit codes: 0 added, 1 refused, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard topic reassign --help`.
pub const TOPIC_REASSIGN: &str = "\
Examples:
  callboard topic reassign orders --partition 0 --replicas 2,3,4
  callboard topic reassign orders --replicas 1,2,3      all its partitions
  callboard topic reassign orders --replicas 1,2,3 --wait --throttle 20000000
  callboard topic reassign orders --cancel              back to the replicas before

The new replicas fetch what they lack, and once all of them are in sync the others are dropped: callboard
cluster describe shows how far that is. A throttle is what each broker fetches in a second for replicas of
the topic that are not in sync. With less than what is produced to them they never catch up.
Exit codes: 0 begun, with --wait done, 1 refused or ended before, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard topic elect-leader --help`.
pub const TOPIC_ELECT_LEADER: &str = "\
Examples:
  callboard topic elect-leader                          all topics, as after a restart of all brokers in turn
  callboard topic elect-leader orders --partition 0

Callboard does so by itself a while after a broker came back. Producers and consumers see no error: a leader
hands over when the other has all its records. callboard topic reassign changes which replica is the first.
Exit codes: 0 they lead, 1 refused or not within 10 s, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard topic offsets --help`.
pub const TOPIC_OFFSETS: &str = "\
Examples:
  callboard topic offsets orders
  callboard topic offsets orders --partition 0 --at 2026-01-31T12:00:00Z
  callboard topic offsets orders --at max-timestamp --json

An offset that there is none of (no record is that new) is shown as '-', and null in JSON.
Exit codes: 0 done, 1 a partition did not answer, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard topic apply --help`.
pub const TOPIC_APPLY: &str = "\
The file:
  [
    {\"name\": \"orders\", \"partitions\": 3},
    {\"name\": \"logs\", \"config\": {\"retention_ms\": \"86400000\"}}
  ]

Example:
  callboard topic apply configs/topics.json

Where an existing topic differs from the file it is left as it is, and a warning says how.
Exit codes: 0 all topics exist now, 1 one was refused, 2 the file is at fault, 3 the cluster was not reached.";

/// Below `callboard cluster describe --help`.
pub const CLUSTER_DESCRIBE: &str = "\
Example:
  callboard cluster describe --json

Exit codes: 0 done, 3 the cluster was not reached.";

/// Below `callboard cluster decommission --help`.
pub const CLUSTER_DECOMMISSION: &str = "\
Examples:
  callboard cluster decommission 4               move what broker 4 holds, and wait until it holds nothing
  callboard cluster decommission 4 --dry-run     show what would be moved where

Each replica goes to the broker with the fewest, of another rack than the partition's others where there is one.
The broker may run or be gone for good. Interrupted, the moves that were begun go on; run it again for the rest.
callboard topic reassign TOPIC --cancel ends one.
Exit codes: 0 it holds nothing any more, 1 it still does, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard cluster add-controller --help`.
pub const CLUSTER_ADD_CONTROLLER: &str = "\
Example:
  callboard cluster add-controller 4@10.0.0.4:9646

Start the node first: \"controller\" in node.roles, itself among cluster.controllers, an empty node.data_dir. It follows the
metadata log, and gets its vote when it has all of it. Then name it in cluster.controllers of all nodes.
The same with another address moves a controller that has its data directory.
Exit codes: 0 it votes, 1 refused or not caught up yet, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard cluster remove-controller --help`.
pub const CLUSTER_REMOVE_CONTROLLER: &str = "\
Example:
  callboard cluster remove-controller 3

A majority of the others has to run. Then take it out of cluster.controllers of all nodes, and stop it.
Exit codes: 0 removed, 1 refused, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard cluster reset-controller --help`.
pub const CLUSTER_RESET_CONTROLLER: &str = "\
Examples:
  callboard cluster reset-controller 3
  callboard cluster reset-controller 3 --address 10.0.0.9:9646

For a controller whose data directory was lost or damaged. A majority of the others has to run. Start the node with an empty
node.data_dir first: it waits, since it has forgotten its votes; this gives it a new identity, in place of the lost one.
Exit codes: 0 it votes again, 1 refused or not caught up yet, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard log dump --help`.
pub const LOG_DUMP: &str = "\
Examples:
  callboard log dump data/orders-*-0
  callboard log dump data/orders-*-0 --records --json   one JSON object a batch and line

Exit codes: 0 done, 1 something in the log is wrong, 2 the directory is no partition's.";

/// Below `callboard log verify --help`.
pub const LOG_VERIFY: &str = "\
Example:
  callboard log verify data/orders-*-0

Exit codes: 0 everything is as it should be, 1 something is wrong, 2 the directory is no partition's.";

/// Below `callboard-producer --help` and `callboard produce --help`.
pub const PRODUCE: &str = "\
Examples:
  callboard-producer --topic syslog < FILE
  tail -f FILE | callboard-producer --topic syslog --compression lz4
  echo 'alice:hello' | callboard-producer --topic chat --key-separator :
  callboard-producer --topic load --producers 10 --interval 10ms --keys user --count 1000

Ctrl-C sends what was read and ends; a second one ends at once.
Exit codes: 0 everything was delivered, 1 something was not, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard-consumer --help` and `callboard consume --help`.
pub const CONSUME: &str = "\
Examples:
  callboard-consumer --topic syslog                     what comes from now on
  callboard-consumer --topic syslog --exit-at-end > FILE
  callboard-consumer --topic chat --from 2026-01-31T12:00:00Z --format key=value
  callboard-consumer --topic load --consumers 4 --output DIR
  callboard-consumer --topic syslog --read-from rack --rack eu-1    from replicas nearby, where there are some

Ctrl-C ends after the records at hand; a second one ends at once.
Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard bench produce --help`.
pub const BENCH_PRODUCE: &str = "\
Examples:
  callboard bench produce --acks 1 --flush os --beside limit --runs 5
  callboard bench produce --record-size 100 --batch-records 10000 --acks 1 --flush os --beside null
  callboard bench produce --producers 8 --flush always --rate 50000 --duration 10s

A topic is created for each run and deleted afterwards. docs/bench.md says what each figure means.
Exit codes: 0 done (Ctrl-C prints what was measured), 1 a record failed, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard bench consume --help`.
pub const BENCH_CONSUME: &str = "\
Examples:
  callboard bench consume --flush os --beside limit
  callboard bench consume --partitions 4 --consumers 4
  callboard bench consume --cold ./data --beside limit   of a node whose data is in ./data

Every record is verified: checksum, order, number, content.
Exit codes: 0 done, 1 a record is not as it was sent, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard bench latency --help`.
pub const BENCH_LATENCY: &str = "\
Examples:
  callboard bench latency --flush os --beside limit      one record at a time, until it is acknowledged
  callboard bench latency --rate 10000 --beside null     at a rate, until a consumer has the record

A latency counts from when a record was due, not from when it was sent.
Exit codes: 0 done, 1 a record failed or is not as it was sent, 2 wrong usage, 3 the cluster was not reached.";

/// Below `callboard bench limit --help`.
pub const BENCH_LIMIT: &str = "\
Examples:
  callboard bench limit                                  one connection into one file
  callboard bench limit --connections 8 --sync
  callboard bench limit --loopback --write-size 1MiB
  callboard bench limit --ping-pong --record-size 1KiB

Nothing of Callboard is measured here. Exit codes: 0 done, 1 a socket or file failed, 2 wrong usage.";

/// Below `callboard bench null --help`.
pub const BENCH_NULL: &str = "\
Example:
  callboard bench null --listen 127.0.0.1:9645

and in another terminal: callboard bench produce --server 127.0.0.1:9645
Do not send records to it that you need: all are gone at once.
Exit codes: 0 stopped, 1 it could not start.";

/// Below `callboard bench gates --help`.
pub const BENCH_GATES: &str = "\
Examples:
  callboard bench gates                                  five runs of everything, some ten minutes
  callboard bench gates --runs 1 --only produce --bytes 256MiB

Starts a node and a null server of its own, and takes them down. Prints a Markdown table; with --json all figures.
Exit codes: 0 measured, whatever came of it, 1 something could not be measured, 2 wrong usage.";
