//! Arguments of `regentctl salvage`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use regent_types::{ClusterName, MemberName};

#[derive(Debug, Subcommand)]
pub(crate) enum SalvageCommand {
    /// List the newest salvages of every member, as their agents report them.
    #[command(after_help = "Examples:\n  regentctl salvage list gravl\n  \
                            regentctl salvage list gravl -o json | jq -r '.salvages[].folder'")]
    List {
        /// Which cluster.
        cluster: ClusterName,
    },
    /// Show one salvage: range, transactions, relations, and what can be read from it.
    #[command(after_help = "Examples:\n  regentctl salvage show gravl eu-north-1\n  \
                            regentctl salvage show gravl eu-north-1 --folder 4-20261122T100000Z")]
    Show {
        /// Which cluster.
        cluster: ClusterName,
        /// On whose host it is.
        member: MemberName,
        /// The folder, or the end of its path [default: the member's newest].
        #[arg(long)]
        folder: Option<String>,
    },
    /// Read rows from a salvage, on the host where it is: a copy is started read-only on a private socket.
    #[command(after_help = EXTRACT)]
    Extract(ExtractArgs),
}

const EXTRACT: &str = "\
Examples:
  regentctl salvage extract --dir /var/lib/regent/salvage/4-20261122T100000Z
  regentctl salvage extract --dir /var/lib/regent/salvage/4-20261122T100000Z \\
    --database app --table public.orders --out /tmp/rows

Asks no coordinator. Run it on the member's host as the user that owns the files (PostgreSQL refuses root).
Needs a salvage made with salvage_keep = \"directory\", or a data directory that a rejoin has kept aside
(data_dir.regent-kept-*). The folder itself is only read: a copy is made beside it, recovered as a standby
(so nobody can write), listens on a socket in a folder of its own and never on the network, and is removed at
the end. Without --table it runs until it is interrupted, and prints how to connect.
With --rows divergent (the default) a table's rows are those that a transaction after the switch has inserted
or changed. Rows that were deleted cannot be seen like that: compare --rows all with the primary.";

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    /// The salvage's folder, or a data directory that was kept aside.
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Folder of postgres, pg_ctl and psql [default: as the salvage's manifest names it].
    #[arg(long, value_name = "FOLDER")]
    pub pg_bin: Option<PathBuf>,
    /// Folder for the copy, must not exist [default: DIR with `.extract` at its end].
    #[arg(long, value_name = "FOLDER")]
    pub work: Option<PathBuf>,
    /// Leave the copy when the command ends.
    #[arg(long)]
    pub keep_copy: bool,
    /// Database of the tables.
    #[arg(long, default_value = "postgres")]
    pub database: String,
    /// Write this table's rows as CSV and end; repeat it for several.
    #[arg(long = "table", value_name = "SCHEMA.NAME")]
    pub tables: Vec<String>,
    /// Which rows.
    #[arg(long, value_enum, default_value_t = Rows::Divergent)]
    pub rows: Rows,
    /// Folder for the rows, one file a table; files that are there are not overwritten.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub out: PathBuf,
    /// Database user [default: as the salvage's manifest names it, else postgres].
    #[arg(long)]
    pub user: Option<String>,
    /// How long the copy's recovery may take.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub start_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rows {
    /// Inserted or changed by a divergent transaction.
    Divergent,
    /// All of them.
    All,
}
