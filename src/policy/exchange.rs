//! The way to the thread that plans, and back.
//!
//! There is one [`Job`]. Whoever holds it may use it; it goes to the worker and comes back through two queues of one place
//! without locks (`rtrb`), which never wait. The worker sleeps while there is none; waking it is the one thing here that may
//! call the system (a futex, by [`Thread::unpark`](std::thread::Thread::unpark)).

use super::planner::{Job, Planner};
use crate::{Error, ErrorKind, Result};
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// The thread that plans, as the control loop sees it.
pub(super) struct Exchange {
    to: Producer<Box<Job>>,
    from: Consumer<Box<Job>>,
    /// Ends the thread, and the plan that it is making.
    stop: Arc<AtomicBool>,
    /// None once it has ended.
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(planner: Planner) -> Result<Self> {
        let (to, jobs) = RingBuffer::new(1);
        let (plans, from) = RingBuffer::new(1);
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let work = move || work(planner, jobs, plans, &flag);
        let thread = Builder::new().name("edgegen-policy".into()).spawn(work);
        let thread =
            thread.map_err(|e| Error::new(ErrorKind::Io, format!("the thread that plans cannot be started: {e}")))?;
        Ok(Exchange { to, from, stop, thread: Some(thread) })
    }

    /// Hands the job over and wakes the thread. Gives it back if the thread has ended.
    pub fn send(&mut self, job: Box<Job>) -> std::result::Result<(), Box<Job>> {
        if self.has_ended() {
            return Err(job);
        }
        self.to.push(job).map_err(|rtrb::PushError::Full(job)| job)?;
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        Ok(())
    }

    /// The job, if it is back.
    pub fn receive(&mut self) -> Option<Box<Job>> {
        self.from.pop().ok()
    }

    /// Whether the thread has ended, which it does not by itself.
    pub fn has_ended(&self) -> bool {
        self.to.is_abandoned()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // a panic of its own has nothing more to say
            _ = thread.join();
        }
    }
}

/// What the thread does.
fn work(mut planner: Planner, mut jobs: Consumer<Box<Job>>, mut plans: Producer<Box<Job>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        match jobs.pop() {
            Ok(mut job) => {
                planner.carry_out(&mut job, Some(stop));
                // there is room, since there is one job
                _ = plans.push(job);
            }
            // woken by the next job, or to stop; for nothing now and then
            Err(_) => std::thread::park(),
        }
    }
}
