//! `pg_hba.conf`: one marked block at the top, so that no earlier line of the user's can shut replication out. The same on
//! every version (include directives exist from 16 on only). Lines outside the block are left alone.

use std::{fs, io, path::Path};

use crate::{
    config::{Config, ROLE},
    durable,
};

const BEGIN: &str = "# BEGIN regent-agent: changes in this block are lost";
const END: &str = "# END regent-agent";

/// The block.
fn block(config: &Config) -> String {
    let mut lines = vec![BEGIN.to_owned()];
    lines.extend(config.hba_extra.iter().cloned());
    lines.push(format!("local all {} peer", config.superuser()));
    lines.push(format!("host replication {ROLE} all scram-sha-256"));
    lines.push(format!("host all {ROLE} all scram-sha-256"));
    lines.push(END.to_owned());
    lines.join("\n") + "\n"
}

/// `text` with the block at its top, in place of an older one.
pub fn with_block(config: &Config, text: &str) -> String {
    let mut rest = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            _ => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    block(config) + &rest
}

/// Writes it. Whether anything changed.
pub fn write(config: &Config, data_dir: &Path) -> io::Result<bool> {
    let path = data_dir.join("pg_hba.conf");
    let text = fs::read_to_string(&path)?;
    durable::replace_if_changed(&path, with_block(config, &text).as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_replaced_and_the_users_lines_stay() {
        let mut config = crate::config::tests::example();
        let once = with_block(&config, "host all all 10.0.0.0/8 md5\n");
        assert_eq!(with_block(&config, &once), once);
        config.hba_extra = vec!["host app app all scram-sha-256".into()];
        let twice = with_block(&config, &once);
        assert!(twice.contains("host app app all") && twice.ends_with("host all all 10.0.0.0/8 md5\n"));
        assert_eq!(twice.matches(BEGIN).count(), 1);
    }
}
