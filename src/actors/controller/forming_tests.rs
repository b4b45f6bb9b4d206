//! Controllers of a new cluster over real sockets. Their storage is the test's word.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::actors::peer::{LinkSettings, Myself, OwnCluster};
use crate::actors::peer_session::{PeerServer, PeerServices, PeerSessionSettings};
use crate::actors::send::post;
use crate::net::{ConnectionGate, Listener};
use crate::types::BufferPool;

const DEADLINE: Duration = Duration::from_secs(20);
const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));

fn directory(node: u32) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(u128::from(node)))
}

fn address(node: u32, port: u16) -> ControllerAddress {
    ControllerAddress { node: NodeId(node), host: "127.0.0.1".to_owned(), port }
}

/// A node that may become a controller.
struct Candidate {
    seat: Addr<Seat>,
    invited: mpsc::Receiver<Invitation>,
    stop: CancellationToken,
}

async fn listen() -> (Listener, u16) {
    let listener = Listener::bind("127.0.0.1:0", ConnectionGate::new(10, 10)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn serve(node: u32, listener: Listener, controllers: &[ControllerAddress]) -> Candidate {
    let (seat, invited) = Seat::free(controllers);
    let (seat, stop) = (seat.start(), CancellationToken::new());
    let services = PeerServices { forming: Some(seat.clone().recipient()), ..PeerServices::default() };
    let myself = Myself { node: NodeId(node), directory: directory(node), cluster: OwnCluster::default() };
    let sessions = PeerSessionSettings { myself, services, max_frame_bytes: 0, stop: stop.clone() };
    let here = Arbiter::current();
    let server = PeerServer::new(sessions, BufferPool::new(0), Arc::new(move |_| here.clone()));
    actix_rt::spawn(server.serve(listener));
    Candidate { seat, invited, stop }
}

impl Candidate {
    async fn accept(&mut self, node: u32) {
        let invitation = timeout(DEADLINE, self.invited.recv()).await.unwrap().unwrap();
        let cluster = invitation.cluster;
        let seat = TakeSeat { cluster, directory: directory(node), member: RaftId::first_of(NodeId(node)) };
        post(&self.seat, seat);
        invitation.answer(Ok(seat));
    }
}

async fn form_as(
    cluster: ClusterId,
    controllers: &[ControllerAddress],
) -> Result<Vec<(u64, DirectoryId)>, MetadataError> {
    let myself = Myself { node: NodeId(1), directory: directory(1), cluster: cluster.into() };
    let links = PeerLinks::new(LinkSettings::new(myself, BufferPool::new(0)), Arbiter::current(), Arbiter::current());
    let me = ControllerNode { node: NodeId(1), directory: directory(1), host: "127.0.0.1".to_owned(), port: 1 };
    let formed = timeout(DEADLINE, form(&links, cluster, controllers, &me)).await.expect("in time");
    links.close();
    Ok(formed?.into_iter().map(|(id, member)| (id.0, member.directory)).collect())
}

#[actix_rt::test]
async fn a_cluster_is_formed_once_all_have_taken_their_seats_and_asked_again_they_say_the_same() {
    let ((second, port_2), (third, port_3)) = (listen().await, listen().await);
    let controllers = [address(1, 1), address(2, port_2), address(3, port_3)];
    let mut second = serve(2, second, &controllers);
    drop(third);
    let forming = form_as(CLUSTER, &controllers);
    tokio::pin!(forming);
    tokio::select! {
        _ = &mut forming => panic!("it is formed without the third"),
        () = second.accept(2) => {}
    }
    // It comes up later.
    let third = Listener::bind(&format!("127.0.0.1:{port_3}"), ConnectionGate::new(10, 10)).await.unwrap();
    let mut third = serve(3, third, &controllers);
    let members = [(1, directory(1)), (2, directory(2)), (3, directory(3))];
    let ((), formed) = tokio::join!(third.accept(3), forming);
    assert_eq!(formed.unwrap(), members);
    // The first one was killed before it had begun: it forms the same cluster again.
    assert_eq!(form_as(CLUSTER, &controllers).await.unwrap(), members);
    // A first one that lost its directory must not make another cluster of them.
    let other = form_as(ClusterId(uuid::Uuid::from_u128(10)), &controllers).await.expect_err("refused");
    assert!(other.to_string().contains("reset-controller"), "{other}");
    second.stop.cancel();
    third.stop.cancel();
}

#[actix_rt::test]
async fn nodes_that_list_other_controllers_form_no_cluster() {
    let (second, port) = listen().await;
    let second = serve(2, second, &[address(1, 1), address(2, port), address(4, 4)]);
    let refused = form_as(CLUSTER, &[address(1, 1), address(2, port)]).await.expect_err("refused");
    assert!(refused.to_string().contains("names the nodes 1, 2, 4 here and 1, 2 at the node"), "{refused}");
    second.stop.cancel();
}
