//! The way of an observation from Zenoh's threads to the control loop, which neither waits for the other.

use crate::attachment::Attachment;
use crate::message::{Decoder, Kind, Refusal};
use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use triple_buffer::triple_buffer;

/// The latest message that was taken.
#[derive(Clone)]
struct Seen {
    values: Vec<f32>,
    /// None before the first.
    received: Option<Instant>,
}

/// Where Zenoh's threads put messages.
pub struct Inbox {
    name: String,
    decoder: Decoder,
    /// For one of Zenoh's threads at a time. The control loop does not take this lock.
    input: Mutex<Input>,
    counts: Counts,
    complaints: [Complaint; Kind::ALL.len()],
}

struct Input {
    buffer: triple_buffer::Input<Seen>,
    last: Option<Attachment>,
}

/// What came, and what of it was refused.
#[derive(Default)]
struct Counts {
    received: AtomicU64,
    lost: AtomicU64,
    refused: [AtomicU64; Kind::ALL.len()],
}

/// Where the control loop finds the latest message.
pub struct Latest {
    pub name: String,
    buffer: triple_buffer::Output<Seen>,
    max_age: Duration,
}

/// An observation by this name, of as many numbers as the decoder's messages have.
pub fn topic(name: &str, decoder: Decoder, max_age: Duration) -> (Inbox, Latest) {
    let (input, output) = triple_buffer(&Seen { values: vec![0.0; decoder.len()], received: None });
    let inbox = Inbox {
        name: name.to_string(),
        decoder,
        input: Mutex::new(Input { buffer: input, last: None }),
        counts: Counts::default(),
        complaints: Default::default(),
    };
    (inbox, Latest { name: name.to_string(), buffer: output, max_age })
}

impl Inbox {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a message, or refuses it and says so; whether it was taken.
    pub fn put(&self, bytes: &[u8], attachment: Option<&[u8]>) -> bool {
        let received = Instant::now();
        self.counts.received.fetch_add(1, Ordering::Relaxed);
        // what it holds is whole whenever somebody could have panicked
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attachment) = attachment.and_then(Attachment::read) {
            let lost = input.last.map_or(0, |last| attachment.lost_since(&last));
            self.counts.lost.fetch_add(lost, Ordering::Relaxed);
            input.last = Some(attachment);
        }
        let seen = input.buffer.input_buffer_mut();
        match self.decoder.decode(bytes, &mut seen.values) {
            Ok(()) => {
                seen.received = Some(received);
                input.buffer.publish();
                true
            }
            Err(Refusal { kind, message }) => {
                drop(input);
                self.counts.refused[kind as usize].fetch_add(1, Ordering::Relaxed);
                self.complaints[kind as usize].say(&format_args!(
                    "observation '{}' is refused, {}: {message}",
                    self.name,
                    kind.name()
                ));
                false
            }
        }
    }

    /// Messages that came, and of them those that were lost on the way.
    pub fn received(&self) -> (u64, u64) {
        (self.counts.received.load(Ordering::Relaxed), self.counts.lost.load(Ordering::Relaxed))
    }

    /// How many were refused, by why.
    pub fn refused(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.counts.refused[kind as usize].load(Ordering::Relaxed)))
    }
}

impl Latest {
    /// Takes what came since the last look; whether anything did.
    pub fn look(&mut self) -> bool {
        self.buffer.update()
    }

    /// Whether there is something that was not looked at yet.
    pub fn has_news(&self) -> bool {
        self.buffer.updated()
    }

    pub fn values(&self) -> &[f32] {
        &self.buffer.output_buffer().values
    }

    /// When it came; none before the first.
    pub fn received(&self) -> Option<Instant> {
        self.buffer.output_buffer().received
    }

    /// Whether it may be acted upon.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.received().is_some_and(|received| now.saturating_duration_since(received) <= self.max_age)
    }
}

/// Something that may go wrong a hundred times a second and is told once, and then every ten seconds at most.
#[derive(Default)]
pub struct Complaint(Mutex<Told>);

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    untold: u64,
}

impl Complaint {
    const EVERY: Duration = Duration::from_secs(10);

    /// Says it on standard error, or counts that it was not said.
    pub fn say(&self, message: &dyn Display) {
        if let Some(untold) = self.ask(Instant::now()) {
            match untold {
                0 => say(message),
                n => say(&format_args!("{message} (and {n} more since this was said last)")),
            }
        }
    }

    /// Whether it is to be said, and then how often it was not since the last time.
    fn ask(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < Self::EVERY) {
            told.untold += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

/// A line on standard error, which may be closed.
pub fn say(message: &dyn Display) {
    _ = writeln!(std::io::stderr(), "edgegen-zenoh-node: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_counted_and_leaves_the_last_message() {
        let (inbox, mut latest) = topic("state", Decoder::F32 { len: 2 }, Duration::from_secs(1));
        assert!(!latest.look() && latest.received().is_none() && !latest.is_fresh(Instant::now()));
        let message = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
        assert!(inbox.put(&message([1.0, 2.0]), None));
        assert!(latest.has_news() && latest.look() && !latest.look());
        assert_eq!(latest.values(), [1.0, 2.0]);
        assert!(!inbox.put(b"abc", None));
        assert!(!inbox.put(&message([5.0, f32::NAN]), None));
        assert!(!latest.look());
        assert_eq!(latest.values(), [1.0, 2.0]);
        let refused: Vec<_> = inbox.refused().filter(|(_, n)| *n > 0).collect();
        assert_eq!(refused, [(Kind::WrongSize, 1), (Kind::NotFinite, 1)]);
        assert_eq!(inbox.received(), (3, 0));
        // the newest of several
        (0..5u8).for_each(|i| assert!(inbox.put(&message([f32::from(i); 2]), None)));
        assert!(latest.look());
        assert_eq!(latest.values(), [4.0; 2]);
        let received = latest.received().unwrap();
        assert!(latest.is_fresh(received + Duration::from_secs(1)));
        assert!(!latest.is_fresh(received + Duration::from_millis(1001)));
    }

    #[test]
    fn a_complaint_is_made_once_in_a_while() {
        let (complaint, start) = (Complaint::default(), Instant::now());
        assert_eq!(complaint.ask(start), Some(0));
        assert_eq!(complaint.ask(start + Duration::from_secs(1)), None);
        assert_eq!(complaint.ask(start + Duration::from_secs(9)), None);
        assert_eq!(complaint.ask(start + Duration::from_secs(10)), Some(2));
        assert_eq!(complaint.ask(start + Duration::from_secs(20)), Some(0));
    }
}
