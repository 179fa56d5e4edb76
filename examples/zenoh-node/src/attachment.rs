//! What `rmw_zenoh` attaches to every message: a sequence number, the time, and who publishes.
//!
//! ```text
//! 8 bytes   sequence number      i64, the lowest byte first
//! 8 bytes   time                 nanoseconds since 1970, the same
//! 1 byte    16
//! 16 bytes  who publishes
//! ```
//! Its subscribers want it; ours count by it what was lost on the way, and can do without.

use std::time::{SystemTime, UNIX_EPOCH};

/// How many bytes it has.
const LEN: usize = 33;

/// Attached to a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attachment {
    pub sequence: i64,
    pub publisher: [u8; 16],
}

impl Attachment {
    /// What the bytes say; none where they are another attachment.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let sequence = i64::from_le_bytes(*bytes.first_chunk()?);
        let publisher = *bytes.last_chunk()?;
        (bytes[16] == 16).then_some(Attachment { sequence, publisher })
    }

    pub fn write(&self, now: SystemTime) -> [u8; LEN] {
        let nanoseconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&nanoseconds.to_le_bytes());
        bytes[16] = 16;
        bytes[17..].copy_from_slice(&self.publisher);
        bytes
    }

    /// How many messages of the same publisher were lost between an earlier one and this one.
    pub fn lost_since(&self, earlier: &Attachment) -> u64 {
        match self.publisher == earlier.publisher {
            true => self.sequence.saturating_sub(earlier.sequence).saturating_sub(1).max(0) as u64,
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_bytes_are_rmw_zenohs() {
        let attachment = Attachment { sequence: 0x0102, publisher: [7; 16] };
        let bytes = attachment.write(UNIX_EPOCH + Duration::from_nanos(3));
        let expected = [&[2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 16][..], &[7; 16]].concat();
        assert_eq!(bytes[..], expected);
        assert_eq!(Attachment::read(&bytes), Some(attachment));
        assert_eq!(Attachment::read(&bytes[..32]), None);
        assert_eq!(Attachment::read(&[0; 33]), None);
    }

    #[test]
    fn what_is_lost_is_counted_for_each_publisher() {
        let of = |publisher, sequence| Attachment { sequence, publisher: [publisher; 16] };
        assert_eq!(of(1, 5).lost_since(&of(1, 4)), 0);
        assert_eq!(of(1, 8).lost_since(&of(1, 4)), 3);
        // another one, and one that begins anew
        assert_eq!(of(2, 8).lost_since(&of(1, 4)), 0);
        assert_eq!(of(1, 0).lost_since(&of(1, 4)), 0);
        assert_eq!(of(1, i64::MAX).lost_since(&of(1, i64::MIN)), i64::MAX as u64 - 1);
    }
}
