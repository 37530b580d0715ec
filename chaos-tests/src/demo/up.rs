//! The deployment in the foreground, to try things by hand: faults are typed, `^C` ends it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::build;
use super::narrator::{Narrator, Tone};
use crate::real::deployment::{Deployment, DeploymentOptions};
use crate::real::link::CutDirection;
use crate::real::sweep::interrupted;

const COMMANDS: &str = "  Faults, typed here:
  cut REGION            isolate a region: bytes vanish, no socket closes
  cut REGION REGION     only between these two; `cut A > B` only what A sends to B
  heal                  make every link whole
  delay REGION REGION MS   one-way delay
  kill PROCESS | stop PROCESS | cont PROCESS | start PROCESS    SIGKILL, SIGSTOP, SIGCONT, start again
  ps                    the processes
  help, quit (or ^C)";

/// Starts the deployment and keeps it until `^C` or `quit`.
pub async fn up(options: DeploymentOptions) -> Result<()> {
    let narrator = Narrator::default();
    let deployment = build::prepare(&narrator, options)?;
    let done = tokio::select! {
        done = serve(&narrator, &deployment) => done,
        signal = interrupted() => signal.map(|name| narrator.say(Tone::Act, format!("{name}: ending everything"))),
    };
    done?;
    deployment.finish().await
}

async fn serve(narrator: &Narrator, deployment: &Deployment) -> Result<()> {
    let _events = build::start(narrator, deployment).await?;
    build::how_to(narrator, deployment)?;
    narrator.print("");
    narrator.print(COMMANDS);
    narrator.print("");
    narrator.say(Tone::Good, "up; ^C ends it");
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let line = next(&mut input).await?;
        match obey(narrator, deployment, &line) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => narrator.say(Tone::Quiet, format!("{error:#}")),
        }
    }
}

/// The next line; without any more input it waits for `^C`.
async fn next(input: &mut Lines<BufReader<Stdin>>) -> Result<String> {
    match input.next_line().await.context("reading the terminal")? {
        Some(line) => Ok(line),
        None => std::future::pending().await,
    }
}

/// Does what a line says; false to end.
fn obey(narrator: &Narrator, deployment: &Deployment, line: &str) -> Result<bool> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let net = deployment.net();
    match words[..] {
        [] => return Ok(true),
        ["quit" | "exit"] => return Ok(false),
        ["help"] => {
            narrator.print(COMMANDS);
            return Ok(true);
        }
        ["ps"] => {
            for name in deployment.running() {
                let process = deployment.process(&name)?;
                let state = process.exit_status().map_or("runs".to_owned(), |status| status.to_string());
                narrator.print(&format!("  {name:<26}{:>8}  {state}", process.pid()));
            }
            return Ok(true);
        }
        ["cut", region] => net.isolate(region)?,
        ["cut", a, b] => net.cut(a, b, CutDirection::Both)?,
        ["cut", a, ">", b] => net.cut(a, b, CutDirection::AToB)?,
        ["heal"] => net.heal(),
        ["delay", a, b, ms] => {
            let ms = ms.parse().with_context(|| format!("\"{ms}\" is not a number of milliseconds"))?;
            net.set_delay(a, b, Duration::from_millis(ms))?;
        }
        ["kill", name] => deployment.process(name)?.kill(),
        ["stop", name] => deployment.process(name)?.stop()?,
        ["cont", name] => deployment.process(name)?.cont()?,
        ["start", name] => deployment.restart(name)?,
        _ => bail!("\"{line}\" is not a command; `help` lists them"),
    }
    narrator.say(Tone::Act, line.trim());
    Ok(true)
}
