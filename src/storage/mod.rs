//! Storage.
pub mod atomic_file;
pub mod data_dir;
pub mod disk;
pub mod file_cache;
