//! The picture of `docs/policy.md`.

use crate::rollout::{Policy, Settings};
use crate::task::{DISC, EFFECTOR, State, TOLERANCE, V};
use edgegen::{Model, Request, Result};
use std::fmt::Write;

/// Pixels of a panel's side.
const PANEL: f32 = 220.0;

/// Above, episodes in closed loop; below, plans for one observation, by 10 network calls and by one.
pub fn draw(model: &Model) -> Result<String> {
    let mut svg = String::new();
    let mut policy = Policy::new(model, &Settings::cold(10, "ddim", 2))?;
    let mut column = 0.0;
    for episode in 0..4 {
        let states = policy.run(episode, &mut Vec::new())?;
        panel(&mut svg, column, 0.0, &format!("episode {episode}: {} steps", states.len() - 1));
        bodies(&mut svg, &states[0], 0.35);
        path(&mut svg, states.iter().map(|s| s.disc), "#c60", 1.0);
        path(&mut svg, states.iter().map(|s| s.effector), "#06c", 1.0);
        bodies(&mut svg, &states[states.len() - 1], 1.0);
        svg += "</g>\n";
        column += 1.0;
    }
    // the end effector before the disc: either side is as good
    let state = State { effector: V { x: 0.15, y: 0.0 }, disc: V { x: 0.6, y: 0.0 } };
    for (i, calls) in [10, 5, 2, 1].into_iter().enumerate() {
        let mut generator = model.generator().sampler("ddim").steps(calls).build()?;
        let title = format!("16 plans, {calls} call{}", if calls > 1 { "s" } else { "" });
        panel(&mut svg, i as f32, 1.0, &title);
        bodies(&mut svg, &state, 1.0);
        for index in 0..16 {
            let seen = [state.observation(), state.observation()].concat();
            let plan = generator.run(&Request::new(77, index).condition("global_cond", &seen))?.sample;
            let plan = plan.chunks_exact(2).map(|a| V { x: a[0], y: a[1] });
            path(&mut svg, std::iter::once(state.effector).chain(plan), "#06c", 0.6);
        }
        svg += "</g>\n";
    }
    let (width, height) = (4.0 * PANEL, 2.0 * (PANEL + 20.0));
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{svg}</svg>\n"
    ))
}

/// Begins a panel: the table from -1.1 to 1.1, with the goal in its middle.
fn panel(svg: &mut String, column: f32, row: f32, title: &str) {
    let (x, y, scale) = ((column + 0.5) * PANEL, (row + 0.5) * PANEL + (row + 1.0) * 20.0, PANEL / 2.2);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" fill=\"#333\">{title}</text>",
        x - PANEL / 2.0 + 8.0,
        y - PANEL / 2.0 - 5.0
    );
    let _ = writeln!(svg, "<g transform=\"translate({x} {y}) scale({scale} -{scale})\">");
    let _ = writeln!(svg, "<rect x=\"-1.06\" y=\"-1.06\" width=\"2.12\" height=\"2.12\" fill=\"#f6f6f4\"/>");
    let _ = writeln!(svg, "<circle r=\"{TOLERANCE}\" fill=\"#2a2\"/>");
}

fn bodies(svg: &mut String, state: &State, opacity: f32) {
    for (at, radius, colour) in [(state.disc, DISC, "#c60"), (state.effector, EFFECTOR, "#06c")] {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.3}\" cy=\"{:.3}\" r=\"{radius}\" fill=\"{colour}\" fill-opacity=\"{:.2}\" stroke=\"{colour}\" stroke-opacity=\"{opacity}\" stroke-width=\"0.012\"/>",
            at.x,
            at.y,
            0.25 * opacity
        );
    }
}

fn path(svg: &mut String, points: impl Iterator<Item = V>, colour: &str, opacity: f32) {
    let points: Vec<String> = points.map(|p| format!("{:.3},{:.3}", p.x, p.y)).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-opacity=\"{opacity}\" stroke-width=\"0.014\"/>",
        points.join(" ")
    );
}
