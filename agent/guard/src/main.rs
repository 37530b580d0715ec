//! `regent-guard`: reads its arguments and dispatches.

use regent_guard::client::Client;
use regent_guard::config::{Config, ConfigError};
use regent_guard::guard::Guard;
use regent_guard::wire::Answer;
use regent_guard::{gate, startup, wire};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
regent-guard: starts, stops and kills PostgreSQL, and enforces the lease

Usage:
  regent-guard run --config FILE [--check]
  regent-guard status --config FILE [--output text|json]
  regent-guard call --config FILE REQUEST...
  regent-guard gate --socket PATH       (asked by PostgreSQL's recovery_end_command, not by people)

Examples:
  regent-guard run --config /etc/regent/guard.toml            run in the foreground
  regent-guard run --config /etc/regent/guard.toml --check    check the file and end
  regent-guard status --config /etc/regent/guard.toml --output json
  regent-guard call --config /etc/regent/guard.toml stop mode=fast timeout_ms=60000

Exit codes: 0 ok; 1 it could not be done, or was refused; 2 wrong usage or configuration.
";

enum Failure {
    Usage(String),
    Operating(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = match std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect() {
        Ok(args) => args,
        Err(bad) => {
            eprintln!("regent-guard: argument {bad:?} is not UTF-8");
            return ExitCode::from(2);
        }
    };
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("regent-guard: {text}\nTry `regent-guard --help`.");
            ExitCode::from(2)
        }
        Err(Failure::Operating(text)) => {
            eprintln!("regent-guard: {text}");
            ExitCode::from(1)
        }
    }
}

fn dispatch(args: &[String]) -> Result<(), Failure> {
    let Some((verb, rest)) = args.split_first() else {
        return Err(Failure::Usage("a command is missing".into()));
    };
    match verb.as_str() {
        "--help" | "-h" | "help" => {
            print!("{HELP}");
            Ok(())
        }
        "--version" => {
            println!("regent-guard {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        "run" => {
            let options = Options::parse(rest, &["--config"], &["--check"], false)?;
            run(options.path("--config")?, options.flag("--check"))
        }
        "status" => {
            let options = Options::parse(rest, &["--config", "--output"], &[], false)?;
            status(options.path("--config")?, options.value("--output").unwrap_or("text"))
        }
        "call" => {
            let options = Options::parse(rest, &["--config"], &[], true)?;
            call(options.path("--config")?, &options.rest)
        }
        "gate" => {
            let options = Options::parse(rest, &["--socket"], &[], false)?;
            gate::pass(options.path("--socket")?);
            Ok(())
        }
        other => Err(Failure::Usage(format!("`{other}` is not a command"))),
    }
}

struct Options<'a> {
    values: Vec<(&'a str, &'a str)>,
    flags: Vec<&'a str>,
    rest: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(args: &'a [String], values: &[&str], flags: &[&str], rest: bool) -> Result<Self, Failure> {
        let mut found = Self { values: vec![], flags: vec![], rest: vec![] };
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if arg.starts_with("--") => (name, Some(value)),
                _ => (arg, None),
            };
            if values.contains(&name) {
                let value = inline.or_else(|| args.next());
                let value = value.ok_or_else(|| Failure::Usage(format!("`{name}` needs a value")))?;
                found.values.push((name, value));
            } else if flags.contains(&arg) {
                found.flags.push(arg);
            } else if rest && !arg.starts_with("--") {
                found.rest.push(arg);
            } else {
                return Err(Failure::Usage(format!("`{arg}` is not an option here")));
            }
        }
        Ok(found)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.values.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn path(&self, name: &str) -> Result<&'a Path, Failure> {
        self.value(name).map(Path::new).ok_or_else(|| Failure::Usage(format!("`{name}` is missing")))
    }

    fn flag(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }
}

fn run(path: &Path, check: bool) -> Result<(), Failure> {
    let config = Config::load(path)?;
    config.check_machine()?;
    if check {
        println!("{}: ok", path.display());
        return Ok(());
    }
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } == 0 {
        return Err(Failure::Operating(
            "run as the user that owns the data directory, not as root (PostgreSQL refuses root)".into(),
        ));
    }
    let exe = own_path().map_err(|error| Failure::Operating(format!("own path: {error}")))?;
    let started = startup::start(&config).map_err(|error| Failure::Operating(error.to_string()))?;
    let mut guard =
        Guard::new(config, exe, started).map_err(|error| Failure::Operating(error.to_string()))?;
    guard.run().map_err(|error| Failure::Operating(format!("poll: {error}")))
}

fn own_path() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

fn status(path: &Path, output: &str) -> Result<(), Failure> {
    if output != "text" && output != "json" {
        return Err(Failure::Usage(format!("`--output {output}`: text or json")));
    }
    let config = Config::load(path)?;
    let answer = Client::new(config.socket())
        .call(&wire::Request::Status, Duration::from_secs(5))
        .map_err(|error| Failure::Operating(with_cause(&error)))?;
    let Answer::Ok(fields) = answer else {
        return Err(Failure::Operating(answer.encode().trim_end().to_owned()));
    };
    let width = fields.0.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    if output == "text" {
        for (key, value) in &fields.0 {
            println!("{key:width$}  {value}");
        }
    } else {
        let members: Vec<_> =
            fields.0.iter().map(|(key, value)| format!("  {}: {}", json(key), json(value))).collect();
        println!("{{\n{}\n}}", members.join(",\n"));
    }
    Ok(())
}

/// Every value is a string: 64-bit numbers do not survive every JSON reader.
fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn call(path: &Path, words: &[&str]) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let request =
        wire::Request::parse(&words.join(" ")).map_err(|error| Failure::Usage(error.to_string()))?;
    let answer = Client::new(config.socket())
        .call(&request, Duration::from_secs(24 * 3600))
        .map_err(|error| Failure::Operating(with_cause(&error)))?;
    print!("{}", answer.encode());
    match answer {
        Answer::Ok(_) => Ok(()),
        Answer::Refused { reason, .. } | Answer::Error { reason } => Err(Failure::Operating(reason)),
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
