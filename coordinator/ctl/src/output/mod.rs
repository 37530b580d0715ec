//! How answers read: tables for people, JSON for scripts. Rendering is pure; printing is here.

mod event;
mod explain;
mod human;
mod operation;
mod paint;
mod plan;
mod planned;
mod restraint;
mod salvage;
mod status;
mod table;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub(crate) use event::event_line;
pub(crate) use explain::explain;
pub(crate) use human::{ago, bytes, date, duration, wall};
pub(crate) use operation::{history, report, step_line};
pub(crate) use paint::{Paint, Tone};
pub(crate) use plan::plan;
pub(crate) use planned::planned_move;
pub(crate) use salvage::{salvage, salvages};
pub(crate) use status::status;
pub(crate) use table::{Column, Table};

use crate::{
    Failure,
    cli::{Format, Global},
};

/// Where a command's answer goes.
pub(crate) struct Output {
    pub format: Format,
    pub paint: Paint,
    /// For standard error, which may be a terminal when standard output is not.
    pub paint_errors: Paint,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        Self {
            format: global.output,
            paint: Paint::new(global.color, io::stdout().is_terminal()),
            paint_errors: Paint::new(global.color, io::stderr().is_terminal()),
        }
    }

    /// Prints `value` as JSON, or as the text that `render` makes of it.
    pub fn print<T: Serialize>(
        &self,
        value: &T,
        render: impl FnOnce(&T, &Paint) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(&json(value, true)),
            Format::Table => self.text(&render(value, &self.paint)),
        }
    }

    /// One element of a stream: JSON on one line, or a line of text.
    pub fn print_line<T: Serialize>(
        &self,
        value: &T,
        render: impl FnOnce(&T, &Paint) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(&json(value, false)),
            Format::Table => self.line(&render(value, &self.paint)),
        }
    }

    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }
}

fn json<T: Serialize>(value: &T, pretty: bool) -> String {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.expect("answers have text keys and plain values")
}
