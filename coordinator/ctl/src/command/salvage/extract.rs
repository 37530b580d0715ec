//! `regentctl salvage extract`: rows from a divergent data directory, to be compared with the primary's.
//!
//! Only ever reads the folder that it is given. Refuses one that a server could be running on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    args::{ExtractArgs, Rows},
    server::Server,
};
use crate::{Failure, output::Output};

/// What extract needs of a salvage's manifest.
#[derive(Debug, Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    xids: Vec<u32>,
    #[serde(default)]
    xids_total: usize,
    #[serde(default)]
    data_note: String,
    pg_bin: Option<PathBuf>,
    superuser: Option<String>,
}

/// What there is to copy.
#[derive(Debug)]
struct Source {
    data: PathBuf,
    manifest: Option<Manifest>,
}

#[derive(Debug, Serialize)]
struct Extracted {
    files: Vec<TableFile>,
}

#[derive(Debug, Serialize)]
struct TableFile {
    table: String,
    path: PathBuf,
    rows: u64,
}

#[derive(Debug, Serialize)]
struct Access {
    socket_dir: PathBuf,
    port: u16,
    user: String,
    command: String,
}

pub(super) async fn run(output: &Output, args: ExtractArgs) -> Result<(), Failure> {
    let source = source(&args.dir)?;
    let manifest = source.manifest.as_ref();
    let pg_bin = args.pg_bin.clone().or_else(|| manifest.and_then(|known| known.pg_bin.clone()));
    let pg_bin = pg_bin.ok_or_else(|| Failure::Usage("--pg-bin: no manifest names the programs".into()))?;
    if args.rows == Rows::Divergent && !args.tables.is_empty() {
        check_xids(manifest)?;
    }
    let out: Vec<PathBuf> = args.tables.iter().map(|table| file(&args, table)).collect::<Result<_, _>>()?;
    let work = args.work.clone().unwrap_or_else(|| beside(&args.dir));
    let user = args.user.clone().or_else(|| manifest.and_then(|known| known.superuser.clone()));
    let user = user.unwrap_or_else(|| "postgres".to_owned());
    let server = Server::start(&source.data, &work, &pg_bin, &user, args.start_timeout).await?;
    let result = tokio::select! {
        result = serve(output, &args, &server, &source, &out) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    server.stop(args.keep_copy).await?;
    result
}

async fn serve(
    output: &Output,
    args: &ExtractArgs,
    server: &Server,
    source: &Source,
    out: &[PathBuf],
) -> Result<(), Failure> {
    if args.tables.is_empty() {
        let command = format!(
            "psql -h {} -p {} -U {} {}",
            server.socket_dir().display(),
            server.port(),
            server.user(),
            args.database
        );
        let access = Access {
            socket_dir: server.socket_dir().to_owned(),
            port: server.port(),
            user: server.user().to_owned(),
            command,
        };
        output.print(&access, |access, _| {
            format!("read-only, on a private socket, until interrupted (Ctrl-C):\n  {}\n", access.command)
        })?;
        return server.ended().await;
    }
    let xids = source.manifest.as_ref().map(|manifest| manifest.xids.as_slice()).unwrap_or_default();
    let mut files = Vec::new();
    for (table, path) in args.tables.iter().zip(out) {
        let condition = match args.rows {
            Rows::All => String::new(),
            Rows::Divergent => {
                let list: Vec<String> = xids.iter().map(ToString::to_string).collect();
                format!(" WHERE xmin::text = ANY ('{{{}}}'::text[])", list.join(","))
            }
        };
        let sql = format!(
            "COPY (SELECT * FROM {}{condition}) TO STDOUT (FORMAT csv, HEADER);\n",
            quoted_table(table)?
        );
        let csv =
            File::options().write(true).create_new(true).open(path).map_err(|error| at(path, &error))?;
        server.psql(&args.database, &sql, csv).await?;
        let count = format!("SELECT count(*) FROM {}{condition};\n", quoted_table(table)?);
        let rows = server.ask(&args.database, &count).await?;
        let rows = rows.trim().parse().map_err(|_| Failure::Refused(format!("not a count: {rows:?}")))?;
        files.push(TableFile { table: table.clone(), path: path.clone(), rows });
    }
    output.print(&Extracted { files }, |extracted, _| {
        extracted
            .files
            .iter()
            .map(|f| format!("{}: {} rows in {}\n", f.table, f.rows, f.path.display()))
            .collect()
    })
}

/// Looks at the folder: a salvage with a copy of the data, or a data directory.
fn source(dir: &Path) -> Result<Source, Failure> {
    let refuse = |what: String| Err(Failure::Usage(format!("--dir {}: {what}", dir.display())));
    let manifest_path = dir.join("manifest.json");
    let manifest: Option<Manifest> = match fs::read_to_string(&manifest_path) {
        Ok(text) => Some(
            serde_json::from_str(&text)
                .map_err(|error| Failure::Usage(format!("{}: {error}", manifest_path.display())))?,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(at(&manifest_path, &error)),
    };
    let data = if manifest.is_some() { dir.join("data") } else { dir.to_owned() };
    if !data.join("PG_VERSION").is_file() {
        return match &manifest {
            Some(known) => refuse(format!(
                "no data directory was kept ({}): its WAL alone holds no rows; restore the last base backup of before the cut and \
                 replay its pg_wal, or read it with pg_waldump",
                known.data_note
            )),
            None => {
                refuse("neither a salvage (no manifest.json) nor a data directory (no PG_VERSION)".into())
            }
        };
    }
    if data.join("postmaster.pid").exists() {
        return refuse("postmaster.pid is there: a server may be running on it, and it is left alone".into());
    }
    Ok(Source { data, manifest })
}

fn check_xids(manifest: Option<&Manifest>) -> Result<(), Failure> {
    match manifest {
        None => {
            Err(Failure::Usage("--rows divergent: no manifest names the transactions; use --rows all".into()))
        }
        Some(known) if known.xids.len() < known.xids_total => Err(Failure::Usage(format!(
            "--rows divergent: the manifest names {} of {} transactions; use --rows all",
            known.xids.len(),
            known.xids_total
        ))),
        Some(_) => Ok(()),
    }
}

/// `DIR.extract`, on the same file system, where a copy may share blocks.
fn beside(dir: &Path) -> PathBuf {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    dir.with_file_name(format!("{name}.extract"))
}

fn file(args: &ExtractArgs, table: &str) -> Result<PathBuf, Failure> {
    quoted_table(table)?;
    let path = args.out.join(format!("{}.{table}.csv", args.database));
    if path.exists() {
        return Err(Failure::Usage(format!("--out: {} is there already", path.display())));
    }
    Ok(path)
}

/// `schema.name`, each part quoted.
fn quoted_table(table: &str) -> Result<String, Failure> {
    let parts = table.split_once('.').filter(|(schema, name)| {
        !schema.is_empty() && !name.is_empty() && !table.contains(['/', '\0', '\n'])
    });
    let (schema, name) =
        parts.ok_or_else(|| Failure::Usage(format!("--table {table:?}: write it as schema.name")))?;
    let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    Ok(format!("{}.{}", quoted(schema), quoted(name)))
}

fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_a_server_may_run_on_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let said = |dir: &Path| source(dir).unwrap_err().to_string();
        assert!(said(dir.path()).contains("neither a salvage"));
        fs::write(dir.path().join("PG_VERSION"), "18\n").unwrap();
        assert!(source(dir.path()).is_ok());
        fs::write(dir.path().join("postmaster.pid"), "1\n").unwrap();
        assert!(said(dir.path()).contains("postmaster.pid"));
        fs::write(dir.path().join("manifest.json"), "{\"data_note\": \"no room\"}").unwrap();
        assert!(said(dir.path()).contains("no room"));
        fs::write(dir.path().join("manifest.json"), "{").unwrap();
        assert!(said(dir.path()).contains("manifest.json"));
    }

    #[test]
    fn tables_are_quoted_and_nonsense_is_refused() {
        assert_eq!(quoted_table("public.Or\"ders").unwrap(), "\"public\".\"Or\"\"ders\"");
        for table in ["orders", ".x", "x.", "a./etc/passwd"] {
            assert!(quoted_table(table).is_err(), "{table}");
        }
    }

    #[test]
    fn divergent_rows_need_every_transaction() {
        assert!(check_xids(None).is_err());
        assert!(check_xids(Some(&Manifest { xids: vec![1], xids_total: 2, ..Manifest::default() })).is_err());
        assert!(check_xids(Some(&Manifest { xids: vec![1], xids_total: 1, ..Manifest::default() })).is_ok());
    }
}
