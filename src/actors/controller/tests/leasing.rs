//! Who is counted on, and for how long.

use super::bench::{Bench, Lines, REFUSING, directory_of};
use super::*;
use crate::engine::broker::{Answer, Renewal, Request};
use crate::protocol::messages::peer::{FindControllerReply, PeerConnection};
use crate::types::MonoTime;

const LEASE: Duration = ControllerSettings::LEASE;
const DRIFT: Duration = ControllerSettings::DRIFT;
const MOMENT: Duration = Duration::from_millis(1);

#[actix::test]
async fn a_broker_is_counted_on_once_it_renews_with_the_metadata_of_its_registration() {
    let bench = Bench::new().await;
    let epoch = bench.register(1, 0, DirectoryHistory::default()).await;
    assert_eq!(bench.renew(1, epoch, 0).await, None, "it does not know that it is registered");
    assert!(!bench.image().await.is_live(NodeId(1)));
    let sent = MonoTime(Duration::from_secs(77));
    let applied = bench.image().await.index;
    assert_eq!(bench.renew(1, epoch, applied).await, Some(Answer::Renewed { epoch, sent, duration: LEASE }));
    assert!(bench.image().await.is_live(NodeId(1)));
    let earlier = BrokerEpoch(epoch.0 - 1);
    let stale = Some(Answer::StaleEpoch { epoch: earlier, current: Some(epoch) });
    assert_eq!(bench.renew(1, earlier, applied).await, stale);
    let unknown = Some(Answer::StaleEpoch { epoch, current: None });
    assert_eq!(bench.renew(2, epoch, applied).await, unknown);
}

#[actix::test]
async fn a_registration_that_is_refused_is_answered_and_is_no_error_of_the_controller() {
    let bench = Bench::new().await;
    bench.live(1).await;
    let mut other = Bench::registration(1, 1, DirectoryHistory::default());
    other.directory = directory_of(2);
    match bench.ask(Request::Register(other.clone())).await {
        Ok(Some(Answer::NotRegistered { incarnation, cause })) => {
            assert_eq!((incarnation, cause.code), (other.incarnation, ErrorCode::InvalidRequest));
        }
        answer => panic!("{answer:?}"),
    }
}

#[actix::test]
async fn rule_19_a_silent_broker_is_fenced_after_lease_and_drift_and_that_is_said_once() {
    let lines = Lines::new();
    let bench = Bench::new().await;
    bench.live(1).await;
    let second = bench.live(2).await;
    let index = bench.image().await.index;
    bench.clock.advance(LEASE + DRIFT - MOMENT);
    bench.tick().await;
    bench.renewed(2, second).await;
    assert_eq!(bench.image().await.index, index, "not yet, and looking writes nothing");
    bench.clock.advance(MOMENT);
    for _ in 0..3 {
        bench.tick().await;
    }
    let image = bench.until(|image| !image.is_live(NodeId(1))).await;
    assert!(image.is_live(NodeId(2)), "it has renewed");
    assert_eq!(image.index, index + 1, "one entry");
    bench.clock.advance(LEASE + DRIFT);
    bench.tick().await;
    let image = bench.until(|image| !image.is_live(NodeId(2))).await;
    assert_eq!(image.index, index + 2);
    let said = lines.with("a broker is fenced");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("node=1") && said[0].contains("silent_ms=5100"), "{said:?}");
    assert!(said[0].contains("WARN"), "{said:?}");
}

#[actix::test]
async fn a_broker_that_was_fenced_is_counted_on_again_when_it_knows() {
    let bench = Bench::new().await;
    let epoch = bench.live(1).await;
    bench.clock.advance(LEASE + DRIFT);
    bench.tick().await;
    let image = bench.until(|image| !image.is_live(NodeId(1))).await;
    assert_eq!(bench.renew(1, epoch, image.index - 1).await, None, "it does not know that it was fenced");
    bench.renewed(1, epoch).await;
    assert!(bench.image().await.is_live(NodeId(1)));
}

#[actix::test]
async fn renewals_that_come_together_are_all_answered() {
    let bench = Bench::new().await;
    let epoch = bench.live(1).await;
    let renewal =
        |node| Renewal { node: NodeId(node), epoch, applied: 0, sent: MonoTime::default(), doubtful: Vec::new() };
    let asked = (0..200).map(|node| bench.ask(Request::Renew(renewal(node))));
    let answers = futures_util::future::join_all(asked).await;
    let renewed = answers.iter().filter(|answer| matches!(answer, Ok(Some(Answer::Renewed { .. })))).count();
    let stale = answers.iter().filter(|answer| matches!(answer, Ok(Some(Answer::StaleEpoch { .. })))).count();
    assert_eq!((renewed, stale), (1, 199));
}

#[actix::test]
async fn a_broker_that_stops_is_elected_no_more_and_then_fenced() {
    let bench = Bench::new().await;
    let (node, epoch) = (NodeId(1), bench.live(1).await);
    assert_eq!(bench.ask(Request::Stopping { node, epoch: BrokerEpoch(epoch.0 + 1) }).await, Ok(None), "overtaken");
    assert!(bench.image().await.may_lead(node));
    assert_eq!(bench.ask(Request::Stopping { node, epoch }).await, Ok(None));
    let image = bench.image().await;
    assert!(image.is_live(node) && !image.may_lead(node));
    assert_eq!(bench.ask(Request::Stopped { node, epoch }).await, Ok(None));
    assert!(!bench.image().await.is_live(node));
}

#[actix::test]
async fn a_broker_whose_port_refuses_is_fenced_at_once_and_one_whose_port_accepts_is_not() {
    let lines = Lines::new();
    let bench = Bench::new().await;
    let refusing = u32::from(REFUSING);
    bench.live(refusing).await;
    bench.live(2).await;
    let before = bench.image().await;
    // None of these is the connection of a broker that is counted on.
    bench.lost(7, directory_of(7), PeerConnection::Control);
    bench.lost(refusing, directory_of(9), PeerConnection::Control);
    bench.lost(refusing, directory_of(refusing), PeerConnection::Data);
    // It accepts: the network was cut, perhaps.
    bench.lost(2, directory_of(2), PeerConnection::Control);
    let epoch = bench.register(3, 0, DirectoryHistory::default()).await;
    assert_eq!(bench.until(|image| image.is_registered(NodeId(3), epoch)).await.index, before.index + 1);
    for _ in 0..2 {
        bench.lost(refusing, directory_of(refusing), PeerConnection::Control);
    }
    let image = bench.until(|image| !image.is_live(NodeId(refusing))).await;
    assert!(image.is_live(NodeId(2)));
    assert_eq!(image.index, before.index + 2, "once");
    assert_eq!(lines.with("its process is gone").len(), 1);
}

#[actix::test]
async fn who_decides_is_said_to_anybody() {
    let bench = Bench::new().await;
    let found = bench.controller.send(FindController).await.expect("alive");
    let term = bench.raft.metrics().borrow().current_term;
    let controllers = found.controllers.clone();
    assert_eq!(controllers.iter().map(|known| known.node).collect::<Vec<_>>(), [NodeId(1)]);
    let expected =
        FindControllerReply { cluster: Some(CLUSTER), decides: true, term, leader: Some(NodeId(1)), controllers };
    assert_eq!(found, expected);
}
