//! What quantization came to, for a person.

use super::choose::Choice;
use super::few_bits::FourBits;
use super::fit::{Fitted, FittedLayer};
use super::layers::Skipped;
use super::smooth::Fold;
use std::fmt::Write;

/// The lines of a table of the layers: what each is in, its signal to noise, and its range by stretches of time from the least
/// noise to the most.
pub fn layers(fitted: &[Fitted], choices: &[Choice], skipped: &[Skipped]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<44} {:>10} {:>6} {:>9}  {:<34} range, and extremes by time from the least noise to the most",
        "layer", "10⁶ mul-add", "dB", "moves", "is"
    );
    for (group, choice) in fitted.iter().zip(choices) {
        for layer in &group.layers {
            let what = match (group.levels.is_some(), choice.float) {
                (_, true) => "float".into(),
                (false, _) => format!("8-bit weights, {}", layer.method),
                (true, _) => format!("8 bits, {}{}", layer.method, smoothing(group)),
            };
            let million = layer.layer.multiply_adds() as f64 / 1e6;
            let _ = write!(
                text,
                "{:<44} {million:>10.2} {:>6.1} {:>9.5}  {what:<34}",
                short(&layer.layer.name),
                layer.sqnr,
                choice.moved
            );
            if let Some(levels) = group.levels {
                let low = -f32::from(levels.zero) * levels.scale;
                let _ = write!(text, " {low:.3}..{:.3};", low + 255.0 * levels.scale);
                group.by_time.iter().for_each(|(low, high)| _ = write!(text, " {low:.2}..{high:.2}"));
            }
            text.push('\n');
        }
    }
    for Skipped { name, reason } in skipped {
        let _ = writeln!(text, "{:<44} {:>10} {:>6} {:>9}  float: {reason}", short(name), "", "", "");
    }
    text
}

/// The lines of a table of the layers whose weights alone are rounded.
pub fn weights(four: &[Option<FourBits>], eight: &[FittedLayer], choices: &[Choice], skipped: &[Skipped]) -> String {
    let mut text = format!("{:<44} {:>9} {:>6} {:>9}  weights in\n", "layer", "10⁶", "dB", "moves");
    for ((four, eight), choice) in four.iter().zip(eight).zip(choices) {
        let (bits, sqnr) = match four.as_ref().filter(|_| !choice.float) {
            Some(four) => ("4 bits", four.sqnr),
            None => ("8 bits", eight.sqnr),
        };
        let million = eight.rounded.levels.len() as f64 / 1e6;
        let _ =
            writeln!(text, "{:<44} {million:>9.3} {sqnr:>6.1} {:>9.5}  {bits}", short(&eight.layer.name), choice.moved);
    }
    for Skipped { name, reason } in skipped {
        let _ = writeln!(text, "{:<44} {:>9} {:>6} {:>9}  float: {reason}", short(name), "", "", "");
    }
    text
}

fn smoothing(group: &Fitted) -> &'static str {
    match &group.smoothing {
        None => "",
        Some((_, Fold::Step)) => ", smoothed by a step",
        Some((_, Fold::Into(_))) => ", smoothed",
    }
}

/// The end of a long name, which is what tells layers apart.
fn short(name: &str) -> String {
    const MOST: usize = 44;
    let count = name.chars().count();
    if count <= MOST { name.into() } else { format!("…{}", name.chars().skip(count - MOST + 1).collect::<String>()) }
}
