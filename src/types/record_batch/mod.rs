//! Record batches: Kafka's RecordBatch v2 (magic 2), the unit on the wire, on disk and in memory.
//!
//! ```text
//!   0         8      12       16   17    21      23       27      35      43       51     53      57      61
//!   ┌─────────┬──────┬────────┬────┬─────┬───────┬────────┬───────┬───────┬────────┬──────┬───────┬───────┬─────────
//!   │ base    │length│ leader │ 2  │ crc │ attri-│ last   │ first │ max   │producer│epoch │ base  │ record│ records
//!   │ offset  │      │ epoch  │    │ 32C │ butes │ delta  │ time  │ time  │ id     │      │ seq.  │ count │ …
//!   └─────────┴──────┴────────┴────┴─────┴───────┴────────┴───────┴───────┴────────┴──────┴───────┴───────┴─────────
//!    the broker writes these                ◄──────────────────── the checksum covers these ───────────────────────►
//! ```
//!
//! The producer encodes and compresses the records once; the same bytes travel to disk, replicas and consumers. The
//! broker reads the header only. Source of the layout: <https://kafka.apache.org/documentation/#recordbatch>.
//!
//! Reading order: [`header`], then [`batch`], then [`records`], [`encode`], [`view`] and [`compression`].

pub mod batch;
pub mod compression;
pub mod encode;
pub mod header;
pub mod records;
mod varint;
pub mod view;

pub use batch::RecordBatch;
pub use compression::{Compression, CompressionError};
pub use encode::BatchBuilder;
pub use header::{Attributes, BatchError, BatchHeader, HEADER_BYTES};
pub use records::{Header, Record, RecordError, decode_records};
pub use view::{RecordView, Records};
