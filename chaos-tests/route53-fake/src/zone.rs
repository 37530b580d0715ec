//! The records of one hosted zone and the rules of changing them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// One resource record set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Lower case, with the last dot.
    pub name: String,
    /// `A`, `TXT`, ...
    pub kind: String,
    /// Seconds; none for an alias.
    pub ttl_s: Option<u64>,
    /// As given.
    pub values: Vec<String>,
    /// For other routing policies than "simple".
    pub set_identifier: Option<String>,
    /// Routing policy "weighted".
    pub weight: Option<u64>,
    /// Hosted zone, name, evaluate target health.
    pub alias: Option<(String, String, bool)>,
    /// Health check.
    pub health_check: Option<String>,
}

impl Record {
    /// A simple record.
    pub fn new(name: &str, kind: &str, ttl_s: u64, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Self { name: canonical(name), kind: kind.to_owned(), ttl_s: Some(ttl_s), values, ..Self::default() }
    }

    /// The same with routing policy "weighted".
    pub fn weighted(mut self, set_identifier: &str, weight: u64) -> Self {
        (self.set_identifier, self.weight) = (Some(set_identifier.to_owned()), Some(weight));
        self
    }

    fn key(&self) -> Key {
        (reversed(&self.name), self.kind.clone(), self.set_identifier.clone())
    }

    /// As messages name it.
    fn label(&self) -> String {
        match &self.set_identifier {
            Some(id) => format!("[name='{}', type='{}', set-identifier='{id}']", self.name, self.kind),
            None => format!("[name='{}', type='{}']", self.name, self.kind),
        }
    }
}

/// FORMAT: names are case-insensitive, kept in lower case, and fully qualified with or without the last dot.
pub fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.ends_with('.') { name } else { format!("{name}.") }
}

/// LRRS, "Sort order": by name with the labels reversed (`com.example.www.`), then by type.
fn reversed(name: &str) -> String {
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').rev().collect();
    format!("{}.", labels.join("."))
}

type Key = (String, String, Option<String>);

/// CRRS, "Create, Delete, and Upsert".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Refused when there is one.
    Create,
    /// Refused unless everything is the same.
    Delete,
    /// Either.
    Upsert,
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub action: Action,
    /// Which.
    pub record: Record,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// CRRS, "InvalidChangeBatch", with its messages.
    Batch(Vec<String>),
    /// CRRS, "InvalidInput".
    Input(String),
}

/// The records of one hosted zone.
#[derive(Debug, Clone)]
pub struct Zone {
    apex: String,
    records: BTreeMap<Key, Record>,
}

impl Zone {
    /// With nothing but its own NS and SOA, as a new zone has.
    pub fn new(apex: &str) -> Self {
        let apex = canonical(apex);
        let mut zone = Self { apex: apex.clone(), records: BTreeMap::new() };
        let soa = "ns-1.awsdns-00.com. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400";
        for record in [
            Record::new(&apex, "NS", 172_800, &["ns-1.awsdns-00.com."]),
            Record::new(&apex, "SOA", 900, &[soa]),
        ] {
            zone.records.insert(record.key(), record);
        }
        zone
    }

    /// Puts a record there by hand, past every rule.
    pub fn put(&mut self, record: Record) {
        self.records.insert(record.key(), record);
    }

    /// Every record of a name.
    pub fn of(&self, name: &str) -> Vec<Record> {
        let name = canonical(name);
        self.records.values().filter(|record| record.name == name).cloned().collect()
    }

    /// LRRS: at most `max` from a position on, and the position after them.
    pub fn list(
        &self,
        start: (Option<&str>, Option<&str>, Option<&str>),
        max: usize,
    ) -> (Vec<Record>, Option<Record>) {
        let (name, kind, identifier) = start;
        let from: Key = (
            name.map_or(String::new(), |name| reversed(&canonical(name))),
            kind.unwrap_or_default().to_owned(),
            identifier.map(str::to_owned),
        );
        let mut left = self.records.range(from..).map(|(_, record)| record.clone());
        let page: Vec<Record> = left.by_ref().take(max).collect();
        (page, left.next())
    }

    /// CRRS, "Change Batches and Transactional Changes": all of them or none.
    pub fn change(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        for change in changes {
            check_input(&change.record)?;
        }
        if changes.is_empty() {
            return Err(Refusal::Input(
                "1 validation error detected: Changes must have length at least 1".into(),
            ));
        }
        // QUOTAS: 1,000 ResourceRecord elements and 32,000 characters of values; an UPSERT counts twice.
        let times = |change: &Change| if change.action == Action::Upsert { 2 } else { 1 };
        let elements: usize = changes.iter().map(|c| c.record.values.len() * times(c)).sum();
        let characters: usize =
            changes.iter().map(|c| c.record.values.iter().map(String::len).sum::<usize>() * times(c)).sum();
        if elements > 1000 || characters > 32_000 {
            return Err(Refusal::Batch(vec!["Number of records or characters limit exceeded".into()]));
        }
        let mut after = self.records.clone();
        let mut problems = Vec::new();
        let mut deleted = BTreeSet::new();
        for Change { action, record } in changes {
            let (key, label) = (record.key(), record.label());
            if !record.name.ends_with(&format!(".{}", self.apex)) && record.name != self.apex {
                problems.push(format!(
                    "RRSet with DNS name {} is not permitted in zone {}",
                    record.name, self.apex
                ));
                continue;
            }
            match action {
                // CRRS: "To delete a resource record set, you must specify all the same values that you specified when you
                // created it"; and "If you try to delete the same resource record set more than once in a single change
                // batch, Route 53 returns an InvalidChangeBatch error".
                Action::Delete if !deleted.insert(key.clone()) => {
                    problems.push(format!("Tried to delete resource record set {label} more than once"));
                }
                Action::Delete => match after.get(&key) {
                    None => problems
                        .push(format!("Tried to delete resource record set {label} but it was not found")),
                    Some(found) if !same(found, record) => problems.push(format!(
                        "Tried to delete resource record set {label} but the values provided do not match the current values"
                    )),
                    Some(_) => {
                        after.remove(&key);
                    }
                },
                Action::Create if after.contains_key(&key) => {
                    problems.push(format!("Tried to create resource record set {label} but it already exists"));
                }
                Action::Create | Action::Upsert => {
                    after.insert(key, record.clone());
                }
            }
        }
        if problems.is_empty() {
            problems = conflicts(&after);
        }
        if !problems.is_empty() {
            return Err(Refusal::Batch(problems));
        }
        self.records = after;
        Ok(())
    }
}

/// Values in any order; everything else to the letter.
fn same(found: &Record, given: &Record) -> bool {
    let sorted = |record: &Record| {
        let mut values = record.values.clone();
        values.sort();
        Record { values, ..record.clone() }
    };
    sorted(found) == sorted(given)
}

/// What may not stand side by side.
fn conflicts(records: &BTreeMap<Key, Record>) -> Vec<String> {
    let mut by_name: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records.values() {
        by_name.entry(&record.name).or_default().push(record);
    }
    let mut problems = Vec::new();
    for (name, records) in by_name {
        // TYPES, "CNAME record type": no other record of a name that has a CNAME.
        if records.iter().any(|r| r.kind == "CNAME") && records.iter().any(|r| r.kind != "CNAME") {
            problems.push(format!(
                "RRSet of type CNAME with DNS name {name} is not permitted as it conflicts with other records with the same DNS name"
            ));
        }
        // RRS, "SetIdentifier" and "Weight": no simple record beside others of the same name and type.
        for record in records.iter().filter(|record| record.set_identifier.is_some()) {
            let simple = |other: &&&Record| other.kind == record.kind && other.set_identifier.is_none();
            if records.iter().any(|other| simple(&other)) {
                problems.push(format!(
                    "RRSet with DNS name {name}, type {}, SetIdentifier {} cannot be created because a non-weighted RRSet with the same name and type exists",
                    record.kind,
                    record.set_identifier.as_deref().unwrap_or_default()
                ));
            }
        }
    }
    problems
}

/// RRS, lengths and ranges; TYPES, the values of each type.
fn check_input(record: &Record) -> Result<(), Refusal> {
    let input = |what: String| Err(Refusal::Input(what));
    let batch = |what: String| Err(Refusal::Batch(vec![what]));
    if record.name.len() > 1024 {
        return input("Name: length at most 1024".into());
    }
    if !["A", "AAAA", "CNAME", "TXT", "MX", "NS", "SRV", "CAA"].contains(&record.kind.as_str()) {
        return input(format!("Type: {:?} is not an RRType", record.kind));
    }
    if record.ttl_s.is_some_and(|ttl| ttl > 2_147_483_647) {
        return input("TTL: at most 2147483647".into());
    }
    if record.weight.is_some_and(|weight| weight > 255) {
        return input("Weight: 0 to 255".into());
    }
    if record.set_identifier.as_ref().is_some_and(|id| !(1..=128).contains(&id.len())) {
        return input("SetIdentifier: length 1 to 128".into());
    }
    if record.weight.is_some() != record.set_identifier.is_some() {
        return input("Weight and SetIdentifier belong together".into());
    }
    match &record.alias {
        // RRS, "TTL" and "ResourceRecords": omitted for an alias.
        Some(_) if record.ttl_s.is_some() || !record.values.is_empty() => {
            return input("AliasTarget: TTL and ResourceRecords must be omitted".into());
        }
        Some(_) => return Ok(()),
        None if record.ttl_s.is_none() || record.values.is_empty() => {
            return input("TTL and at least one ResourceRecord are required".into());
        }
        None => {}
    }
    let distinct: BTreeSet<&String> = record.values.iter().collect();
    if distinct.len() != record.values.len() {
        return batch(format!("Duplicate Resource Record: {:?}", record.values));
    }
    for value in &record.values {
        let good = match record.kind.as_str() {
            "A" => value.parse::<Ipv4Addr>().is_ok(),
            "AAAA" => value.parse::<Ipv6Addr>().is_ok(),
            "TXT" => is_text(value),
            _ => !value.is_empty(),
        };
        if !good || value.len() > 4000 {
            return batch(format!(
                "Invalid Resource Record: FATAL problem: InvalidValue encountered with '{value}'"
            ));
        }
    }
    if record.kind == "CNAME" && record.values.len() != 1 {
        return batch("Invalid Resource Record: FATAL problem: more than one CNAME".into());
    }
    Ok(())
}

/// TYPES, "TXT record type": one or more strings in double quotes, each of up to 255 characters.
fn is_text(value: &str) -> bool {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    inner.split("\" \"").all(|part| part.len() <= 255 && !part.contains('"'))
}
