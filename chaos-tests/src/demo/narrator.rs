//! Lines with the time since the start; colours on terminals only.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// The demo does something.
    Act,
    /// The cluster has decided or done something.
    Cluster,
    /// A client has noticed something.
    Client,
    /// A promise is kept.
    Good,
    /// A promise broke.
    Bad,
    /// Less important.
    Quiet,
}

impl Tone {
    fn word(self) -> &'static str {
        match self {
            Self::Act => "demo",
            Self::Cluster => "cluster",
            Self::Client => "client",
            Self::Good => "good",
            Self::Bad => "BROKEN",
            Self::Quiet => "",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Act => "1;36",
            Self::Cluster => "33",
            Self::Client => "35",
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Quiet => "2",
        }
    }
}

/// Prints the story.
#[derive(Clone, Copy, Debug)]
pub struct Narrator {
    started: Instant,
    colours: bool,
}

impl Default for Narrator {
    fn default() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { started: Instant::now(), colours: wanted && std::io::stdout().is_terminal() }
    }
}

impl Narrator {
    /// One line of the story.
    pub fn say(&self, tone: Tone, text: impl AsRef<str>) {
        let (at, word) = (self.started.elapsed().as_secs_f64(), tone.word());
        let line = format!("{word:<8}{}", text.as_ref());
        self.print(&format!("{at:7.1} s  {}", self.paint(tone, &line)));
    }

    /// A heading.
    pub fn chapter(&self, text: &str) {
        self.print(&format!("\n{}", self.paint(Tone::Act, text)));
    }

    /// Text as it is.
    pub fn print(&self, text: &str) {
        // A reader that has gone away (`| head`) must not turn the demo into a panic that leaves things behind.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Colours a text for the terminal.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
    }
}

/// Seconds with one decimal.
pub fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}
