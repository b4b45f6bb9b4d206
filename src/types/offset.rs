//! Offsets: the position of a record in its partition.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The position of a record in its partition, from 0. An *end* offset is exclusive: the offset that the next record gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);
    /// The largest offset that the record batch format (a signed 64-bit field) can hold.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The offset `count` records further on. Saturates at [`Offset::MAX`].
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count).min(Self::MAX.0))
    }

    /// How many offsets lie between `earlier` and this one, 0 if there are none.
    #[must_use]
    pub fn distance_from(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// From the signed form of the record batch format; `None` when negative.
    #[must_use]
    pub fn from_wire(value: i64) -> Option<Self> {
        u64::try_from(value).ok().map(Self)
    }

    /// To the signed form of the record batch format.
    #[must_use]
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
