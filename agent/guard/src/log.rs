//! One line an event to stderr: `time level message key=value ...`. Never secrets: requests are not logged verbatim.

use crate::wire::{Fields, Line};
use std::io::Write;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Expected.
    Info,
    /// Unexpected, handled.
    Warn,
    /// Needs a person.
    Error,
}

/// Writes an event. A failing stderr is ignored, and a full one (a pipe that nobody reads) is not waited for: the guard's work goes
/// on without its log.
pub fn event(level: Level, message: &str, fields: Fields) {
    let level = match level {
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    };
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    let fields = Line::new("x", fields).encode();
    let line = format!("{time} {level} {message}{}", &fields[1..]);
    let mut poll = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid pollfd, no waiting.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    // A pipe that is ready takes PIPE_BUF bytes without blocking.
    if ready == 1 && poll.revents & libc::POLLOUT != 0 {
        let end = line.floor_char_boundary(libc::PIPE_BUF);
        let _ = std::io::stderr().write_all(&line.as_bytes()[..end]);
    }
}

/// An expected event.
pub fn info(message: &str, fields: Fields) {
    event(Level::Info, message, fields);
}

/// Unexpected, handled.
pub fn warn(message: &str, fields: Fields) {
    event(Level::Warn, message, fields);
}

/// Needs a person.
pub fn error(message: &str, fields: Fields) {
    event(Level::Error, message, fields);
}
