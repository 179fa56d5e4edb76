//! The real-time side of a policy allocates nothing.

#![cfg(feature = "onnx")]

#[path = "common/allocations.rs"]
mod counting;

use counting::Counting;
use edgegen::Model;
use edgegen::policy::{Jacobian, Joint, Observation, Timing};
use std::path::Path;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_control_step_allocates() {
    let model = Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy/push.onnx")).unwrap();
    for timing in [Timing::Asynchronous, Timing::Simulated { delay: 2 }, Timing::Synchronous] {
        for joint in
            [Joint::Switch, Joint::Inpaint, Joint::chunk(Jacobian::Diagonal), Joint::chunk(Jacobian::Difference)]
        {
            let settings = model.generator().steps(2).policy().n_obs_steps(2).n_action_steps(2).stale_after(3);
            let settings = settings.ensemble(0.01).warm_start(0.5).budget(Duration::from_secs(5));
            let mut policy = settings.timing(timing).joint(joint).build().unwrap();
            let mut seen = [0.15, 0.0, 0.6, 0.0];
            // a start from the last plan compiles its solver once
            policy.prime(&Observation::new().with("global_cond", &seen)).unwrap();
            (0..5).for_each(|_| _ = policy.act(&Observation::new().with("global_cond", &seen)).unwrap());
            let before = Counting::of_this_thread();
            for step in 0..60 {
                seen[0] += 0.001;
                let observation = match step % 10 {
                    9 => Observation::missing(),
                    8 => Observation::new().with("global_cond", &seen).age(1),
                    _ => Observation::new().with("global_cond", &seen),
                };
                assert!(policy.act(&observation).unwrap().values[0].is_finite());
                if timing == Timing::Asynchronous {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            assert_eq!(Counting::of_this_thread() - before, 0, "{timing:?} {joint:?}");
            assert!(policy.stats().plans > 5, "{timing:?} {joint:?}: {:?}", policy.stats());
        }
    }
    assert!(Counting::of_this_thread() > 0, "the counter does not count");
}
