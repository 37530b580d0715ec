//! PostgreSQL's parameters on one member: which value goes into its file now.
//!
//! Only the parameters that a standby needs as high as its primary are decided about ([`STANDBY_NEEDS`]); every other one is
//! written as it is. What this data directory's primary runs with is in `pg_control`: of the own server while it is primary, as
//! replayed on a standby.
//!
//! Invariants: a standby never starts with less than its primary runs with (it would not come up); a primary takes more than it
//! runs with only when an operator restarts it (its standbys may have less, and their replay would stop).

use std::collections::BTreeMap;

use regent_types::STANDBY_NEEDS;

/// What a file would say and what is in force, by name.
pub type Numbers = BTreeMap<String, u64>;

/// What goes into the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// Lines that differ from what was asked for.
    pub lines: Numbers,
    /// Raised values that wait for an operator's restart of this primary.
    pub held_back: Numbers,
    /// Lowered values that wait until the primary runs with them.
    pub kept_up: Numbers,
}

/// Decides. `wanted`: what the files say, this one included; `in_force`: `pg_control`'s.
pub fn levels(standby: bool, restarting: bool, wanted: &Numbers, in_force: &Numbers) -> Levels {
    let mut levels = Levels::default();
    for name in STANDBY_NEEDS {
        let (Some(wanted), Some(in_force)) = (wanted.get(name).copied(), in_force.get(name).copied()) else {
            continue;
        };
        if standby && wanted < in_force {
            levels.lines.insert(name.to_owned(), in_force);
            levels.kept_up.insert(name.to_owned(), wanted);
        } else if !standby && !restarting && wanted > in_force {
            levels.lines.insert(name.to_owned(), in_force);
            levels.held_back.insert(name.to_owned(), wanted);
        }
    }
    levels
}

/// The parameters of `pg_controldata`'s output (`LC_ALL=C`).
pub fn of_control_data(text: &str) -> Numbers {
    let named = text.lines().filter_map(|line| {
        let (label, value) = line.split_once(':')?;
        let name = match label.strip_suffix(" setting")? {
            "max_prepared_xacts" => "max_prepared_transactions",
            "max_locks_per_xact" => "max_locks_per_transaction",
            name => name,
        };
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    named.filter(|(name, _)| STANDBY_NEEDS.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(pairs: &[(&str, u64)]) -> Numbers {
        pairs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn a_raised_value_reaches_a_primary_by_an_operators_restart_only() {
        let (wanted, in_force) = (numbers(&[("max_connections", 200)]), numbers(&[("max_connections", 100)]));
        let held = levels(false, false, &wanted, &in_force);
        assert_eq!((held.lines, held.held_back), (in_force.clone(), wanted.clone()));
        assert_eq!(levels(false, true, &wanted, &in_force), Levels::default());
        assert_eq!(levels(true, false, &wanted, &in_force), Levels::default(), "a standby takes it first");
    }

    #[test]
    fn a_lowered_value_reaches_a_standby_after_its_primary() {
        let (wanted, in_force) = (numbers(&[("max_connections", 50)]), numbers(&[("max_connections", 100)]));
        for restarting in [false, true] {
            let kept = levels(true, restarting, &wanted, &in_force);
            assert_eq!((kept.lines, kept.kept_up), (in_force.clone(), wanted.clone()));
            assert_eq!(levels(false, restarting, &wanted, &in_force), Levels::default());
        }
        assert_eq!(levels(true, false, &wanted, &wanted), Levels::default());
        assert_eq!(levels(true, false, &wanted, &Numbers::new()), Levels::default(), "nothing known");
    }

    #[test]
    fn control_data_is_read() {
        let text = "wal_level setting:                    replica\nmax_connections setting:              100\n\
                    max_prepared_xacts setting:           3\nmax_locks_per_xact setting:           64\nport: 1\n";
        let read = of_control_data(text);
        let expected =
            [("max_connections", 100), ("max_prepared_transactions", 3), ("max_locks_per_transaction", 64)];
        assert_eq!(read, numbers(&expected));
    }
}
