//! Settings of the whole process that make a training step on a CPU quicker.

/// Makes the settings, and gives rayon `threads` threads (every core if none). To be called first in a
/// command, while no other thread runs.
pub fn configure(threads: Option<usize>) {
    // candle's own thread pool for element-wise work spins while it waits, which costs more than it gives on
    // shared cores; the operators that take time run on rayon's.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    // glibc would otherwise map and unmap every activation anew, and the page faults cost about a third of a step
    #[cfg(target_env = "gnu")]
    for (option, value) in
        [(libc::M_MMAP_THRESHOLD, 1 << 30), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_TOP_PAD, 256 << 20)]
    {
        // SAFETY: mallopt takes plain numbers, and refuses those that it does not know.
        unsafe { libc::mallopt(option, value) };
    }
    if let Some(threads) = threads {
        // fails only if the pool is already there, and then the first setting holds
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}
