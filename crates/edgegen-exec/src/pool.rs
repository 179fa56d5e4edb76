//! Threads that share the steps of a run.
//!
//! A task has parts, which the caller and the workers take one after the other. A part takes microseconds: workers that
//! wait look again and again for a while before they go to sleep. The caller waits for parts that others have begun
//! alone; where the system gives the workers no core in time, it does their parts itself.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What is done by several threads at a time: it is called with the number of each part.
type Task = dyn Fn(usize) + Sync;

/// How often a thread looks for what it waits for, at once and then after it has let others run, before it sleeps:
/// longer than steps that are not shared, and than what a sampler does between calls.
const LOOKS: [usize; 2] = if cfg!(miri) { [2, 4] } else { [200, 300] };

/// Threads for the tasks of one caller. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// What is being done. The caller changes it while no part is being done, or left to take.
    task: UnsafeCell<Option<*const Task>>,
    /// The next part to take, and in the upper half how many there are.
    parts: Line<AtomicUsize>,
    /// The parts that are not done.
    left: Line<AtomicUsize>,
    /// The workers that sleep.
    asleep: AtomicUsize,
    /// Whether the caller sleeps, or is about to.
    caller_asleep: AtomicBool,
    stop: AtomicBool,
    /// What a part panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    lock: Mutex<()>,
    to_take: Condvar,
    all_done: Condvar,
}

/// A line of the cache of its own.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

// SAFETY: `task` is written by the one caller while there is no part to take and none is being done, and read by those
// that have taken one; `parts` and `left` order these. What it points to is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Bits of half a number.
const HALF: u32 = usize::BITS / 2;

impl Pool {
    /// Threads beside the caller's, so that there are `threads` in all.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            task: UnsafeCell::new(None),
            parts: Line::default(),
            left: Line::default(),
            asleep: AtomicUsize::new(0),
            caller_asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            lock: Mutex::new(()),
            to_take: Condvar::new(),
            all_done: Condvar::new(),
        });
        let mut pool = Pool { shared, workers: Vec::new() };
        for worker in 1..threads {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("edgegen {worker}"));
            pool.workers.push(thread.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Calls `task` with each number below `of`, on the threads that there are, and returns once all calls have.
    /// Allocates nothing.
    ///
    /// # Panics
    /// With what a call panicked with, once all have ended.
    pub fn run(&mut self, of: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        assert!(of > 0 && of >> HALF == 0);
        // SAFETY: only a lifetime is forgotten: that of a borrow which outlives this call, and no part is left when this
        // returns.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), *const Task>(task) };
        // SAFETY: no part of the task before is left, so that no worker reads it.
        unsafe { *shared.task.get() = Some(task) };
        shared.left.0.store(of, SeqCst);
        shared.parts.0.store(of << HALF, SeqCst);
        // One that is just going to sleep may be missed: it is there for the next task.
        let asleep = shared.asleep.load(SeqCst);
        let awake = self.workers.len() - asleep.min(self.workers.len());
        for _ in awake..(of - 1).min(self.workers.len()) {
            shared.to_take.notify_one();
        }
        while shared.take_part() {}
        shared.wait_for_all();
        if let Some(panic) = locked(&shared.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // whoever has not seen that holds the lock until it sleeps
        drop(locked(&self.shared.lock));
        self.shared.to_take.notify_all();
        // a worker catches the panics of tasks
        self.workers.drain(..).for_each(|worker| _ = worker.join());
    }
}

impl Shared {
    fn has_part(&self) -> bool {
        let parts = self.parts.0.load(SeqCst);
        parts & ((1 << HALF) - 1) < parts >> HALF
    }

    /// Takes a part, if there is one, and does it.
    fn take_part(&self) -> bool {
        let next = |parts: usize| (parts & ((1 << HALF) - 1) < parts >> HALF).then_some(parts + 1);
        let Ok(parts) = self.parts.0.fetch_update(SeqCst, SeqCst, next) else { return false };
        // SAFETY: the caller has put a task there before there were parts to take, and writes it while there is none.
        let task = unsafe { *self.task.get() }.expect("a part of a task");
        // SAFETY: the caller keeps the task until all parts are done.
        let task = unsafe { &*task };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(parts & ((1 << HALF) - 1)))) {
            locked(&self.panic).get_or_insert(panic);
        }
        // A caller that goes to sleep says so and then looks at what is left; here it is the other way round: in the one
        // order that there is of all four, either it sees that nothing is left or is seen here.
        if self.left.0.fetch_sub(1, SeqCst) == 1 && self.caller_asleep.load(SeqCst) {
            // it holds the lock until it sleeps
            drop(locked(&self.lock));
            self.all_done.notify_one();
        }
        true
    }

    /// What a worker does until it is told to stop.
    fn work(&self) {
        let mut looks = 0;
        while !self.stop.load(SeqCst) {
            if self.take_part() {
                looks = 0;
            } else if !look_again(&mut looks) {
                let mut guard = locked(&self.lock);
                self.asleep.fetch_add(1, SeqCst);
                while !self.has_part() && !self.stop.load(SeqCst) {
                    guard = self.to_take.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.fetch_sub(1, SeqCst);
                looks = 0;
            }
        }
    }

    fn wait_for_all(&self) {
        let mut looks = 0;
        while self.left.0.load(SeqCst) > 0 {
            if !look_again(&mut looks) {
                let mut guard = locked(&self.lock);
                self.caller_asleep.store(true, SeqCst);
                while self.left.0.load(SeqCst) > 0 {
                    guard = self.all_done.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.caller_asleep.store(false, SeqCst);
            }
        }
    }
}

/// Waits for a moment, unless it is time to sleep.
fn look_again(looks: &mut usize) -> bool {
    *looks += 1;
    match *looks {
        n if n <= LOOKS[0] => std::hint::spin_loop(),
        // what is waited for may want this very core
        n if n <= LOOKS[1] => std::thread::yield_now(),
        _ => return false,
    }
    true
}

/// The lock of a mutex; nothing that panics holds one for what it is in the middle of.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_number_is_called_once_and_the_caller_waits_for_all() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads).unwrap();
            // some tasks come at once, others after all have gone to sleep
            for round in 0..if cfg!(miri) { 10 } else { 2000 } {
                let of = 1 + round % threads;
                let calls: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                pool.run(of, &|i| _ = calls[i].fetch_add(1, SeqCst));
                let calls: Vec<usize> = calls.iter().map(|c| c.load(SeqCst)).collect();
                assert_eq!(calls, (0..threads).map(|i| usize::from(i < of)).collect::<Vec<_>>());
                if round % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    #[test]
    fn workers_take_part_and_a_caller_sleeps_until_a_slow_one_is_done() {
        let mut pool = Pool::new(3).unwrap();
        let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let caller = std::thread::current().id();
        pool.run(3, &|_| {
            // each thread has one part, then
            begun.fetch_add(1, SeqCst);
            while begun.load(SeqCst) < 3 {
                std::thread::yield_now();
            }
            if std::thread::current().id() != caller {
                std::thread::sleep(Duration::from_millis(50));
            }
            done.fetch_add(1, SeqCst);
        });
        assert_eq!(done.load(SeqCst), 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_go_on() {
        let mut pool = Pool::new(3).unwrap();
        for who in 0..3 {
            let calls = AtomicUsize::new(0);
            let run = catch_unwind(AssertUnwindSafe(|| {
                pool.run(3, &|i| {
                    // without the message that a panic prints
                    if i == who {
                        resume_unwind(Box::new(who));
                    }
                    calls.fetch_add(1, SeqCst);
                });
            }));
            assert_eq!(run.unwrap_err().downcast_ref(), Some(&who));
            assert_eq!(calls.load(SeqCst), 2);
        }
        let calls = AtomicUsize::new(0);
        pool.run(3, &|_| _ = calls.fetch_add(1, SeqCst));
        assert_eq!(calls.load(SeqCst), 3);
    }

    #[test]
    fn dropping_it_ends_the_threads() {
        let mut pool = Pool::new(3).unwrap();
        pool.run(3, &|_| ());
        let shared = pool.shared.clone();
        assert_eq!(Arc::strong_count(&shared), 4);
        drop(pool);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
