//! What a configuration comes to.

use edgegen::Model;
use edgegen_zenoh_node::config::{Config, Mode, Zenoh};
use edgegen_zenoh_node::message::Decoder;
use std::path::Path;

/// What the repository ships is read.
#[test]
fn the_examples_are_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let push = Config::open(&folder.join("push.yaml")).unwrap();
    let model = Model::open(&push.model).unwrap();
    let policy = push.build_policy(&model).unwrap();
    assert_eq!(policy.observed().collect::<Vec<_>>(), [("global_cond", 4)]);
    let ros = Config::open(&folder.join("ros2.yaml")).unwrap();
    let camera = &ros.observations["observation.images.front"];
    assert_eq!(camera.decoder(3 * 96 * 96).unwrap(), Decoder::picture(true, (96, 96), 3 * 96 * 96).unwrap());
    ros.zenoh.to_config().unwrap();
}

#[test]
fn each_way_of_joining_plans_makes_a_policy_that_the_network_takes() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("push.yaml")).unwrap();
    let model = Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/push.onnx")).unwrap();
    let build = |join: &str| {
        let text = text.replace("  sampler: ddim\n", &format!("  sampler: ddim\n  {join}\n"));
        Config::read(&text).unwrap().build_policy(&model).map(|policy| policy.plan_shape())
    };
    for join in ["join: switch", "join: inpaint", "join: chunk", "join: chunk\n  jacobian: diagonal", "warm_start: 0.5"]
    {
        assert_eq!(build(join).unwrap(), [16, 2], "{join}");
    }
    // this network has not been trained for it
    assert!(build("join: prefix").unwrap_err().to_string().contains("time"), "{:?}", build("join: prefix"));
    assert!(build("warm_start: 2").unwrap_err().to_string().contains("warm start"));
}

#[test]
fn zenohs_own_file_stays_below_our_keys() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zenoh.json5");
    std::fs::write(&file, "{mode: 'client', scouting: {multicast: {enabled: true}}}").unwrap();
    let said = |zenoh: Zenoh, key: &str| zenoh.to_config().unwrap().get_json(key).unwrap();
    let below = Zenoh { config: Some(file.clone()), ..Zenoh::default() };
    assert_eq!(said(below.clone(), "mode"), "\"client\"");
    assert_eq!(said(below.clone(), "scouting/multicast/enabled"), "true");
    let above = Zenoh { mode: Some(Mode::Peer), multicast_scouting: Some(false), ..below };
    assert_eq!(said(above.clone(), "mode"), "\"peer\"");
    assert_eq!(said(above, "scouting/multicast/enabled"), "false");
    assert_eq!(said(Zenoh::default(), "scouting/multicast/enabled"), "false");
}
