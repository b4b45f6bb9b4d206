//! Storage.
pub mod disk;
