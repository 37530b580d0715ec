//! Answers: `ok`, `refused` (the state forbids it: data for the caller) or `error` (it could not be done or understood).

use super::{Fields, Line, WireError};

/// What the guard says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done; everything promised by the verb holds.
    Ok(Fields),
    /// The state forbids it; nothing was done. `fields` carry both sides' numbers.
    Refused {
        /// For people.
        reason: String,
        /// For programs.
        fields: Fields,
    },
    /// The request was malformed, or an operation on the machine failed: the outcome is unknown unless the reason says otherwise.
    Error {
        /// For people.
        reason: String,
    },
}

impl Answer {
    /// `ok` without fields.
    pub fn ok() -> Self {
        Self::Ok(Fields::new())
    }

    /// A refusal without numbers.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), fields: Fields::new() }
    }

    /// An error.
    pub fn error(reason: impl Into<String>) -> Self {
        Self::Error { reason: reason.into() }
    }

    /// The fields of an `ok`; `None` otherwise.
    pub fn fields(&self) -> Option<&Fields> {
        match self {
            Self::Ok(fields) => Some(fields),
            _ => None,
        }
    }

    /// The line, with its newline.
    pub fn encode(&self) -> String {
        match self {
            Self::Ok(fields) => Line::new("ok", fields.clone()).encode(),
            Self::Refused { reason, fields } => {
                let mut all = Fields::new().with("reason", reason);
                all.0.extend(fields.0.iter().cloned());
                Line::new("refused", all).encode()
            }
            Self::Error { reason } => Line::new("error", Fields::new().with("reason", reason)).encode(),
        }
    }

    /// Reads an answer line.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let Line { word, mut fields } = Line::parse(text)?;
        match word.as_str() {
            "ok" => Ok(Self::Ok(fields)),
            "refused" => {
                let reason = fields.require("reason")?.to_owned();
                fields.0.retain(|(key, _)| key != "reason");
                Ok(Self::Refused { reason, fields })
            }
            "error" => Ok(Self::Error { reason: fields.require("reason")?.to_owned() }),
            other => Err(WireError(format!("`{other}` is not an answer (ok, refused, error)"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_a_round_trip() {
        for answer in [
            Answer::ok(),
            Answer::Ok(Fields::new().with("timeline", 3)),
            Answer::Refused { reason: "epoch 3 <= fenced 4".into(), fields: Fields::new().with("epoch", 3) },
            Answer::error("no such \"verb\""),
        ] {
            assert_eq!(Answer::parse(&answer.encode()), Ok(answer));
        }
        assert!(Answer::parse("maybe").is_err());
    }
}
