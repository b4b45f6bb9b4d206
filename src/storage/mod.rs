//! Storage.
pub mod atomic_file;
pub mod disk;
