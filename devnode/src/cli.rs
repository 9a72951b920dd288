//! The command line: what a launcher passes to Meilisearch is accepted here too.

use std::path::PathBuf;

use clap::Parser;

/// Options of the node. Each can also be given by Meilisearch's environment variable.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "miroir-devnode",
    version,
    about = "A development node that speaks part of Meilisearch's HTTP API",
    long_about = "A development node: one process that speaks the part of Meilisearch's HTTP API that Miroir uses, \
                  on Meilisearch's own engine (the crate milli-core). It lets Miroir's demo and tests run on a \
                  machine without a Meilisearch binary.\n\n\
                  It is NOT Meilisearch and NOT for production: it has no chat, webhooks, network or upgrades, \
                  dumps that only it can read, no dictionaries for Chinese, Japanese, Korean, Thai, Khmer and German segmentation, \
                  its engine is that of Meilisearch 1.15, and its database can be read by nothing else. \
                  Wherever a real `meilisearch` binary is at hand, use that."
)]
pub struct Options {
    /// Folder of the database; created if it does not exist.
    #[arg(long, env = "MEILI_DB_PATH", default_value = "data.ms")]
    pub db_path: PathBuf,

    /// Address to listen on, HOST:PORT. Port 0 takes a free port; the address taken is written to stderr.
    #[arg(long, env = "MEILI_HTTP_ADDR", default_value = "localhost:7700")]
    pub http_addr: String,

    /// The master key. Without one, every route is open and there are no API keys.
    #[arg(long, env = "MEILI_MASTER_KEY", hide_env_values = true)]
    pub master_key: Option<String>,

    /// `production` requires a master key of at least 16 bytes.
    #[arg(long, env = "MEILI_ENV", default_value = "development", value_parser = ["development", "production"])]
    pub env: String,

    /// Accepted and ignored: this node never sends analytics.
    #[arg(long, env = "MEILI_NO_ANALYTICS", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub no_analytics: Option<String>,

    /// Level of the log on stderr: OFF, ERROR, WARN, INFO, DEBUG or TRACE.
    #[arg(long, env = "MEILI_LOG_LEVEL", default_value = "INFO")]
    pub log_level: String,

    /// Largest request body accepted, such as `100MB` or a number of bytes.
    #[arg(long, env = "MEILI_HTTP_PAYLOAD_SIZE_LIMIT", default_value = "100 MB", value_parser = parse_size)]
    pub http_payload_size_limit: u64,

    /// Folder of dumps.
    #[arg(long, env = "MEILI_DUMP_DIR", default_value = "dumps")]
    pub dump_dir: PathBuf,

    /// Folder of snapshots.
    #[arg(long, env = "MEILI_SNAPSHOT_DIR", default_value = "snapshots")]
    pub snapshot_dir: PathBuf,

    /// A dump of this program to start from; there must be no database yet.
    #[arg(long, env = "MEILI_IMPORT_DUMP", conflicts_with = "import_snapshot")]
    pub import_dump: Option<PathBuf>,

    /// A snapshot of this program to start from; there must be no database yet.
    #[arg(long, env = "MEILI_IMPORT_SNAPSHOT")]
    pub import_snapshot: Option<PathBuf>,

    /// Start without the dump if the file does not exist.
    #[arg(long, env = "MEILI_IGNORE_MISSING_DUMP", requires = "import_dump")]
    pub ignore_missing_dump: bool,

    /// Start without importing the dump if there is a database already.
    #[arg(long, env = "MEILI_IGNORE_DUMP_IF_DB_EXISTS", requires = "import_dump")]
    pub ignore_dump_if_db_exists: bool,

    /// Start without the snapshot if the file does not exist.
    #[arg(long, env = "MEILI_IGNORE_MISSING_SNAPSHOT", requires = "import_snapshot")]
    pub ignore_missing_snapshot: bool,

    /// Start without importing the snapshot if there is a database already.
    #[arg(long, env = "MEILI_IGNORE_SNAPSHOT_IF_DB_EXISTS", requires = "import_snapshot")]
    pub ignore_snapshot_if_db_exists: bool,

    /// The most document additions that this node commits in one batch.
    #[arg(long, env = "MEILI_EXPERIMENTAL_MAX_NUMBER_OF_BATCHED_TASKS", default_value_t = 1000)]
    pub experimental_max_number_of_batched_tasks: usize,
}

impl Options {
    /// Reads the command line. Drops the experimental flags of Meilisearch that have no meaning here.
    pub fn read() -> Self {
        Self::parse_from(without_ignored(std::env::args()))
    }
}

/// Drops `--experimental-x` flags (with `=value`, or with a value that does not look like a flag).
fn without_ignored(args: impl IntoIterator<Item = String>) -> Vec<String> {
    const KNOWN: &str = "--experimental-max-number-of-batched-tasks";
    let mut kept = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        if arg.starts_with("--experimental-") && !arg.starts_with(KNOWN) {
            if !arg.contains('=') {
                args.next_if(|next| !next.starts_with('-'));
            }
        } else {
            kept.push(arg);
        }
    }
    kept
}

/// Parses a number of bytes with an optional decimal or binary unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is not a size; write for example `100 MB`"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        other => {
            return Err(format!("`{other}` is not a unit of size; use B, kB, MB, GB, KiB, MiB or GiB"));
        }
    };
    Ok((number * factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_size("100 MB"), Ok(100_000_000));
        assert_eq!(parse_size("2MiB"), Ok(2 << 20));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_size("many").is_err());
    }

    #[test]
    fn unknown_experimental_flags_are_dropped_with_their_values() {
        let args = ["x", "--experimental-a", "5", "--experimental-b", "--db-path", "d", "--experimental-c=1"];
        assert_eq!(without_ignored(args.map(String::from)), ["x", "--db-path", "d"]);
    }
}
