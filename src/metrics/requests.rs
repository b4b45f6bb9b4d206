//! Requests by kind, and what went wrong with them: a fixed table, so that counting is an addition and no look-up.

use super::Counter;
use crate::protocol::{Api, ErrorCode};

const APIS: usize = Api::ALL.len();
const CODES: usize = ErrorCode::ALL.len();

/// Requests and errors of all connections.
#[derive(Debug)]
pub struct RequestMetrics {
    asked: [Counter; APIS],
    /// By kind of request, with a last row for what is no known request; then by code.
    failed: Box<[[Counter; CODES]]>,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let row = || std::array::from_fn(|_| Counter::default());
        Self { asked: std::array::from_fn(|_| Counter::default()), failed: (0..=APIS).map(|_| row()).collect() }
    }
}

impl RequestMetrics {
    /// A request of this kind has come.
    pub fn asked(&self, api: Api) {
        self.asked[api as usize].add(1);
    }

    /// A request, or one item of it, got this error. `None`: it was no known request, or not even a frame.
    pub fn failed(&self, api: Option<Api>, code: ErrorCode) {
        self.failed[api.map_or(APIS, |api| api as usize)][code as usize].add(1);
    }

    /// How many requests of each kind have come.
    pub fn requests(&self) -> impl Iterator<Item = (Api, u64)> {
        Api::ALL.into_iter().map(|api| (api, self.asked[api as usize].get()))
    }

    /// The errors there have been, by kind of request and code. What never happened is left out.
    pub fn errors(&self) -> impl Iterator<Item = (Option<Api>, ErrorCode, u64)> {
        let apis = Api::ALL.into_iter().map(Some).chain([None]);
        apis.zip(&self.failed).flat_map(|(api, row)| {
            let counts = ErrorCode::ALL.iter().zip(row).map(move |(code, count)| (api, *code, count.get()));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_and_each_code_has_a_place_of_its_own() {
        // The tables are indexed by the position of the variants, which is that in ALL.
        assert!(Api::ALL.iter().enumerate().all(|(at, api)| *api as usize == at));
        assert!(ErrorCode::ALL.iter().enumerate().all(|(at, code)| *code as usize == at));
        let metrics = RequestMetrics::default();
        metrics.asked(Api::Fetch);
        metrics.asked(Api::Fetch);
        metrics.failed(Some(Api::Fetch), ErrorCode::NotLeader);
        metrics.failed(None, ErrorCode::UnknownApi);
        let asked: Vec<_> = metrics.requests().filter(|(_, count)| *count > 0).collect();
        assert_eq!(asked, [(Api::Fetch, 2)]);
        let errors: Vec<_> = metrics.errors().collect();
        assert_eq!(errors, [(Some(Api::Fetch), ErrorCode::NotLeader, 1), (None, ErrorCode::UnknownApi, 1)]);
    }
}
