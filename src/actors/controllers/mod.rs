//! Whichever controller decides, to be asked without knowing which one that is.
//!
//! ```text
//!   Broker, sessions ─► Controllers ─► the member that decides, as far as is known ─┬─► in this process: its messages
//!                            │                                                      └─► elsewhere: its control link ─► serve ─► Controller
//!                            │ it does not decide, or cannot be reached
//!                            └─► a search: FindController to all at once ─► the first that decides, of the highest term ─► again
//! ```
//!
//! * **Is asked**: what a broker has to say, for the metadata, for changes of topics and for producer ids; each within a time.
//! * **Does**: asks the member that decides. Whoever is not answered finds another, all of them together in one search.
//! * **Remembers**: who decides, and what each member said last, for the error of whoever waited in vain.
//!
//! Invariants: nobody waits longer than its time; a request of which nobody knows what became of it is repeated only where twice is as
//! good as once, and is an error that says so elsewhere; metadata here never goes back.
//!
//! Reading order: `handle`, `search`, `member`, `metadata`; the same things on the wire: `wire`, and `serve` at the other end.

mod handle;
mod local;
mod member;
mod metadata;
mod search;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use handle::Controllers;
pub use local::LocalController;
pub use serve::answer;
