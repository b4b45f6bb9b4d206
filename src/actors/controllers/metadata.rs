//! The metadata of another node: the entries since what is known here, or the whole image.
//!
//! ```text
//!   known, index n ─► FetchMetadata from n ─┬─► the entries after n ─► applied one by one ─► image
//!                          ▲                └─► the image
//!                          └ from 0 ◄── what came does not fit what is known
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::member::Failed;
use crate::actors::controller::{FollowMetadata, MetadataNews};
use crate::actors::peer::{Answer, PeerHandle};
use crate::engine::metadata::{ApplyError, ClusterImage, MetadataRecord};
use crate::protocol::messages::peer::{FetchMetadata, FetchMetadataReply};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{RaftStorageError, decode_image};

/// Why what came does not lead to an image.
#[derive(Debug)]
enum Misfit {
    /// It does not follow what is known, or cannot be read.
    Unusable(String),
    /// Newer software decided it.
    Newer(ApplyError),
}

impl From<Misfit> for Failed {
    fn from(misfit: Misfit) -> Self {
        Self::Refused(match misfit {
            Misfit::Unusable(reason) => ApiError::new(
                ErrorCode::Unknown,
                format!("the metadata of the controller cannot be used ({reason}): upgrade the older of the two nodes"),
            ),
            Misfit::Newer(error) => ApiError::new(ErrorCode::UnsupportedVersion, error.to_string()),
        })
    }
}

/// Asks the controller at the other end of `link`.
pub(super) async fn follow(
    link: &PeerHandle,
    request: FollowMetadata,
    known: &Arc<ClusterImage>,
    patience: Duration,
) -> Result<MetadataNews, Failed> {
    match fetch(link, request, known, patience).await? {
        Ok(news) => return Ok(news),
        Err(newer @ Misfit::Newer(_)) => return Err(newer.into()),
        Err(Misfit::Unusable(reason)) => {
            tracing::warn!(index = request.index, %reason, "the metadata does not follow what is known here: all of it is fetched");
        }
    }
    let anew = FollowMetadata { index: 0, ..request };
    Ok(fetch(link, anew, known, patience).await??)
}

async fn fetch(
    link: &PeerHandle,
    request: FollowMetadata,
    known: &Arc<ClusterImage>,
    patience: Duration,
) -> Result<Result<MetadataNews, Misfit>, Failed> {
    let FollowMetadata { node, epoch, index, patience: wait } = request;
    let max_wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    let request = FetchMetadata { node, epoch: epoch.unwrap_or_default(), index, max_wait_ms };
    let Answer { reply, attachments, permit: _permit } = link.ask(&request, Vec::new(), patience).await?;
    Ok(read(&reply, &attachments, index, known))
}

fn read(
    reply: &FetchMetadataReply,
    attachments: &[Bytes],
    from: u64,
    known: &Arc<ClusterImage>,
) -> Result<MetadataNews, Misfit> {
    let (image, entries) = match (reply.is_image, attachments) {
        (true, [image]) => (Arc::new(read_image(image, known)?), None),
        (true, several) => {
            return Err(Misfit::Unusable(format!("{} attachments instead of one image", several.len())));
        }
        (false, []) if from == known.index => (Arc::clone(known), Some(Vec::new())),
        (false, entries) if from == known.index => (Arc::new(apply(entries, known)?), Some(entries.to_vec())),
        (false, _) => return Err(Misfit::Unusable("entries came, where the image was asked for".to_owned())),
    };
    if image.index != reply.index {
        let text = format!("it leads to index {}, and index {} was said", image.index, reply.index);
        return Err(Misfit::Unusable(text));
    }
    Ok(MetadataNews { image, entries, hand_overs: reply.hand_overs.clone() })
}

fn read_image(data: &[u8], known: &ClusterImage) -> Result<ClusterImage, Misfit> {
    decode_image(data, known.cluster_id).map_err(|error| match error {
        RaftStorageError::Newer(newer) => Misfit::Newer(newer),
        error => Misfit::Unusable(error.to_string()),
    })
}

/// Applies entries as the controllers do: one that does not fit changes nothing but the index.
fn apply(entries: &[Bytes], known: &ClusterImage) -> Result<ClusterImage, Misfit> {
    let mut image = known.clone();
    for entry in entries {
        let index = image.index + 1;
        let records: Vec<MetadataRecord> = rmp_serde::from_slice(entry)
            .map_err(|error| Misfit::Unusable(format!("the entry that leads to index {index}: {error}")))?;
        if let Err(newer @ ApplyError::FeatureLevel { .. }) = image.apply_entry(&records) {
            return Err(Misfit::Newer(newer));
        }
        image.index = index;
    }
    Ok(image)
}
