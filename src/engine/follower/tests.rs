//! The follower's story, told by its commands.
