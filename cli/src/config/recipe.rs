//! The command that makes a configuration again.

use super::{Config, PRESETS, merge, render};
use crate::args::ConfigArguments;

/// A word of a command line for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/=+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Config {
    /// The command that makes a run with this configuration: a preset and all that differs from it. The preset is the one of the
    /// configuration's name or, where that is of the user's own, the one from which it differs least. Files are not needed.
    pub fn command(&self) -> String {
        let mine = merge::flatten(&merge::table_of(self));
        let differing = |name: &str| -> Vec<String> {
            let preset = Config::resolve(&ConfigArguments {
                source: Some(name.to_owned()),
                ..ConfigArguments::default()
            });
            let theirs = merge::flatten(&merge::table_of(
                &preset.expect("the embedded presets are valid"),
            ));
            let differ = merge::paths()
                .into_iter()
                .filter(|path| path != "seed" && theirs.get(path) != mine.get(path));
            differ
                .filter_map(|path| {
                    let value = render::literal(mine.get(&path)?);
                    Some(format!("{path}={value}"))
                })
                .collect()
        };
        let (name, set) = PRESETS
            .iter()
            .map(|(name, _)| (*name, differing(name)))
            .min_by_key(|(name, set)| (*name != self.name, set.len()))
            .expect("there are presets");
        let mut command = format!("boltzmap run {name} --seed {}", self.seed);
        for assignment in set {
            command += &format!(" --set {}", quoted(&assignment));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser;

    fn resolve(source: &str, set: &[&str]) -> Config {
        Config::resolve(&ConfigArguments {
            source: Some(source.into()),
            set: set.iter().map(|&text| text.to_owned()).collect(),
            seed: None,
        })
        .unwrap()
    }

    /// The words of a command line as a shell without any other syntax than quotes sees them.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut inside) = (Vec::new(), String::new(), false);
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\'' => inside = !inside,
                '\\' if !inside => word.extend(letters.next()),
                ' ' if !inside => words.push(std::mem::take(&mut word)),
                letter => word.push(letter),
            }
        }
        words.push(word);
        words
    }

    #[test]
    fn commands_make_the_configuration_again() {
        let cases: [(&str, &[&str]); 8] = [
            ("ala2", &[]),
            ("ala2-long", &["seed=9223372036854775807"]),
            (
                "ala2-tiny",
                &["training.batch=7", "system.sequence=\"AAA\"", "seed=5"],
            ),
            ("ala2", &["name=\"mine\""]),
            ("ala2-tiny", &["name=\"ala2\""]),
            (
                "ala2-tiny",
                &["name=\"ünique+1\"", "training.learning_rate=1e-12"],
            ),
            (
                "ala2",
                &[
                    "sampling.guidance=-0.1",
                    "training.clip=1e30",
                    "system.force_field=\"it's\"",
                    "system.sequence='A \"B\" \\ C'",
                ],
            ),
            (
                "ala2-long",
                &["training.method=\"f2d2\"", "coordinates.whiten=false"],
            ),
        ];
        for (source, set) in cases {
            let config = resolve(source, set);
            let line = config.command();
            let arguments = Arguments::try_parse_from(words(&line)).expect(&line);
            let Command::Run(run) = arguments.command else {
                panic!("{line}");
            };
            assert_eq!(Config::resolve(&run.config).unwrap(), config, "{line}");
        }
    }

    #[test]
    fn commands_are_short() {
        let sets = ["training.batch=7", "system.sequence=\"AAA\"", "seed=5"];
        assert_eq!(
            resolve("ala2-tiny", &sets).command(),
            "boltzmap run ala2-tiny --seed 5 --set 'system.sequence=\"AAA\"' --set training.batch=7"
        );
        assert_eq!(
            resolve("ala2-tiny", &["name=\"mine\""]).command(),
            "boltzmap run ala2-tiny --seed 1 --set 'name=\"mine\"'"
        );
    }
}
