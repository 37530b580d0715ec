//! The command line: what is checked, what is said, with which exit code.

use std::process::{Command, Output};

fn agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_regent-agent")).args(args).output().unwrap()
}

#[test]
fn the_shipped_configuration_passes_its_check() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/agent.toml");
    let output = agent(&["run", "--config", file, "--check"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok (cluster gravl, member eu-north-1)"));
}

#[test]
fn bad_usage_and_bad_configuration_end_with_2_and_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "clustr = \"x\"\n").unwrap();
    for (args, part) in [
        (vec!["run", "--config", file.to_str().unwrap()], "clustr"),
        (vec!["run", "--config", "/nowhere/agent.toml"], "/nowhere/agent.toml"),
        (vec!["run"], "--config"),
        (vec!["promote"], "promote"),
    ] {
        let output = agent(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
    let help = String::from_utf8_lossy(&agent(&["--help"]).stdout).into_owned();
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}
