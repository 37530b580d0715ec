//! One line of the protocol: a word and its fields, as text.

use std::fmt;

/// Why a line could not be understood. The text names the field and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(pub String);

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WireError {}

/// The fields of a line, in order; a key may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    pub fn push(&mut self, key: &str, value: impl fmt::Display) {
        self.0.push((key.to_owned(), value.to_string()));
    }

    /// Adds a field, by value, for building in one expression.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.push(key, value);
        self
    }

    /// Adds a field when there is a value.
    pub fn push_some(&mut self, key: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.push(key, value);
        }
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The value of `key`, or an error naming it.
    pub fn require(&self, key: &str) -> Result<&str, WireError> {
        self.get(key).ok_or_else(|| WireError(format!("field `{key}` is missing")))
    }

    /// The value of `key` as a number, or an error naming field and value.
    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T, WireError> {
        let text = self.require(key)?;
        text.parse().map_err(|_| WireError(format!("field `{key}`: `{text}` is not a number in range")))
    }

    /// Like [`Fields::number`], `None` when the field is absent.
    pub fn number_opt<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, WireError> {
        if self.get(key).is_none() { Ok(None) } else { self.number(key).map(Some) }
    }

    /// Every key must be in `known` (or start with `prefix`, when one is given), and only those in `repeat` may occur twice.
    pub fn only(&self, known: &[&str], prefix: Option<&str>, repeat: &[&str]) -> Result<(), WireError> {
        for (at, (key, _)) in self.0.iter().enumerate() {
            let expected = known.contains(&key.as_str())
                || prefix.is_some_and(|p| key.starts_with(p) && key.len() > p.len());
            if !expected {
                return Err(WireError(format!("unknown field `{key}` (known: {})", known.join(", "))));
            }
            if !repeat.contains(&key.as_str()) && self.0[..at].iter().any(|(k, _)| k == key) {
                return Err(WireError(format!("field `{key}` is given twice")));
            }
        }
        Ok(())
    }
}

/// A parsed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The first word: a verb, or `ok`, `refused`, `error`.
    pub word: String,
    /// What follows it.
    pub fields: Fields,
}

fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/:+-,@%=".contains(&b))
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:.".contains(&b))
}

impl Line {
    /// A line.
    pub fn new(word: &str, fields: Fields) -> Self {
        Self { word: word.to_owned(), fields }
    }

    /// The text, with its newline.
    pub fn encode(&self) -> String {
        let mut out = self.word.clone();
        for (key, value) in &self.fields.0 {
            assert!(is_key(key), "a key is chosen by this program: `{key}`");
            out.push(' ');
            out.push_str(key);
            out.push('=');
            if is_plain(value) {
                out.push_str(value);
                continue;
            }
            out.push('"');
            for c in value.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        out.push('\n');
        out
    }

    /// Reads a line (the newline is optional).
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let text = text.strip_suffix('\n').unwrap_or(text).trim();
        let (word, mut rest) = match text.split_once(' ') {
            Some((word, rest)) => (word, rest.trim_start()),
            None => (text, ""),
        };
        if !is_key(word) {
            return Err(WireError(format!("`{word}` is not a word a line may start with")));
        }
        let mut fields = Fields::new();
        while !rest.is_empty() {
            let (key, after) =
                rest.split_once('=').ok_or_else(|| WireError(format!("`{rest}` is not key=value")))?;
            if !is_key(key) {
                return Err(WireError(format!("`{key}` is not a field name")));
            }
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => unquote(key, quoted)?,
                None => {
                    let end = after.find(' ').unwrap_or(after.len());
                    (after[..end].to_owned(), &after[end..])
                }
            };
            if !after.is_empty() && !after.starts_with(' ') {
                return Err(WireError(format!("field `{key}`: text follows the closing quote")));
            }
            fields.0.push((key.to_owned(), value));
            rest = after.trim_start();
        }
        Ok(Self { word: word.to_owned(), fields })
    }
}

fn unquote<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), WireError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '"')) => value.push('"'),
                Some((_, '\\')) => value.push('\\'),
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                other => {
                    let shown = other.map_or(String::new(), |(_, c)| c.to_string());
                    return Err(WireError(format!("field `{key}`: unknown escape `\\{shown}`")));
                }
            },
            c => value.push(c),
        }
    }
    Err(WireError(format!("field `{key}`: the quote is never closed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_a_round_trip_on_one_line() {
        for value in ["", "plain", "two words", "q\"uote", "back\\slash", "new\nline\r\t", "a=b", "å", " "] {
            let line = Line::new("ok", Fields::new().with("a", value).with("b", 1));
            let text = line.encode();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert_eq!(Line::parse(&text), Ok(line));
        }
    }

    #[test]
    fn damaged_lines_name_the_field() {
        for (text, part) in [
            ("ok a=\"x", "`a`"),
            ("ok a=\"x\"y", "`a`"),
            ("ok a=\"\\q\"", "`a`"),
            ("ok nonsense", "nonsense"),
            ("ok =1", "``"),
            ("", "``"),
        ] {
            let error = Line::parse(text).unwrap_err();
            assert!(error.0.contains(part), "{text}: {error}");
        }
    }
}
