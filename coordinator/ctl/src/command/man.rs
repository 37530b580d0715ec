//! `regentctl man`: manual pages, made from the same definitions as `--help`, so that they never differ.

use std::{fs, io};

use clap::CommandFactory;

use crate::{Cli, Failure, cli::ManArgs, output::Output};

pub(super) fn run(output: &Output, args: &ManArgs) -> Result<(), Failure> {
    if let Some(dir) = &args.dir {
        let failed = |error| Failure::Usage(format!("--dir {}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
        return output.text(&format!("{}: a page for each command, regentctl(1) first\n", dir.display()));
    }
    let mut whole = Cli::command();
    whole.build();
    let mut command = &whole;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            Failure::Usage(format!("there is no command {:?}; see regentctl --help", args.command.join(" ")))
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    output.text(&String::from_utf8(page).map_err(|error| io::Error::other(error.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_examples(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            let help = verb.get_after_help().or(verb.get_after_long_help()).map(ToString::to_string);
            if verb.has_subcommands() {
                without_examples(verb, &path, found);
            } else if !help.unwrap_or_default().contains("Example") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        let mut found = Vec::new();
        without_examples(&Cli::command(), "regentctl", &mut found);
        assert!(found.is_empty(), "no examples in the help of {found:?}");
    }
}
