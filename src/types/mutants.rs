//! For tests only: replication with one of its rules broken, so that the simulation can be seen to notice.
//!
//! ```text
//!   scripts/mutants ──► CALLBOARD_MUTANT=NAME, a test built with the feature `mutants`
//!                                                              │
//!   a place that keeps a rule:  if is_kept || Mutant::BreaksIt.is_on()  ◄─────┘
//! ```
//!
//! A mutant is one line changed at the place that keeps a rule of docs/replication.md; docs/simulation.md has the table of how soon
//! each is caught. Without the feature nothing of it is left in a program: [`Mutant::is_on`] is a constant then.

macro_rules! mutants {
    ($($rule:literal $name:ident: $change:literal,)*) => {
        /// A rule that is broken in one way.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            $(#[doc = concat!("Rule ", stringify!($rule), ": ", $change, ".")] $name,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them, each with the rule that it breaks and what it does.
            pub const ALL: &[(Self, u8, &str)] = &[$((Self::$name, $rule, $change),)*];
        }
    };
}

mutants! {
    1 CountsOnlyTheCommittedSet: "a proposed member does not count for the watermark",
    1 ForgetsProposalsWhenRefused: "what was proposed counts no more once the answer is a refusal",
    1 CommitsWhatIsOnlyWritten: "with `always` the leader counts what it has written and not synced",
    1 CountsWhatFollowersOnlyWrote: "with `always` the leader counts what followers have written and not synced",
    1 CommitsBelowTheMinimum: "the minimum of in-sync replicas is not asked for",
    1 CountsProposedForTheMinimum: "the minimum is tested on the proposed set, too",
    2 CountsFetchesOfOldRegistrations: "fetches of an earlier registration count",
    2 CountsFetchesOfOtherEpochs: "fetches for another leader epoch count",
    2 CountsOvertakenFetches: "a fetch counts after a newer one",
    2 CountsAnyHistory: "the epoch of a follower's last record is not compared",
    2 TakesAnswersToEarlierProcesses: "an answer to an earlier process of the broker passes for one to this",
    2 ReportsWhatIsNotSynced: "a follower reports what it has written as synced",
    2 RecoversWithoutSyncing: "what recovery found counts as durable and is not synced",
    3 AcknowledgesAfterItsLease: "acknowledgements are given after the lease",
    3 ReadsAfterItsLease: "consumers are answered after the lease",
    3 ListsAfterItsLease: "offsets are listed after the lease",
    3 FencesAtOnceInOffice: "a new controller does not wait before it fences for silence",
    3 ForgetsThatClocksDrift: "a broker is fenced when its lease ends, not a drift later",
    3 RenewsLapsedLeases: "a lease is renewed while its broker is being fenced for silence",
    3 GrantsLeasesToTheUnaware: "a fenced broker gets a lease before it knows that it was fenced",
    3 CountsLeasesFromTheAnswer: "a lease counts from when the answer comes, not from when it was asked for",
    3 RenewsWithoutAQuorum: "a controller renews leases without asking a majority whether it still leads",
    4 AnswersDuplicatesAtOnce: "a retry is acknowledged before the original is committed",
    5 ElectsInTheSameEpoch: "an election does not raise the leader epoch",
    5 NewIncarnationsLeadOn: "a broker that registers again leads on",
    6 TruncatesToTheWatermark: "a follower cuts its log at its watermark",
    6 KeepsTheEpochsOfACut: "a follower remembers the epochs of what it cut off",
    6 CutsWithoutSyncing: "a cut is not synced",
    6 CutsBelowTheWatermark: "a follower gives up what is committed without an unclean election",
    7 ListsWhatItDoesNotKnow: "a new leader lists the end before it knows what is committed",
    7 JudgesWhatItDoesNotKnow: "a leader refuses an offset beyond its end before it knows what is committed, or when it may be deposed",
    7 RefusesBeyondItsWatermark: "a follower refuses an offset beyond its own end",
    7 BelievesAnyLeader: "a follower refuses an offset on the word of a leader that may be deposed",
    8 AppendsWhileHandingOver: "appends go on during a hand-over",
    8 HandsOverTooEarly: "the leadership goes to a replica that lacks records",
    8 MarksAnUnsyncedStopClean: "a log is closed as clean without a sync",
    8 StopsWithItsLease: "a broker says that it has stopped while its leaders answer",
    9 JoinsUnderAnyRegistration: "a replica joins under an earlier registration",
    9 JoinsBelowTheWatermark: "a replica joins before it holds what is committed",
    9 JoinsBelowTheEpochStart: "a replica joins before it reaches the start of the leader's epoch",
    9 JoinsOnWhatItSaidBefore: "a replica that left joins on what it had said before",
    9 JoinsWhileFenced: "a fenced replica joins",
    9 KeepsLaggards: "a replica that lags stays in sync",
    10 IgnoresPartitionEpochs: "a change of a partition is applied to another state than it was decided on",
    10 AppliesHalfADecision: "the first records of a decision stay when a later one does not fit",
    10 RegistersOnOldMetadata: "a registration is applied to other metadata than it was decided on",
    11 KeepsTheEligible: "the eligible set stays when enough are in sync",
    11 KeepsTheEligibleUnderANewMinimum: "the eligible set stays when the minimum changes",
    11 ForgetsTheEligible: "whoever leaves an in-sync set that is too small is not eligible",
    11 ElectsAnybody: "a replica outside both sets is elected",
    12 SwapsTooEarly: "a reassignment is complete before all targets are in sync",
    12 ReplacesLiveLeaders: "a reassignment does not wait for the leader to hand over",
    12 ServesWithoutAPart: "a replica that the metadata has no part for serves consumers",
    13 WaitsForRecordsOnly: "a parked fetch is not answered when only the watermark moves",
    14 TrustsAnyDirectory: "a directory that was wiped or rolled back passes for the one it was",
    14 TrustsOldDirectories: "a directory that was rolled back passes for the one it was",
    14 RegistersTwice: "a registration that comes twice counts twice, the second time with what was known before the first",
    14 ForgetsItsRegistration: "the epoch of the registration is not written down",
    14 BelievesOldMarkers: "a marker of a clean stop outlasts the start, and may be of another epoch",
    15 OverlooksPowerLosses: "a machine that went down passes for a killed process",
    15 KeepsUnsyncedReplicas: "a replica that may have lost what was not synced stays a member",
    15 ElectsLastMembersUnasked: "the last members elect where the topic wants to stay offline",
    16 ServesDamage: "what was read is passed on unchecked",
    16 CountsTheDamaged: "the leader counts a replica that says that it is damaged",
    16 KeepsTheDoubtful: "a doubtful replica stays a member beside others",
    16 KeepsTheDamaged: "a replica whose log failed stays a member",
    16 GoesOnAfterAFailedSync: "a failed sync passes for one that succeeded",
    16 TrustsCleanPages: "recovery does not write again what a failed sync may have left clean",
    16 CutsBackToDamage: "a member gives up what goes before a cut within damage",
    16 TakesAPowerLossForAKill: "recovery goes on past a bad place after a power loss",
    16 CountsBeforeItsReplicasAreOpen: "a broker says that it knows the metadata before it has opened the replicas that this calls for",
    17 RemovesWhatNobodyKnows: "files that nobody knows are removed",
    17 ForgetsTombstonesTooEarly: "a tombstone goes when the first broker has removed its files",
    18 KeepsProducersOfACut: "the producers of what was cut off are remembered",
    18 KeepsSnapshotsOfACut: "snapshots of producers that speak of what was cut off stay",
    18 StartsAnewWithoutProducers: "a log that starts anew is not given the producers",
    18 OverlooksGaps: "what records that are damaged or gone said of producers is not asked for",
    18 DeletesWithoutASnapshot: "records are deleted before their producers are written down",
    18 RetainsWithoutASnapshot: "retention takes records before their producers are written down",
    18 RetainsTheUncommitted: "retention takes records above the watermark",
    19 PlacesOnTheDead: "a partition is placed on brokers that do not live",
    19 FencesTwice: "a broker that is fenced is fenced again",
}

impl Mutant {
    /// Whether the process runs with this rule broken.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::LazyLock;

    use super::Mutant;

    /// The rule that is broken in this process: `CALLBOARD_MUTANT` names it.
    static SWITCHED_ON: LazyLock<Option<Mutant>> = LazyLock::new(|| {
        let wanted = std::env::var("CALLBOARD_MUTANT").ok()?;
        let known = Mutant::ALL.iter().map(|(mutant, ..)| *mutant).find(|mutant| format!("{mutant:?}") == wanted);
        Some(known.unwrap_or_else(|| panic!("{wanted} is no mutant: see src/types/mutants.rs")))
    });

    impl Mutant {
        /// Whether the process runs with this rule broken.
        #[must_use]
        pub fn is_on(self) -> bool {
            *SWITCHED_ON == Some(self)
        }
    }
}
