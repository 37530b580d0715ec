//! Conversions between the generated messages and the nouns of `regent-types`.
//!
//! Writing never fails. Reading checks everything and names the field by its full path, e.g.
//! `heartbeat.report.wal.write_lsn: "x" is not an LSN (...)`. Nothing is ever filled in: a part that is missing is an
//! error, because a default (epoch 0, an empty report) would be a statement that nobody made.

mod directive;
mod heartbeat;
mod loss;
mod outcome;
mod parameters;
mod promise;
mod report;
mod session;
mod switch;
mod synchronous;

#[cfg(test)]
mod earlier;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConvertError {
    /// Path of the field, e.g. `heartbeat.report.wal.write_lsn`.
    pub field: String,
    /// What is wrong, with the value.
    pub problem: String,
}

impl ConvertError {
    fn new(field: &str, problem: impl fmt::Display) -> Self {
        Self { field: field.to_owned(), problem: problem.to_string() }
    }

    /// The same error, seen from the message that holds the part `outer`.
    fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

type Converted<T> = Result<T, ConvertError>;

/// A message inside a message, or inside a oneof.
fn part<P, T: TryFrom<P, Error = ConvertError>>(value: P, field: &str) -> Converted<T> {
    T::try_from(value).map_err(|error| error.within(field))
}

/// A message that must be there.
fn required<P, T: TryFrom<P, Error = ConvertError>>(value: Option<P>, field: &str) -> Converted<T> {
    part(present(value, field)?, field)
}

/// A message that may be absent.
fn optional<P, T: TryFrom<P, Error = ConvertError>>(value: Option<P>, field: &str) -> Converted<Option<T>> {
    value.map(|value| part(value, field)).transpose()
}

/// A oneof, or a message, that must be there.
fn present<P>(value: Option<P>, field: &str) -> Converted<P> {
    value.ok_or_else(|| ConvertError::new(field, "is missing"))
}

/// Text with a form: a name, an instance id, an LSN.
fn parsed<T: FromStr<Err: fmt::Display>>(value: &str, field: &str) -> Converted<T> {
    value.parse().map_err(|error| ConvertError::new(field, error))
}

/// Text with a form that may be absent.
fn parsed_optional<T: FromStr<Err: fmt::Display>>(value: Option<&str>, field: &str) -> Converted<Option<T>> {
    value.map(|value| parsed(value, field)).transpose()
}

/// A list of messages; the error carries the index.
fn list<P, T: TryFrom<P, Error = ConvertError>>(values: Vec<P>, field: &str) -> Converted<Vec<T>> {
    values.into_iter().enumerate().map(|(i, value)| part(value, &format!("{field}[{i}]"))).collect()
}

/// A list of texts with a form.
fn parsed_list<T: FromStr<Err: fmt::Display>>(values: &[String], field: &str) -> Converted<Vec<T>> {
    values.iter().enumerate().map(|(i, value)| parsed(value, &format!("{field}[{i}]"))).collect()
}

/// A known enumeration value. The caller refuses `UNSPECIFIED` with [`unspecified`].
fn known<E: TryFrom<i32>>(value: i32, field: &str) -> Converted<E> {
    E::try_from(value).map_err(|_| ConvertError::new(field, format_args!("{value} is not a known value")))
}

/// An enumeration that was not set.
fn unspecified<T>(field: &str) -> Converted<T> {
    Err(ConvertError::new(field, "is missing"))
}

/// Text that must not be empty.
fn filled(value: String, field: &str) -> Converted<String> {
    if value.is_empty() { Err(ConvertError::new(field, "is empty")) } else { Ok(value) }
}

/// A TCP port.
fn port(value: u32, field: &str) -> Converted<u16> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(ConvertError::new(field, format_args!("{value} is not a port (1 to 65535)"))),
    }
}
