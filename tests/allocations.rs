//! A sampler allocates nothing once it is made.

mod mixture;

use edgegen::Condition;
use edgegen::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
use edgegen::constraint::{Constraint, Degradation, NullSpace, Replacement};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::Schedule;
use edgegen::solver::{Prediction, Resample, SOLVERS};
use mixture::{DIM, Mixture};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Of this thread, so that tests do not disturb each other.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes on to the system's allocator as it is; the counter touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_solver_allocates_while_it_runs() {
    let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
    let grid = schedule.grid(10, Spacing::Trailing, 0, true).unwrap();
    for info in SOLVERS {
        for threshold in [Threshold::None, Threshold::Static(1.0), Threshold::Dynamic { ratio: 0.9, max: 2.0 }] {
            let prediction = Prediction { kind: PredictionType::Epsilon, threshold };
            let mut sampler = Sampler::new(info.solver.compile(&grid, &schedule, prediction).unwrap(), DIM);
            let mut network = Mixture(schedule.clone());
            let mut noise = Noise::new(1, 1);
            let mut x = [0.0; DIM];
            noise.fill(&mut x);
            let (condition, mut control) = (Condition::default(), Control::default());
            let before = ALLOCATIONS.get();
            let outcome = sampler.run(&mut network, &condition, &mut noise, &mut x, &mut control).unwrap();
            let during = ALLOCATIONS.get() - before;
            assert_eq!(during, 0, "{} {threshold:?}", info.name);
            assert!(outcome.nfe >= 10 && x.iter().all(|v| v.is_finite()), "{} {x:?}", info.name);
        }
    }
    assert!(ALLOCATIONS.get() > 0, "the counter does not count");
}

#[test]
fn nor_does_what_is_known_of_a_sample() {
    let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
    let grid = schedule.grid(10, Spacing::Trailing, 0, true).unwrap();
    let mask = || Degradation::mask(&[DIM], &[true, false, true]).unwrap();
    let mut noise_free = NullSpace::new(mask(), &[0.1; DIM], 0.0).unwrap();
    let mut noisy = NullSpace::new(mask(), &[0.1; DIM], 0.1).unwrap();
    let mut replacement = Replacement::new(&[0.1; DIM], &[true, false, true]).unwrap();
    let constraints: [&mut dyn Constraint; 3] = [&mut noise_free, &mut noisy, &mut replacement];
    for constraint in constraints {
        let prediction = Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None };
        let resample = Resample { times: 3, jump: 2 };
        let program = SOLVERS[0].solver.compile_resampled(&grid, &schedule, prediction, resample).unwrap();
        let mut sampler = Sampler::new(program, DIM);
        let mut network = Mixture(schedule.clone());
        let mut noise = Noise::new(1, 1);
        let mut x = [0.5; DIM];
        let (condition, mut control) = (Condition::default(), Control::default());
        control.constraint = Some(constraint);
        let before = ALLOCATIONS.get();
        sampler.run(&mut network, &condition, &mut noise, &mut x, &mut control).unwrap();
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
}
