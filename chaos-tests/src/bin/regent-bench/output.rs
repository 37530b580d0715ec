//! Tables for people, JSON for scripts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use regent_chaos::real::dirs::build_dir;
use serde::Serialize;

use crate::proc;

/// One benchmark's result, as it is written.
#[derive(Serialize)]
struct Document<'a, T> {
    benchmark: &'a str,
    cpus: usize,
    load_average: String,
    release: bool,
    result: T,
}

/// Prints rows under their heads, columns as wide as their widest cell.
pub fn table(heads: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(heads.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// Writes `<build dir>/../bench/<name>.json` and says where.
pub fn write<T: Serialize>(name: &str, result: T) -> Result<()> {
    let build = build_dir()?;
    let dir = build.parent().context("the build directory has no parent")?.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let path: PathBuf = dir.join(format!("{name}.json"));
    let document = Document {
        benchmark: name,
        cpus: proc::cpus(),
        load_average: proc::load(),
        release: !cfg!(debug_assertions),
        result,
    };
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// What every table begins with.
pub fn head(title: &str) {
    println!("\n{title}");
    println!("{} CPUs, load average {} before", proc::cpus(), proc::load());
    if cfg!(debug_assertions) {
        println!("NOT a release build: these numbers say little");
    }
}
