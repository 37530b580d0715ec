//! Asks this member's own binaries: does this PostgreSQL take the value, and what do its files come to. Starts nothing that
//! touches data: `postgres -C` reads the configuration, prints one value and ends.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use regent_agent_core::parameters::{Numbers, of_control_data};
use tokio::process::Command;

use crate::config::Config;

const LIMIT: Duration = Duration::from_secs(10);

/// Which values it takes, and the words with which it refuses the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Taken.
    pub taken: BTreeMap<String, String>,
    /// Refused.
    pub refused: BTreeMap<String, String>,
}

/// Checks all, and one by one only to name who is wrong. An error says that nothing could be found out.
pub async fn check(config: &Config, values: &BTreeMap<String, String>) -> Result<Checked, String> {
    if values.is_empty() {
        return Ok(Checked::default());
    }
    // The files as they are: a mistake in them is not the new values'.
    postgres(config, "server_version", &[]).await.map_err(|why| format!("PostgreSQL's files: {why}"))?;
    let all: Vec<(&String, &String)> = values.iter().collect();
    if postgres(config, "server_version", &all).await.is_ok() {
        return Ok(Checked { taken: values.clone(), refused: BTreeMap::new() });
    }
    let mut checked = Checked::default();
    for one in values {
        match postgres(config, "server_version", &[one]).await {
            Ok(_) => drop(checked.taken.insert(one.0.clone(), one.1.clone())),
            Err(why) => drop(checked.refused.insert(one.0.clone(), why)),
        }
    }
    Ok(checked)
}

/// What the files come to for a number.
pub async fn number(config: &Config, name: &str) -> Option<u64> {
    postgres(config, name, &[]).await.ok()?.trim().parse().ok()
}

/// What the primary of this data runs with, as `pg_control` has it.
pub async fn in_force(config: &Config) -> Numbers {
    let mut command = Command::new(config.pg_bin.join("pg_controldata"));
    command.arg("-D").arg(&config.data_dir);
    run(command).await.map(|text| of_control_data(&text)).unwrap_or_default()
}

async fn postgres(config: &Config, print: &str, with: &[(&String, &String)]) -> Result<String, String> {
    let mut command = Command::new(config.pg_bin.join("postgres"));
    command.arg("-D").arg(&config.data_dir).args(["-C", print]);
    for (name, value) in with {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    run(command).await
}

async fn run(mut command: Command) -> Result<String, String> {
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(LIMIT, command.output()).await;
    let done =
        done.map_err(|_| format!("no answer within {} s", LIMIT.as_secs()))?.map_err(|e| e.to_string())?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(words(&String::from_utf8_lossy(&done.stderr)))
}

/// The server's own words, without date and process.
fn words(stderr: &str) -> String {
    let levels = ["FATAL:", "ERROR:", "PANIC:"];
    let line = stderr.lines().find(|line| levels.iter().any(|level| line.contains(level)));
    let Some(line) = line.or_else(|| stderr.lines().next()) else { return "it ended without a word".into() };
    let after = levels.iter().find_map(|level| line.split_once(level)).map_or(line, |(_, rest)| rest);
    after.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_kept_without_date_and_process() {
        let stderr =
            "2026-11-23 00:41:45.755 GMT [6918] FATAL:  unrecognized configuration parameter \"nonsense\"\n";
        assert_eq!(words(stderr), "unrecognized configuration parameter \"nonsense\"");
        assert_eq!(
            words("\"root\" execution is not permitted.\nmore"),
            "\"root\" execution is not permitted."
        );
        assert_eq!(words(""), "it ended without a word");
    }
}
