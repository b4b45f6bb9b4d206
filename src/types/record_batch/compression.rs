//! The five compressions of the record batch format. The algorithms are libraries; what stands here is Kafka's framing of them.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// DEFLATE in a gzip frame.
    Gzip,
    /// Snappy blocks in the framing of snappy-java, as Kafka's clients write it.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Why records could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not what the algorithm writes.
    #[error("the {compression:?} data of the batch is damaged: {cause}")]
    Damaged {
        /// The algorithm.
        compression: Compression,
        /// What the decoder says.
        cause: io::Error,
    },
    /// The batch inflates beyond the limit.
    #[error(
        "the batch inflates to more than {limit_bytes} bytes: raise the limit if it is meant to, or refuse its producer"
    )]
    TooLarge {
        /// The limit in force.
        limit_bytes: usize,
    },
    /// The encoder failed.
    #[error("compressing with {compression:?} failed: {cause}")]
    Encode {
        /// The algorithm.
        compression: Compression,
        /// What the encoder says.
        cause: io::Error,
    },
}

impl Compression {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The code in a batch's attributes.
    #[must_use]
    pub fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The compression with this code.
    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.code() == code)
    }

    /// Compresses `plain`.
    ///
    /// # Errors
    /// [`CompressionError::Encode`] when the encoder fails, which takes a lack of memory.
    pub fn compress(self, plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
        let encoded = match self {
            Self::None => Ok(plain.to_vec()),
            Self::Gzip => gzip(plain),
            Self::Snappy => snappy_java_compress(plain),
            Self::Lz4 => lz4(plain),
            // Level 3 is zstd's own default and Kafka's.
            Self::Zstd => zstd::bulk::compress(plain, 3),
        };
        encoded.map_err(|cause| CompressionError::Encode { compression: self, cause })
    }

    /// Decompresses `bytes`, at most to `limit_bytes`. Uncompressed data is shared, not copied.
    ///
    /// # Errors
    /// [`CompressionError::TooLarge`] beyond the limit, [`CompressionError::Damaged`] when the decoder refuses.
    pub fn decompress(self, bytes: &Bytes, limit_bytes: usize) -> Result<Bytes, CompressionError> {
        let damaged = |cause| CompressionError::Damaged { compression: self, cause };
        let plain = match self {
            Self::None => bytes.clone(),
            Self::Gzip => {
                read_bounded(flate2::read::MultiGzDecoder::new(bytes.as_ref()), limit_bytes).map_err(damaged)?
            }
            Self::Snappy => return snappy_decompress(bytes, limit_bytes),
            Self::Lz4 => {
                read_bounded(lz4_flex::frame::FrameDecoder::new(bytes.as_ref()), limit_bytes).map_err(damaged)?
            }
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(bytes.as_ref()).map_err(damaged)?;
                read_bounded(decoder, limit_bytes).map_err(damaged)?
            }
        };
        if plain.len() > limit_bytes { Err(CompressionError::TooLarge { limit_bytes }) } else { Ok(plain) }
    }
}

/// Reads at most one byte more than the limit, so that the caller can tell "at" from "above" it.
fn read_bounded(decoder: impl Read, limit_bytes: usize) -> io::Result<Bytes> {
    let mut plain = Vec::new();
    decoder.take(limit_bytes as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain.into())
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()
}

fn lz4(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(plain)?;
    encoder.finish().map_err(io::Error::other)
}

/// The header of snappy-java's stream format: magic, version 1, lowest compatible version 1.
const SNAPPY_JAVA_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const SNAPPY_JAVA_BLOCK_BYTES: usize = 32 * 1024;

fn snappy_java_compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = SNAPPY_JAVA_HEADER.to_vec();
    for block in plain.chunks(SNAPPY_JAVA_BLOCK_BYTES) {
        let encoded = encoder.compress_vec(block).map_err(io::Error::other)?;
        let length = u32::try_from(encoded.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&encoded);
    }
    Ok(out)
}

/// Kafka's clients write snappy-java's stream; some write one raw block. Both are read.
fn snappy_decompress(bytes: &Bytes, limit_bytes: usize) -> Result<Bytes, CompressionError> {
    let damaged = |cause| CompressionError::Damaged { compression: Compression::Snappy, cause };
    let mut plain = Vec::new();
    let mut rest = bytes.as_ref();
    if !rest.starts_with(&SNAPPY_JAVA_HEADER[..8]) {
        snappy_block(rest, limit_bytes, &mut plain)?;
        return Ok(plain.into());
    }
    rest = rest.get(SNAPPY_JAVA_HEADER.len()..).ok_or_else(|| damaged(io::ErrorKind::UnexpectedEof.into()))?;
    while !rest.is_empty() {
        let length = rest.try_get_u32().map_err(|e| damaged(io::Error::other(e)))? as usize;
        let block = rest.get(..length).ok_or_else(|| damaged(io::ErrorKind::UnexpectedEof.into()))?;
        snappy_block(block, limit_bytes, &mut plain)?;
        rest = &rest[length..];
    }
    Ok(plain.into())
}

fn snappy_block(block: &[u8], limit_bytes: usize, plain: &mut Vec<u8>) -> Result<(), CompressionError> {
    let damaged = |e| CompressionError::Damaged { compression: Compression::Snappy, cause: io::Error::other(e) };
    let length = snap::raw::decompress_len(block).map_err(damaged)?;
    // The length is the sender's claim: it is checked before memory is reserved for it.
    if plain.len().saturating_add(length) > limit_bytes {
        return Err(CompressionError::TooLarge { limit_bytes });
    }
    let at = plain.len();
    plain.resize(at + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut plain[at..]).map_err(damaged)?;
    plain.truncate(at + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_compression_gives_back_what_went_in() {
        let plain: Bytes = (0..100_000u32).flat_map(|n| (n / 7).to_be_bytes()).collect::<Vec<u8>>().into();
        for compression in Compression::ALL {
            for plain in [plain.clone(), Bytes::new(), Bytes::from_static(b"x")] {
                let small = Bytes::from(compression.compress(&plain).expect("compresses"));
                let back = compression.decompress(&small, plain.len()).expect("decompresses");
                assert_eq!(back, plain, "{compression:?}");
            }
        }
    }

    #[test]
    fn a_batch_that_inflates_past_the_limit_is_refused_at_the_limit() {
        let plain = vec![0u8; 1 << 20];
        for compression in Compression::ALL {
            let small = Bytes::from(compression.compress(&plain).expect("compresses"));
            let refused = compression.decompress(&small, 4_096);
            assert!(matches!(refused, Err(CompressionError::TooLarge { limit_bytes: 4_096 })), "{compression:?}");
        }
    }

    #[test]
    fn damaged_data_is_an_error_of_the_decoder() {
        for compression in &Compression::ALL[1..] {
            let refused = compression.decompress(&Bytes::from_static(&[0xff; 64]), 1 << 20);
            assert!(refused.is_err(), "{compression:?}");
        }
    }

    #[test]
    fn a_raw_snappy_block_is_read_too() {
        let raw = snap::raw::Encoder::new().compress_vec(b"raw block, raw block").expect("compresses");
        let plain = Compression::Snappy.decompress(&raw.into(), 100).expect("decompresses");
        assert_eq!(plain.as_ref(), b"raw block, raw block");
    }
}
