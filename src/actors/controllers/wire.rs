//! What brokers ask, on the wire and as the engines know it, in both directions.

use std::time::Duration;

use super::member::Failed;
use crate::actors::peer::PeerHandle;
use crate::engine::broker::{Answer, Finding, RefusedProposal, Renewal, ReplicaReport, Request};
use crate::engine::controller::{InSyncProposal, Member};
use crate::engine::metadata::{BrokerRegistration, DirectoryHistory, LastStop, PeerEndpoint};
use crate::protocol::messages::peer::{
    BrokerRegistered, ProposeInSync, ProposeInSyncReply, ProposedInSync, RefusedInSync, RegisterBroker, RenewLease,
    RenewLeaseReply, ReportReplicas, StopBroker,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::MonoTime;

/// How many proposals one request has at most, and how many findings one report.
const MOST_IN_A_REQUEST: usize = ReplicaReport::MOST;

/// Sends what a broker asks over a link.
pub(super) async fn ask(link: &PeerHandle, request: &Request, patience: Duration) -> Result<Option<Answer>, Failed> {
    let nothing = Vec::new();
    match request {
        Request::Register(registration) => {
            let incarnation = registration.incarnation;
            match link.ask(&register(registration), nothing, patience).await {
                Ok(answer) => Ok(Some(Answer::Registered { incarnation, epoch: answer.reply.epoch })),
                Err(error) => match Failed::from(error) {
                    Failed::Refused(cause) => Ok(Some(Answer::NotRegistered { incarnation, cause })),
                    failed => Err(failed),
                },
            }
        }
        Request::Renew(renewal) => {
            let reply = link.ask(&renew(renewal), nothing, patience).await?.reply;
            Ok(read_renewed(renewal, reply))
        }
        Request::Report(findings) => {
            link.ask(&report(findings), nothing, patience).await?;
            Ok(None)
        }
        Request::Propose(proposals) => {
            let Some(request) = propose(proposals) else { return Ok(None) };
            Ok(read_refused(link.ask(&request, nothing, patience).await?.reply))
        }
        Request::Stopping { node, epoch } | Request::Stopped { node, epoch } => {
            let has_stopped = matches!(request, Request::Stopped { .. });
            let request = StopBroker { node: *node, epoch: *epoch, has_stopped };
            link.ask(&request, nothing, patience).await?;
            Ok(None)
        }
    }
}

fn number_of(stop: LastStop) -> u8 {
    match stop {
        LastStop::Clean => 0,
        LastStop::Process => 1,
        LastStop::Machine => 2,
    }
}

pub(super) fn register(registration: &BrokerRegistration) -> RegisterBroker {
    let BrokerRegistration { node, incarnation, directory, host, port, peer, rack, software, before, .. } =
        registration.clone();
    let (peer_host, peer_port) = peer.map(|peer| (peer.host, peer.port)).unzip();
    let (held_epoch, last_stop) = (before.epoch, number_of(before.stop));
    RegisterBroker {
        node,
        incarnation,
        directory,
        host,
        port,
        peer_host,
        peer_port,
        rack,
        software,
        held_epoch,
        last_stop,
    }
}

pub(super) fn read_register(request: RegisterBroker) -> Result<Request, ApiError> {
    let RegisterBroker { node, incarnation, directory, host, port, peer_host, peer_port, rack, software, .. } = request;
    let peer = match (peer_host, peer_port) {
        (Some(host), Some(port)) => Some(PeerEndpoint { host, port }),
        (None, None) => None,
        _ => return Err(invalid("a broker says both the host and the port where nodes reach it, or neither")),
    };
    let stop = match request.last_stop {
        0 => LastStop::Clean,
        1 => LastStop::Process,
        2 => LastStop::Machine,
        other => return Err(invalid(&format!("last_stop is 0, 1 or 2, not {other}"))),
    };
    let epoch = request.held_epoch;
    let before = DirectoryHistory { epoch, stop };
    let decided_at = None;
    Ok(Request::Register(BrokerRegistration {
        node,
        epoch,
        incarnation,
        directory,
        host,
        port,
        peer,
        rack,
        software,
        before,
        decided_at,
    }))
}

pub(super) fn renew(renewal: &Renewal) -> RenewLease {
    let Renewal { node, epoch, applied, doubtful, sent: _ } = renewal.clone();
    RenewLease { node, epoch, applied, doubtful }
}

/// When it was sent is known to the broker alone, and counts there alone.
pub(super) fn read_renew(request: RenewLease) -> Request {
    let RenewLease { node, epoch, applied, doubtful } = request;
    Request::Renew(Renewal { node, epoch, applied, sent: MonoTime::default(), doubtful })
}

/// The lease counts from when this very request was sent, whatever the other end knows of that.
fn read_renewed(renewal: &Renewal, reply: RenewLeaseReply) -> Option<Answer> {
    let Renewal { epoch, sent, .. } = *renewal;
    match reply {
        RenewLeaseReply::Renewed { duration_ms } => {
            Some(Answer::Renewed { epoch, sent, duration: Duration::from_millis(duration_ms) })
        }
        RenewLeaseReply::Fenced => None,
        RenewLeaseReply::Lapsed => Some(Answer::Lapsed { epoch }),
        RenewLeaseReply::Stale { current } => Some(Answer::StaleEpoch { epoch, current }),
    }
}

pub(super) fn renewed(answer: Option<Answer>) -> Result<RenewLeaseReply, ApiError> {
    match answer {
        Some(Answer::Renewed { duration, .. }) => {
            // Rounded down: a lease never runs longer than it was granted.
            Ok(RenewLeaseReply::Renewed { duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) })
        }
        None => Ok(RenewLeaseReply::Fenced),
        Some(Answer::Lapsed { .. }) => Ok(RenewLeaseReply::Lapsed),
        Some(Answer::StaleEpoch { current, .. }) => Ok(RenewLeaseReply::Stale { current }),
        Some(other) => Err(strange(&other)),
    }
}

pub(super) fn registered(answer: Option<Answer>, index: u64) -> Result<BrokerRegistered, ApiError> {
    match answer {
        Some(Answer::Registered { epoch, .. }) => Ok(BrokerRegistered { epoch, index }),
        Some(Answer::NotRegistered { cause, .. }) => Err(cause),
        Some(other) => Err(strange(&other)),
        None => Err(ApiError::new(ErrorCode::Unknown, "the controller left a registration undecided: ask again")),
    }
}

pub(super) fn report(report: &ReplicaReport) -> ReportReplicas {
    let ReplicaReport { node, epoch, findings } = report;
    let (node, epoch) = (*node, *epoch);
    let mut message = ReportReplicas {
        node,
        epoch,
        lost: Vec::new(),
        damaged: Vec::new(),
        opened: Vec::new(),
        ends: Vec::new(),
        files_gone: Vec::new(),
    };
    for finding in findings {
        match *finding {
            Finding::Lost(partition) => message.lost.push(partition),
            Finding::Damaged { partition, leader_epoch } => message.damaged.push((partition, leader_epoch)),
            Finding::Opened(partition) => message.opened.push(partition),
            Finding::End { partition, leader_epoch, end_offset } => {
                message.ends.push((partition, leader_epoch, end_offset));
            }
            Finding::FilesGone(topic) => message.files_gone.push(topic),
        }
    }
    message
}

pub(super) fn read_report(request: ReportReplicas) -> Result<Request, ApiError> {
    let ReportReplicas { node, epoch, lost, damaged, opened, ends, files_gone } = request;
    let damaged = damaged.into_iter().map(|(partition, leader_epoch)| Finding::Damaged { partition, leader_epoch });
    let ends = ends.into_iter().map(|(partition, leader_epoch, end_offset)| Finding::End {
        partition,
        leader_epoch,
        end_offset,
    });
    let replicas = lost.into_iter().map(Finding::Lost).chain(damaged).chain(opened.into_iter().map(Finding::Opened));
    let findings: Vec<_> = replicas.chain(ends).chain(files_gone.into_iter().map(Finding::FilesGone)).collect();
    check_count("findings", findings.len())?;
    Ok(Request::Report(ReplicaReport { node, epoch, findings }))
}

/// All proposals of a request are of one registration of one broker. `None` if there are none.
pub(super) fn propose(proposals: &[InSyncProposal]) -> Option<ProposeInSync> {
    let first = proposals.first()?;
    let proposed = proposals.iter().map(|proposal| ProposedInSync {
        partition: proposal.partition,
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        members: proposal.members.iter().map(|member| (member.node, member.epoch)).collect(),
        new_leader: proposal.new_leader,
    });
    Some(ProposeInSync { node: first.leader, epoch: first.broker_epoch, proposals: proposed.collect() })
}

pub(super) fn read_propose(request: ProposeInSync) -> Result<Request, ApiError> {
    let ProposeInSync { node: leader, epoch: broker_epoch, proposals } = request;
    check_count("proposals", proposals.len())?;
    let read = |proposed: ProposedInSync| {
        let ProposedInSync { partition, leader_epoch, partition_epoch, members, new_leader } = proposed;
        let members = members.into_iter().map(|(node, epoch)| Member { node, epoch }).collect();
        InSyncProposal { partition, leader, broker_epoch, leader_epoch, partition_epoch, members, new_leader }
    };
    Ok(Request::Propose(proposals.into_iter().map(read).collect()))
}

fn read_refused(reply: ProposeInSyncReply) -> Option<Answer> {
    let read = |refused: RefusedInSync| {
        let RefusedInSync { partition, partition_epoch, why } = refused;
        RefusedProposal { partition, partition_epoch, why }
    };
    let refused: Vec<_> = reply.refused.into_iter().map(read).collect();
    (!refused.is_empty()).then_some(Answer::ProposalsRefused(refused))
}

pub(super) fn refused(answer: Option<Answer>) -> Result<ProposeInSyncReply, ApiError> {
    let refused = match answer {
        None => Vec::new(),
        Some(Answer::ProposalsRefused(refused)) => refused,
        Some(other) => return Err(strange(&other)),
    };
    let write = |refused: RefusedProposal| {
        let RefusedProposal { partition, partition_epoch, why } = refused;
        RefusedInSync { partition, partition_epoch, why }
    };
    Ok(ProposeInSyncReply { refused: refused.into_iter().map(write).collect() })
}

pub(super) fn read_stop(request: StopBroker) -> Request {
    let StopBroker { node, epoch, has_stopped } = request;
    if has_stopped { Request::Stopped { node, epoch } } else { Request::Stopping { node, epoch } }
}

fn check_count(what: &str, count: usize) -> Result<(), ApiError> {
    if count <= MOST_IN_A_REQUEST {
        return Ok(());
    }
    Err(invalid(&format!("{count} {what} in one request, {MOST_IN_A_REQUEST} at most: send them in several")))
}

fn invalid(text: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn strange(answer: &Answer) -> ApiError {
    ApiError::new(ErrorCode::Unknown, format!("{answer:?} answers no such request: please report it"))
}
