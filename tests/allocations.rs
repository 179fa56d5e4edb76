//! A sampler allocates nothing once it is made.

#[path = "common/allocations.rs"]
mod counting;
mod mixture;

use counting::Counting;
use edgegen::Condition;
use edgegen::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
use edgegen::constraint::{Constraint, Degradation, NullSpace, Replacement};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::Schedule;
use edgegen::solver::{Prediction, Resample, SOLVERS};
use mixture::{DIM, Mixture};

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
            let before = Counting::of_this_thread();
            let outcome = sampler.run(&mut network, &condition, &mut noise, &mut x, &mut control).unwrap();
            let during = Counting::of_this_thread() - before;
            assert_eq!(during, 0, "{} {threshold:?}", info.name);
            assert!(outcome.nfe >= 10 && x.iter().all(|v| v.is_finite()), "{} {x:?}", info.name);
        }
    }
    assert!(Counting::of_this_thread() > 0, "the counter does not count");
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
        let before = Counting::of_this_thread();
        sampler.run(&mut network, &condition, &mut noise, &mut x, &mut control).unwrap();
        assert_eq!(Counting::of_this_thread() - before, 0);
    }
}
