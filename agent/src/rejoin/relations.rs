//! Which relations divergent WAL touches: counted by file from `pg_waldump`'s lines, named by the surviving primary where it
//! still has that file. A name is best effort: a table that was rewritten since (VACUUM FULL, TRUNCATE) keeps its numbers.

use std::{collections::BTreeMap, time::Duration};

use regent_types::{SalvagedRelation, Upstream};

use crate::{
    app::App,
    postgres::connect::{PgError, remote_database},
};

const LIMIT: Duration = Duration::from_secs(5);

/// A relation's file: tablespace, database, file number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Oid of the tablespace.
    pub tablespace: u32,
    /// Oid of the database; 0 for shared relations.
    pub database: u32,
    /// `relfilenode`.
    pub number: u32,
}

/// What was done to one relation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
}

/// By file.
pub type Touched = BTreeMap<File, Changes>;

/// Takes in one line of `pg_waldump`.
pub fn count(touched: &mut Touched, line: &str) {
    if !line.starts_with("rmgr: Heap") {
        return;
    }
    let Some((_, description)) = line.split_once("desc: ") else { return };
    let Some(file) = description.split_once("blkref #0: rel ").and_then(|(_, text)| file(text)) else {
        return;
    };
    let verb = description.split([' ', '+']).next().unwrap_or_default();
    let change = |touched: &mut Touched, edit: fn(&mut Changes, u64), rows| {
        edit(touched.entry(file).or_default(), rows);
    };
    match verb {
        "INSERT" => change(touched, |changes, rows| changes.inserts += rows, 1),
        "MULTI_INSERT" => change(touched, |changes, rows| changes.inserts += rows, rows(description)),
        "UPDATE" | "HOT_UPDATE" => change(touched, |changes, rows| changes.updates += rows, 1),
        "DELETE" => change(touched, |changes, rows| changes.deletes += rows, 1),
        _ => {}
    }
}

/// `1663/5/16385 ...`
fn file(text: &str) -> Option<File> {
    let mut parts = text.split([' ', ',']).next()?.split('/').map(|number| number.parse().ok());
    Some(File { tablespace: parts.next()??, database: parts.next()??, number: parts.next()?? })
}

/// Of a MULTI_INSERT: `ntuples: 5` from 16 on, `5 tuples` before; at least one.
fn rows(description: &str) -> u64 {
    let after = description.split_once("ntuples: ").map(|(_, text)| text);
    let before = description.split_once(" tuples").and_then(|(text, _)| text.rsplit(' ').next());
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    after.or(before).and_then(|text| digits(text).parse().ok()).unwrap_or(1)
}

/// All of them with names, most changes first.
pub async fn named(app: &App, upstream: &Upstream, touched: &Touched) -> Vec<SalvagedRelation> {
    let names = match tokio::time::timeout(6 * LIMIT, ask(app, upstream, touched)).await {
        Ok(Ok(names)) => names,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the upstream could not name the salvaged relations");
            BTreeMap::new()
        }
        Err(_) => BTreeMap::new(),
    };
    let mut relations: Vec<SalvagedRelation> = touched
        .iter()
        .map(|(file, changes)| SalvagedRelation {
            name: names
                .get(file)
                .cloned()
                .unwrap_or_else(|| format!("{}/{}/{}", file.database, file.tablespace, file.number)),
            inserts: changes.inserts,
            updates: changes.updates,
            deletes: changes.deletes,
        })
        .collect();
    let all = |relation: &SalvagedRelation| relation.inserts + relation.updates + relation.deletes;
    relations.sort_by(|a, b| all(b).cmp(&all(a)).then_with(|| a.name.cmp(&b.name)));
    relations
}

async fn ask(app: &App, upstream: &Upstream, touched: &Touched) -> Result<BTreeMap<File, String>, PgError> {
    let mut names = BTreeMap::new();
    let server = remote_database(&app.config, &upstream.host, upstream.port, "postgres", LIMIT).await?;
    let databases = server
        .rows("list databases", "SELECT oid, datname FROM pg_database WHERE datallowconn", LIMIT)
        .await?;
    drop(server);
    for row in &databases {
        let (Some(oid), Some(database)) = (row.parse::<u32>(0), row.text(1)) else { continue };
        let files: Vec<File> = touched.keys().filter(|file| file.database == oid).copied().collect();
        if files.is_empty() {
            continue;
        }
        // One database that lets nobody in must not leave the others without names.
        let Ok(connection) =
            remote_database(&app.config, &upstream.host, upstream.port, database, LIMIT).await
        else {
            continue;
        };
        for file in files {
            // The default tablespace of a database is 0 to pg_filenode_relation.
            let sql = format!(
                "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = coalesce(pg_filenode_relation(
                   (SELECT CASE WHEN dattablespace = {space} THEN 0 ELSE {space} END FROM pg_database
                    WHERE datname = current_database()), {number}))",
                space = file.tablespace,
                number = file.number
            );
            if let Ok(Some(row)) = connection.row("name a relation", &sql, LIMIT).await
                && let Some(name) = row.text(0)
            {
                names.insert(file, format!("{database}.{name}"));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_file_in_the_words_of_every_version() {
        let mut touched = Touched::new();
        let head = "len (rec/tot):     59/    59, tx:        735, lsn: 0/015314B8, prev 0/01531480, desc:";
        for line in [
            format!("rmgr: Heap        {head} INSERT off: 1, flags: 0x08, blkref #0: rel 1663/5/16385 blk 0"),
            format!(
                "rmgr: Heap        {head} INSERT+INIT off 1 flags 0x00, blkref #0: rel 1663/5/16385 blk 0"
            ),
            format!(
                "rmgr: Heap        {head} HOT_UPDATE old_xmax: 735, blkref #0: rel 1663/5/16385 blk 0 FPW"
            ),
            format!(
                "rmgr: Heap        {head} DELETE off 3 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16390 blk 0"
            ),
            format!(
                "rmgr: Heap2       {head} MULTI_INSERT+INIT ntuples: 7, flags: 0x02, blkref #0: rel 1663/5/16390 blk 0"
            ),
            format!(
                "rmgr: Heap2       {head} MULTI_INSERT 3 tuples flags 0x02, blkref #0: rel 1663/5/16390 blk 0"
            ),
            format!(
                "rmgr: Heap2       {head} PRUNE snapshotConflictHorizon: 1, blkref #0: rel 1663/5/16390 blk 0"
            ),
            format!("rmgr: Btree       {head} INSERT_LEAF off: 1, blkref #0: rel 1663/5/16391 blk 1"),
            format!("rmgr: Heap        {head} INSERT off: 1, blkref #0: rel nonsense"),
        ] {
            count(&mut touched, &line);
        }
        let file = |number| File { tablespace: 1663, database: 5, number };
        assert_eq!(touched.len(), 2);
        assert_eq!(touched[&file(16385)], Changes { inserts: 2, updates: 1, deletes: 0 });
        assert_eq!(touched[&file(16390)], Changes { inserts: 10, updates: 0, deletes: 1 });
    }
}
