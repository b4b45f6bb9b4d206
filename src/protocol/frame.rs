//! Frames: the head and its attachments, before and after the bytes.
