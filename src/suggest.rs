//! Names that are not known: which known one was meant.

/// The known name that is nearest to `name`, if it is near: one mistake in every three letters, whatever their case.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // a name may come from a file and be as long as it likes
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    let mistakes = |known: &str| strsim::damerau_levenshtein(&name, &known.to_lowercase());
    let (near, known) = known.into_iter().map(|known| (mistakes(known), known)).min_by_key(|(near, _)| *near)?;
    (near <= name.chars().count().max(3) / 3).then_some(known)
}

/// `nearest` as the end of a sentence: the name that was meant, or else `usage`.
pub fn advice<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, usage: &str) -> String {
    match nearest(name, known) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => usage.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_mistake_is_recognised_and_another_is_not() {
        let known = ["ddim", "heun", "dpm++2m", "Ankle boot"];
        for (name, meant) in [("ddmi", "ddim"), ("HEUNN", "heun"), ("dpm+2m", "dpm++2m"), ("ankel boot", "Ankle boot")]
        {
            assert_eq!(nearest(name, known), Some(meant), "{name}");
        }
        for name in ["", "x", "euler", "a", &"d".repeat(10_000)] {
            assert_eq!(nearest(name, known), None, "{name}");
        }
        assert_eq!(advice("haun", known, "give one"), "did you mean 'heun'?");
        assert_eq!(advice("rk4", known, "give one"), "give one");
    }
}
