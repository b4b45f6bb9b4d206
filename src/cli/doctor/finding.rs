//! One thing that is not as it should be.

use std::borrow::Cow;

use super::code::{Code, Severity};

/// What was found: where, what was seen, why that is so, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind.
    pub code: Code,
    /// What it is about: a node, a partition, a path, a topic.
    pub about: String,
    /// What was seen, with numbers.
    pub seen: String,
    /// The likely cause.
    pub cause: Cow<'static, str>,
    /// What to do.
    pub fix: Cow<'static, str>,
}

impl Finding {
    /// A finding with the cause and the fix that its kind has.
    #[must_use]
    pub fn new(code: Code, about: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { code, about: about.into(), seen: seen.into(), cause: code.cause().into(), fix: code.fix().into() }
    }

    /// With a cause that is known better.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Cow::Owned(cause.into());
        self
    }

    /// With a fix that can be said better.
    #[must_use]
    pub fn fixed_by(mut self, fix: impl Into<String>) -> Self {
        self.fix = Cow::Owned(fix.into());
        self
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}
