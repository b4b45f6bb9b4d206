//! What the log has been told of a link: each change of its state once, not every attempt.

use std::sync::Arc;

/// What was said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Announced {
    /// Nothing so far, or that a connection was lost.
    #[default]
    Nothing,
    /// That there is a connection.
    Connected,
    /// That there is none, for this reason.
    Unreachable(Arc<str>),
}

impl Announced {
    /// There is a connection.
    pub fn connected(&mut self) {
        *self = Self::Connected;
    }

    /// The connection is lost.
    pub fn lost(&mut self) {
        *self = Self::Nothing;
    }

    /// An attempt failed. Whether that is news.
    pub fn unreachable(&mut self, reason: &Arc<str>) -> bool {
        let now = Self::Unreachable(Arc::clone(reason));
        if *self == now {
            return false;
        }
        *self = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once_until_it_changes_or_the_link_was_up_in_between() {
        let [refused, late]: [Arc<str>; 2] = ["refused".into(), "no answer".into()];
        let mut announced = Announced::default();
        let tried: Vec<_> = [&refused, &refused, &late, &late].map(|reason| announced.unreachable(reason)).into();
        assert_eq!(tried, [true, false, true, false]);
        announced.connected();
        announced.lost();
        assert!(announced.unreachable(&late));
    }
}
