//! What a word that names nothing was probably meant to be.

/// Names that other programs use, as a word and the name that it stands for here: the last part of a setting's path.
const SYNONYMS: &[(&str, &str)] = &[
    ("batch_size", "batch"),
    ("batchsize", "batch"),
    ("blocks", "layers"),
    ("bs", "batch"),
    ("channels", "width"),
    ("clip_norm", "clip"),
    ("depth", "layers"),
    ("dim", "width"),
    ("dt", "timestep_fs"),
    ("epochs", "steps"),
    ("eps", "epsilon"),
    ("forcefield", "force_field"),
    ("gamma", "friction"),
    ("grad_clip", "clip"),
    ("hidden", "width"),
    ("iterations", "steps"),
    ("iters", "steps"),
    ("max_grad_norm", "clip"),
    ("max_norm", "clip"),
    ("n_iter", "steps"),
    ("nfe", "sampling.steps"),
    ("objective", "method"),
    ("peptide", "sequence"),
    ("replicas", "temperatures"),
    ("step_size", "timestep_fs"),
    ("time_step", "timestep_fs"),
    ("timestep", "timestep_fs"),
];

/// How well a candidate fits a word: the kind of the likeness, whether the section is another one, and how far it is. Less is better.
type Fit = (u8, bool, usize);

/// The section and the name of a path; the section is empty where there is none.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Whether `short` stands for `long` by letters of it in their order, from its first on, as `smpls` for `samples`. A few letters are found
/// in every long name, so a quarter of them is needed.
fn abbreviates(short: &str, long: &str) -> bool {
    let mut letters = long.chars();
    4 * short.len() >= long.len()
        && short.chars().next() == long.chars().next()
        && short.chars().all(|letter| letters.any(|l| l == letter))
}

/// The first letters of a name's parts: `lr` of `learning_rate`.
fn initials(name: &str) -> String {
    name.split(['_', '-'])
        .filter_map(|part| part.chars().next())
        .collect()
}

/// The likeness of two names without their sections; none where they have nothing in common.
fn likeness(word: &str, name: &str) -> Option<(u8, usize)> {
    let longer = name.len().abs_diff(word.len());
    let edits = strsim::damerau_levenshtein(word, name);
    let parts = |text: &str| -> Vec<String> {
        text.split(['_', '-'])
            .filter(|part| part.len() > 1)
            .map(str::to_owned)
            .collect()
    };
    // A slip of the fingers: one letter in three at most.
    let slip = edits <= (word.len().max(name.len()) / 3).clamp(1, 4) && edits < word.len();
    if word == name {
        return Some((0, 0));
    }
    if edits == 1 && word.len() > 2 {
        return Some((1, 0));
    }
    if SYNONYMS.contains(&(word, name)) || (word.len() > 1 && initials(name) == word) {
        return Some((2, longer));
    }
    if slip && word.len() > 2 {
        return Some((3, edits));
    }
    // The beginning of a name, or a name with something after it: temp and temperature, warmup_steps and warmup.
    let followed = word
        .strip_prefix(name)
        .is_some_and(|rest| rest.starts_with(['_', '-']));
    if (word.len() > 2 && name.starts_with(word)) || followed {
        return Some((4, longer));
    }
    // A part of either is the other, or a part of the other: n_steps and steps, rate and learning_rate.
    let (mine, theirs) = (parts(word), parts(name));
    let shared = mine.iter().filter(|part| theirs.contains(part)).count();
    if shared > 0 {
        return Some((5, mine.len() + theirs.len() - 2 * shared));
    }
    if word.len() > 3 && (name.contains(word) || (name.len() > 3 && word.contains(name))) {
        return Some((6, longer));
    }
    if word.len() > 1 && abbreviates(word, name) {
        return Some((7, longer));
    }
    None
}

/// The candidate that a word was probably meant to be, if any is like it: the right name in another section, a slip of the fingers, a
/// common synonym, initials, the beginning or a part of a name, or an abbreviation, in this order. Of equals the first.
///
/// Candidates may be paths such as `training.steps`; then the word's own section is preferred.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let (section, name) = split(&lower);
    let fit = |candidate: &str| -> Option<Fit> {
        let candidate = candidate.to_lowercase();
        let (theirs, their_name) = split(&candidate);
        let elsewhere = match section {
            "" => false,
            section => strsim::damerau_levenshtein(section, theirs) > 2,
        };
        if SYNONYMS.contains(&(name, &candidate)) {
            return Some((2, elsewhere, 0));
        }
        let (kind, distance) = likeness(name, their_name)?;
        // A name that is only alike in part is more likely meant where its section is the one that was written.
        let kind = if elsewhere && kind > 0 {
            kind + 2
        } else {
            kind
        };
        Some((kind, elsewhere, distance))
    };
    candidates
        .enumerate()
        .filter_map(|(at, candidate)| Some((fit(candidate)?, at, candidate)))
        .min()
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::super::merge::paths;
    use super::*;

    #[test]
    fn settings_are_found_by_the_names_that_people_use() {
        let paths = paths();
        for (word, meant) in [
            ("training.lr", "training.learning_rate"),
            ("lr", "training.learning_rate"),
            ("calibration.lr", "calibration.learning_rate"),
            ("training.LR", "training.learning_rate"),
            ("training.rate", "training.learning_rate"),
            ("training.learningrate", "training.learning_rate"),
            ("training.bs", "training.batch"),
            ("training.batch_size", "training.batch"),
            ("training.batchsize", "training.batch"),
            ("training.n_steps", "training.steps"),
            ("training.num_steps", "training.steps"),
            ("steps", "training.steps"),
            ("sampling.n_steps", "sampling.steps"),
            ("sampling.nfe", "sampling.steps"),
            ("training.epochs", "training.steps"),
            ("training.wd", "training.weight_decay"),
            ("training.decay", "training.weight_decay"),
            ("training.grad_clip", "training.clip"),
            ("training.ema_decay", "training.ema"),
            ("training.eps", "training.epsilon"),
            ("training.warmup_steps", "training.warmup"),
            ("system.temp", "system.temperature"),
            ("temp", "system.temperature"),
            ("data.temp", "data.temperatures"),
            ("system.ff", "system.force_field"),
            ("system.seq", "system.sequence"),
            ("data.dt", "data.timestep_fs"),
            ("data.timestep", "data.timestep_fs"),
            ("data.production", "data.production_ps"),
            ("data.tmax", "data.t_max"),
            ("network.hidden", "network.width"),
            ("network.depth", "network.layers"),
            ("network.n_layers", "network.layers"),
            ("network.n_heads", "network.heads"),
            ("sampling.n_samples", "sampling.samples"),
            ("sampling.tol", "sampling.tolerance"),
            ("network.steps", "training.steps"),
            ("training.stpes", "training.steps"),
            ("trainng.batch", "training.batch"),
            ("evaluation.boot", "evaluation.bootstrap"),
            ("sampling.smpls", "sampling.samples"),
        ] {
            let found = nearest(word, paths.iter().map(String::as_str));
            assert_eq!(found, Some(meant), "{word}");
        }
        // Nothing is better than something else.
        for word in ["training.xyzzy", "q", "training.q", "foo"] {
            assert_eq!(
                nearest(word, paths.iter().map(String::as_str)),
                None,
                "{word}"
            );
        }
    }

    #[test]
    fn words_without_sections_are_found_too() {
        let presets = ["ala2", "ala2-tiny", "ala2-long"];
        let of = |word| nearest(word, presets.into_iter());
        assert_eq!(of("ala3"), Some("ala2"));
        assert_eq!(of("ala2tiny"), Some("ala2-tiny"));
        assert_eq!(of("tiny"), Some("ala2-tiny"));
        assert_eq!(of("protein"), None);
    }
}
