//! How long a control step takes while plans are made on a thread of their own.

use crate::rollout::start;
use edgegen::policy::{Jacobian, Joint, Observation, State, Timing};
use edgegen::{Model, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The times of `cycles` control steps at `rate` a second, with so many threads that do nothing but keep the machine busy.
pub fn measure(model: &Model, rate: f64, cycles: usize, busy: usize) -> Result<String> {
    let policy = model.generator().sampler("ddim").steps(10).policy().n_obs_steps(2).first_action(0).n_action_steps(2);
    let mut policy = policy.timing(Timing::Asynchronous).joint(Joint::chunk(Jacobian::Difference)).build()?;
    let (mut state, _) = start(0);
    policy.prime(&Observation::new().with("global_cond", &state.observation()))?;
    let (stop, period) = (AtomicBool::new(false), Duration::from_secs_f64(1.0 / rate));
    let (mut times, mut late, mut dry) = (Vec::with_capacity(cycles), 0, 0);
    let mut result = Ok(());
    std::thread::scope(|scope| {
        (0..busy).for_each(|_| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        });
        let mut next = Instant::now();
        for step in 0..cycles {
            // an episode after the other, so that what is seen changes
            if step % 100 == 0 {
                (state, _) = start((step / 100) as u64);
            }
            let seen = state.observation();
            let begin = Instant::now();
            match policy.act(&Observation::new().with("global_cond", &seen)) {
                Ok(acted) => {
                    times.push(begin.elapsed());
                    dry += usize::from(acted.state == State::Dry);
                    state.step(crate::task::V { x: acted.values[0], y: acted.values[1] });
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            next += period;
            let now = Instant::now();
            if now > next {
                late += 1;
                next = now;
            }
            std::thread::sleep(next - now);
        }
        stop.store(true, Ordering::Relaxed);
    });
    result?;
    times.sort();
    let us = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let stats = policy.stats();
    Ok(format!(
        "| {rate} Hz, {busy} busy threads | {:.1} | {:.1} | {:.1} | {late} | {} | {:.1} | {} | {} | {dry} |",
        us(0.5),
        us(0.99),
        us(1.0),
        stats.plans,
        stats.longest_plan_time.as_secs_f64() * 1e3,
        stats.longest_delay,
        stats.late,
    ))
}

/// What [`measure`]'s rows say.
pub const HEADER: &str = "\
| | act, µs, p50 | p99 | greatest | late periods | plans | ms the longest | steps the longest | steps with a late plan | dry |
|---|---|---|---|---|---|---|---|---|---|";
