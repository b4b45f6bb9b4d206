//! Who decides: remembered, and looked for together by all who need to know. Whoever is asked names the controllers that it knows of:
//! those that nobody listed here are asked, too, from then on.
//!
//! ```text
//!   known ──► asked ──► lost: not in office, not reached ──► a round: all members at once ──► known
//!                                                               ▲   nobody decides   │
//!                                                               └────── a pause ◄────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::member::Member;
use crate::actors::peer::{PeerAddress, PeerLinks, PeerTarget};
use crate::protocol::messages::peer::{FindControllerReply, KnownController};
use crate::types::NodeId;

/// How long a member may take to say whether it decides. One that is slower will hardly decide in time what it is asked.
const ANSWER_PATIENCE: Duration = Duration::from_millis(300);
/// Between two rounds. An election takes several hundred milliseconds.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// A member that decides, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Office {
    /// Its number among the members.
    pub member: usize,
    /// Its node, if that is known.
    pub node: Option<NodeId>,
    /// The term in which it was found to.
    term: u64,
    /// The round that found it: a later one may find the same again.
    round: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub office: Option<Office>,
    /// The newest term in which any member was seen to decide.
    term: u64,
    rounds: u64,
}

/// What all clones of a handle share.
pub(super) struct Search {
    /// Those that were listed, and after them those that were heard of. None ever goes, so that its number stays.
    members: Mutex<Vec<Arc<Member>>>,
    /// How those that are heard of are reached; `None` where there can be no others.
    links: Option<Arc<PeerLinks>>,
    known: watch::Sender<Known>,
    /// One round at a time: whoever waits for it takes what it finds.
    turn: tokio::sync::Mutex<()>,
    /// What each member said last.
    said: Mutex<Vec<Option<String>>>,
}

impl Search {
    /// The only member there is decides, as long as it does not say otherwise.
    pub fn new(members: Vec<Member>, links: Option<Arc<PeerLinks>>) -> Self {
        let only = |member: &Member| Office { member: 0, node: member.node(), term: 0, round: 0 };
        let office = match members.as_slice() {
            [member] => Some(only(member)),
            _ => None,
        };
        let said = Mutex::new(vec![None; members.len()]);
        let known = watch::Sender::new(Known { office, ..Known::default() });
        let members = Mutex::new(members.into_iter().map(Arc::new).collect());
        Self { members, links, known, turn: tokio::sync::Mutex::new(()), said }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        // Nothing panics while it is held.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn members(&self) -> Vec<Arc<Member>> {
        self.locked().clone()
    }

    /// A member by its number.
    pub fn member(&self, number: usize) -> Arc<Member> {
        Arc::clone(&self.locked()[number])
    }

    /// Whether there is only one.
    pub fn is_alone(&self) -> bool {
        self.locked().len() == 1
    }

    /// Takes note of controllers that nobody listed here.
    fn hear_of(&self, controllers: &[KnownController]) {
        let Some(links) = &self.links else { return };
        let mut members = self.locked();
        for KnownController { node, host, port, .. } in controllers {
            let address = PeerAddress { host: host.clone(), port: *port };
            let target = PeerTarget { node: Some(*node), directory: None, address };
            match members.iter().position(|member| member.node() == Some(*node)) {
                // What is listed is meant as it is: the address may be this node's own way to it.
                Some(known) if !members[known].was_heard_of_elsewhere(&target) => {}
                Some(known) => members[known] = Arc::new(Member::heard_of(target, Arc::clone(links))),
                None => {
                    tracing::info!(%target, "another controller was heard of");
                    members.push(Arc::new(Member::heard_of(target, Arc::clone(links))));
                    self.said().push(None);
                }
            }
        }
    }

    pub fn office(&self) -> Option<Office> {
        self.known.borrow().office
    }

    /// Ready when another member is known to decide than this one.
    pub async fn replaced(&self, office: Office) {
        let mut known = self.known.subscribe();
        let is_other = |known: &Known| known.office.is_some_and(|found| found.member != office.member);
        // The sender lives as long as this.
        let _ = known.wait_for(is_other).await;
    }

    /// Whoever held this office does not, for this reason.
    pub fn lost(&self, office: Office, why: String) {
        self.note(office.member, why);
        self.known.send_if_modified(|known| {
            let is_it = known.office == Some(office);
            if is_it {
                known.office = None;
            }
            is_it
        });
    }

    /// Who decides; looked for until `deadline` if nobody knows.
    pub async fn find(&self, deadline: Instant) -> Option<Office> {
        loop {
            let known = *self.known.borrow();
            if known.office.is_some() {
                return known.office;
            }
            let turn = timeout_at(deadline, self.turn.lock()).await.ok()?;
            // Whoever had the turn before may have looked meanwhile: what that found holds for all who waited.
            if self.known.borrow().rounds == known.rounds {
                self.round(deadline).await;
            }
            drop(turn);
            if let Some(office) = self.office() {
                return Some(office);
            }
            let again_at = Instant::now() + PAUSE;
            if again_at >= deadline {
                return None;
            }
            sleep_until(again_at).await;
        }
    }

    /// Asks all members at once. The first that decides is it, unless one was seen to in a later term: then whoever decides in the
    /// highest term, when all have answered or had their time.
    async fn round(&self, deadline: Instant) {
        let patience = ANSWER_PATIENCE.min(deadline.saturating_duration_since(Instant::now()));
        let members = self.members();
        let asked = members.iter().enumerate().map(|(number, member)| async move {
            (number, member.find(patience).await) //
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let known = *self.known.borrow();
        let mut best: Option<(usize, FindControllerReply)> = None;
        while let Some((number, answer)) = answers.next().await {
            let reply = match answer {
                Ok(reply) => reply,
                Err(why) => {
                    self.note(number, why);
                    continue;
                }
            };
            self.hear_of(&reply.controllers);
            if !reply.decides {
                self.note(number, no_office(&reply));
            } else if best.as_ref().is_none_or(|(_, best)| best.term < reply.term) {
                let is_newest = reply.term >= known.term;
                best = Some((number, reply));
                if is_newest {
                    break;
                }
            }
        }
        self.known.send_modify(|known| {
            known.rounds += 1;
            known.office = best.map(|(member, reply)| {
                known.term = reply.term;
                let node = reply.leader.or_else(|| members[member].node());
                Office { member, node, term: reply.term, round: known.rounds }
            });
        });
    }

    fn said(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        // Nothing panics while it is held.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, member: usize, what: String) {
        self.said()[member] = Some(what);
    }

    /// What each member said last.
    pub fn told(&self) -> String {
        let (members, said) = (self.members(), self.said());
        let lines = members.iter().zip(said.iter()).map(|(member, said)| match said {
            Some(said) => format!("{}: {said}", member.name()),
            None => format!("{} was not heard of", member.name()),
        });
        lines.collect::<Vec<_>>().join("; ")
    }
}

fn no_office(reply: &FindControllerReply) -> String {
    let term = reply.term;
    match reply.leader {
        Some(leader) => format!("does not decide, and says that node {leader} leads in term {term}"),
        None => format!("does not decide, and knows of no leader in term {term}"),
    }
}
