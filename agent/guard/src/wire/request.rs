//! Requests, typed.

use super::{Fields, Line, WireError, format_instance, parse_instance};
use std::fmt;

/// How PostgreSQL is told to stop. A smart shutdown does not exist here: it lets open sessions go on committing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// SIGINT: disconnect clients, write the shutdown checkpoint.
    Fast,
    /// SIGQUIT: no checkpoint; crash recovery at the next start.
    Immediate,
}

impl fmt::Display for StopMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        })
    }
}

/// The PostgreSQL tools a job may run, looked up in the configured `pg_bin` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobTool {
    /// `initdb`
    Initdb,
    /// `pg_basebackup`
    PgBasebackup,
    /// `pg_rewind`
    PgRewind,
    /// `pg_waldump`
    PgWaldump,
    /// `postgres --single`, with no input: recovery to a consistent, shut down state.
    PostgresSingle,
}

impl JobTool {
    const ALL: [Self; 5] =
        [Self::Initdb, Self::PgBasebackup, Self::PgRewind, Self::PgWaldump, Self::PostgresSingle];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initdb => "initdb",
            Self::PgBasebackup => "pg_basebackup",
            Self::PgRewind => "pg_rewind",
            Self::PgWaldump => "pg_waldump",
            Self::PostgresSingle => "postgres-single",
        }
    }

    /// The file in `pg_bin`, and the arguments that come first.
    pub fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::PostgresSingle => ("postgres", &["--single"]),
            other => (other.name(), &[]),
        }
    }
}

/// What a client may ask of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Everything the guard knows; changes nothing.
    Status,
    /// A new lease, or a later deadline for the running one.
    Grant {
        /// The epoch of the lease.
        epoch: u64,
        /// The guard instance it is bound to.
        instance: u128,
        /// Absolute, CLOCK_BOOTTIME.
        deadline_ns: u64,
    },
    /// Start PostgreSQL in recovery.
    StartStandby {
        /// Create `standby.signal` when it is missing.
        create: bool,
    },
    /// Start PostgreSQL writable, under the live lease for exactly this epoch.
    StartPrimary {
        /// The lease's epoch.
        epoch: u64,
    },
    /// Stop PostgreSQL; the answer comes when it has stopped, or when the time is over.
    Stop {
        /// How.
        mode: StopMode,
        /// How long: then a fast stop answers an error and goes on, an immediate one kills.
        timeout_ms: u64,
    },
    /// Refuse this epoch and all below for ever, empty the namespace, then answer.
    Fence {
        /// The epoch.
        epoch: u64,
        /// Time for a clean (fast) shutdown first; 0 kills at once.
        grace_ms: u64,
    },
    /// Give no promise for this epoch or any below, ever again.
    ClosePromises {
        /// The epoch.
        epoch: u64,
        /// What was promised to it is void: its primary is proved not to write.
        void: bool,
    },
    /// A later deadline for the running lease, by promises of all who could be promoted. Never a new lease.
    Extend {
        /// The epoch of the lease.
        epoch: u64,
        /// The guard instance it is bound to.
        instance: u128,
        /// Absolute, CLOCK_BOOTTIME.
        deadline_ns: u64,
    },
    /// Promise the primary of `epoch` that nothing above that epoch is promoted here, from now on for `hold_ms`.
    Promise {
        /// The epoch.
        epoch: u64,
        /// For how long, drift and kill time included.
        hold_ms: u64,
    },
    /// Run a tool in a namespace of its own.
    JobStart {
        /// Which.
        tool: JobTool,
        /// Its arguments.
        args: Vec<String>,
        /// Extra environment, from an allow-list.
        env: Vec<(String, String)>,
    },
    /// The job's state.
    JobStatus,
    /// Kill the job.
    JobKill,
    /// May PostgreSQL end recovery? Asked by `recovery_end_command`, not by people.
    Gate,
}

impl Request {
    /// The verb on the wire.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Grant { .. } => "grant",
            Self::StartStandby { .. } => "start-standby",
            Self::StartPrimary { .. } => "start-primary",
            Self::Stop { .. } => "stop",
            Self::Fence { .. } => "fence",
            Self::ClosePromises { .. } => "close-promises",
            Self::Extend { .. } => "extend",
            Self::Promise { .. } => "promise",
            Self::JobStart { .. } => "job-start",
            Self::JobStatus => "job-status",
            Self::JobKill => "job-kill",
            Self::Gate => "gate",
        }
    }

    /// The line, with its newline.
    pub fn encode(&self) -> String {
        let mut fields = Fields::new();
        match self {
            Self::Status | Self::JobStatus | Self::JobKill | Self::Gate => {}
            Self::Grant { epoch, instance, deadline_ns } | Self::Extend { epoch, instance, deadline_ns } => {
                fields.push("epoch", epoch);
                fields.push("instance", format_instance(*instance));
                fields.push("deadline_ns", deadline_ns);
            }
            Self::StartStandby { create } => fields.push("create", u8::from(*create)),
            Self::StartPrimary { epoch } => fields.push("epoch", epoch),
            Self::ClosePromises { epoch, void } => {
                fields.push("epoch", epoch);
                if *void {
                    fields.push("void", 1);
                }
            }
            Self::Promise { epoch, hold_ms } => {
                fields.push("epoch", epoch);
                fields.push("hold_ms", hold_ms);
            }
            Self::Stop { mode, timeout_ms } => {
                fields.push("mode", mode);
                fields.push("timeout_ms", timeout_ms);
            }
            Self::Fence { epoch, grace_ms } => {
                fields.push("epoch", epoch);
                fields.push("grace_ms", grace_ms);
            }
            Self::JobStart { tool, args, env } => {
                fields.push("tool", tool.name());
                for arg in args {
                    fields.push("arg", arg);
                }
                for (key, value) in env {
                    fields.push(&format!("env:{key}"), value);
                }
            }
        }
        Line::new(self.verb(), fields).encode()
    }

    /// Reads a request line.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let Line { word, fields } = Line::parse(text)?;
        let none = |request: Self| fields.only(&[], None, &[]).map(|()| request);
        match word.as_str() {
            "status" => none(Self::Status),
            "job-status" => none(Self::JobStatus),
            "job-kill" => none(Self::JobKill),
            "gate" => none(Self::Gate),
            "grant" | "extend" => {
                fields.only(&["epoch", "instance", "deadline_ns"], None, &[])?;
                let text = fields.require("instance")?;
                let instance = parse_instance(text).ok_or_else(|| {
                    WireError(format!("field `instance`: `{text}` is not 32 hexadecimal digits"))
                })?;
                let (epoch, deadline_ns) = (epoch(&fields)?, fields.number("deadline_ns")?);
                Ok(match word.as_str() {
                    "grant" => Self::Grant { epoch, instance, deadline_ns },
                    _ => Self::Extend { epoch, instance, deadline_ns },
                })
            }
            "start-standby" => {
                fields.only(&["create"], None, &[])?;
                Ok(Self::StartStandby { create: flag(&fields, "create")? })
            }
            "start-primary" => {
                fields.only(&["epoch"], None, &[])?;
                Ok(Self::StartPrimary { epoch: epoch(&fields)? })
            }
            "close-promises" => {
                fields.only(&["epoch", "void"], None, &[])?;
                Ok(Self::ClosePromises { epoch: epoch(&fields)?, void: flag(&fields, "void")? })
            }
            "promise" => {
                fields.only(&["epoch", "hold_ms"], None, &[])?;
                Ok(Self::Promise { epoch: epoch(&fields)?, hold_ms: duration(&fields, "hold_ms")? })
            }
            "stop" => {
                fields.only(&["mode", "timeout_ms"], None, &[])?;
                let mode = match fields.require("mode")? {
                    "fast" => StopMode::Fast,
                    "immediate" => StopMode::Immediate,
                    other => {
                        return Err(WireError(format!("field `mode`: `{other}` is not fast or immediate")));
                    }
                };
                Ok(Self::Stop { mode, timeout_ms: duration(&fields, "timeout_ms")? })
            }
            "fence" => {
                fields.only(&["epoch", "grace_ms"], None, &[])?;
                Ok(Self::Fence { epoch: epoch(&fields)?, grace_ms: duration(&fields, "grace_ms")? })
            }
            "job-start" => job_start(&fields),
            other => Err(WireError(format!("unknown verb `{other}`"))),
        }
    }
}

fn flag(fields: &Fields, key: &str) -> Result<bool, WireError> {
    match fields.get(key) {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(WireError(format!("field `{key}`: `{other}` is not 0 or 1"))),
    }
}

/// Epoch 0 means "never appointed", so no request may name it.
fn epoch(fields: &Fields) -> Result<u64, WireError> {
    match fields.number("epoch")? {
        0 => Err(WireError("field `epoch`: `0` is not an epoch (they start at 1)".into())),
        epoch => Ok(epoch),
    }
}

/// A day at most: more is a mistake of unit, and keeps sums of nanoseconds far from overflow.
fn duration(fields: &Fields, key: &str) -> Result<u64, WireError> {
    const DAY_MS: u64 = 86_400_000;
    let value: u64 = fields.number(key)?;
    if value > DAY_MS {
        return Err(WireError(format!("field `{key}`: `{value}` is more than a day ({DAY_MS})")));
    }
    Ok(value)
}

fn job_start(fields: &Fields) -> Result<Request, WireError> {
    fields.only(&["tool", "arg"], Some("env:"), &["arg"])?;
    let name = fields.require("tool")?;
    let tool = JobTool::ALL.into_iter().find(|tool| tool.name() == name).ok_or_else(|| {
        let known: Vec<_> = JobTool::ALL.iter().map(|tool| tool.name()).collect();
        WireError(format!("field `tool`: `{name}` is not one of {}", known.join(", ")))
    })?;
    let mut args = Vec::new();
    let mut env = Vec::new();
    for (key, value) in &fields.0 {
        if value.contains('\0') {
            return Err(WireError(format!("field `{key}`: contains a NUL byte")));
        }
        if key == "arg" {
            args.push(value.clone());
        } else if let Some(name) = key.strip_prefix("env:") {
            env.push((name.to_owned(), value.clone()));
        }
    }
    Ok(Request::JobStart { tool, args, env })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_a_round_trip() {
        for request in [
            Request::Status,
            Request::Grant { epoch: 3, instance: 9, deadline_ns: 77 },
            Request::StartStandby { create: true },
            Request::StartPrimary { epoch: 3 },
            Request::Stop { mode: StopMode::Fast, timeout_ms: 5 },
            Request::Fence { epoch: 3, grace_ms: 0 },
            Request::ClosePromises { epoch: 3, void: false },
            Request::ClosePromises { epoch: 3, void: true },
            Request::Extend { epoch: 3, instance: 9, deadline_ns: 77 },
            Request::Promise { epoch: 3, hold_ms: 5 },
            Request::JobStart {
                tool: JobTool::PostgresSingle,
                args: vec!["-D".into(), "a b".into()],
                env: vec![("PGPASSFILE".into(), "/x".into())],
            },
            Request::JobStatus,
            Request::JobKill,
            Request::Gate,
        ] {
            assert_eq!(Request::parse(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn bad_requests_name_field_and_value() {
        for (text, part) in [
            ("grant epoch=x instance=00000000000000000000000000000001 deadline_ns=1", "`x`"),
            ("grant epoch=1 instance=1 deadline_ns=1", "`instance`"),
            ("grant epoch=1 deadline_ns=1", "`instance`"),
            ("fence epoch=0 grace_ms=0", "`0`"),
            ("fence epoch=1 epoch=2 grace_ms=0", "twice"),
            ("fence epoch=1 grace_ms=99999999999", "99999999999"),
            ("stop mode=smart timeout_ms=1", "smart"),
            ("status now=1", "`now`"),
            ("job-start tool=rm", "`rm`"),
            ("promote", "promote"),
            ("promise epoch=1", "`hold_ms`"),
            ("promise epoch=0 hold_ms=1", "`0`"),
            ("close-promises epoch=1 void=2", "`2`"),
            ("extend epoch=1 deadline_ns=1", "`instance`"),
        ] {
            let error = Request::parse(text).unwrap_err();
            assert!(error.0.contains(part), "{text}: {error}");
        }
    }
}
