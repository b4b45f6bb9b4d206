//! What the headers of a log say, told to whoever rebuilds something from them. One that does not fit what came before, or where its log
//! ends, is verified first.

use super::error::LogError;
use super::leader_epochs::LeaderEpochs;
use super::producer_snapshots::Replay;
use super::scan::Step;
use super::view::Shared;
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;

/// The epochs as the headers of the log say them.
pub(super) fn rebuild_epochs(shared: &Shared) -> Result<LeaderEpochs, LogError> {
    let mut epochs = LeaderEpochs::default();
    let log_start = shared.read().log_start;
    for_each_header(shared, log_start, &mut epochs)?;
    Ok(epochs)
}

/// Without a list of their own, the epochs are what the headers say.
impl Replay for LeaderEpochs {
    fn snapshot(&mut self, _at: Offset, _payload: &[u8]) -> bool {
        false
    }

    fn batch(&mut self, header: &BatchHeader) {
        self.note(header.leader_epoch, header.base_offset);
    }
}

/// Tells the header of each batch that has records at or after `from`, past damaged places, which are remembered.
pub(super) fn for_each_header(shared: &Shared, from: Offset, replay: &mut dyn Replay) -> Result<(), LogError> {
    let segments: Vec<_> = {
        let view = shared.read();
        (0..view.segments.len()).map(|at| view.segment_ref(at)).filter(|segment| segment.end > from).collect()
    };
    for segment in segments {
        let file = shared.log_file(&segment)?;
        let mut scanner = shared.place_before(&segment, from).scanner(&*file, &segment)?;
        loop {
            match scanner.step()? {
                Step::Batch { header, .. } if header.end_offset_exclusive() <= from => continue,
                // A header that can be read may be the damage: its checksum was looked at when that was found.
                Step::Batch { header, .. } if shared.read().damage_at(header.base_offset).is_some() => {
                    replay.gap();
                    continue;
                }
                Step::Batch { header, .. } => {
                    // Of the last one no other tells where it ends.
                    let (end, is_last) = (header.end_offset_exclusive(), scanner.position >= segment.size);
                    let ends_well = end == segment.end || (end < segment.end && !is_last);
                    if (ends_well && replay.fits(&header)) || !scanner.step_back_if_led_astray()? {
                        replay.batch(&header);
                        continue;
                    }
                }
                Step::Bad { .. } => {}
                Step::End => break,
            }
            let next = scanner.resync(segment.end)?.map(|(header, _)| header.base_offset);
            if next.is_none_or(|next| next > from) {
                shared.note_damage(&segment, scanner.bad_place.1.unwrap_or(segment.base), next);
                replay.gap();
            }
            if next.is_none() {
                break;
            }
        }
    }
    Ok(())
}
