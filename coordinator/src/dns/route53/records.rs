//! What is found in the zone and what is wanted: the change batch between them. Pure.
//!
//! The compare-and-swap: every batch deletes **all** records of the group that were found, the companion TXT record
//! included, exactly as they were found, and creates the wanted ones. Route 53 makes all changes of a batch or none,
//! and refuses a DELETE that does not match and a CREATE of what exists. Invariant: the companion record, which holds
//! the epoch, is deleted or created in every batch, even where its value or the address stays the same.
//!
//! The interleaving behind it: leader L1 (epoch 5) finds TXT 5 beside a wrong address that happens to be the one of
//! epoch 6, and leaves TXT alone; L2 publishes 6, changing only the TXT record; L1's late batch then deletes the "wrong"
//! address and creates the one of epoch 5 beside TXT 6. `a_batch_always_swaps_the_companion` catches it.

use std::{fmt::Write as _, net::IpAddr};

use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use regent_core::DnsRecord;
use regent_types::{Epoch, MemberName};

use crate::{
    config::Weighted,
    dns::{DnsError, Observed},
};

const EPOCH_KEY: &str = "regent-epoch=";

/// What a name should be.
pub struct Wanted<'w> {
    /// Without the last dot.
    pub name: &'w str,
    /// As replicated.
    pub record: &'w DnsRecord,
    /// Of both records, seconds.
    pub ttl_s: u32,
    /// Routing policy.
    pub weighted: Option<&'w Weighted>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// Nothing.
    InPlace,
    /// This, in one batch.
    Swap(ChangeBatch),
}

/// The same name, however it is written: Route 53 returns lower case, a final dot, and unusual characters as octal
/// escapes (Developer Guide, "DNS domain name format").
pub fn same_name(given: &str, name: &str) -> bool {
    let plain = |text: &str| {
        let mut out = String::new();
        let bytes = text.trim_end_matches('.').as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let escaped = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
            match escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
                Some(code) if bytes[at] == b'\\' => {
                    out.push(char::from(code).to_ascii_lowercase());
                    at += 4;
                }
                _ => {
                    out.push(char::from(bytes[at]).to_ascii_lowercase());
                    at += 1;
                }
            }
        }
        out
    };
    plain(given) == plain(name)
}

fn values(set: &ResourceRecordSet) -> impl Iterator<Item = &str> {
    set.resource_records().iter().map(ResourceRecord::value)
}

/// Epoch and member in a companion record's values.
fn companion(set: &ResourceRecordSet) -> Option<(Epoch, Option<MemberName>)> {
    let read = |value: &str| {
        let text = value.trim_matches('"').strip_prefix(EPOCH_KEY)?.to_owned();
        let (epoch, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let member = rest.split(' ').find_map(|word| word.strip_prefix("member="));
        Some((Epoch(epoch.parse().ok()?), member.and_then(|name| MemberName::new(name).ok())))
    };
    values(set).filter_map(read).max_by_key(|(epoch, _)| *epoch)
}

/// The records that Regent owns among all of the name's: of its types and its set identifier. In front of weighted
/// records, simple ones are taken over too: Route 53 refuses both side by side.
fn owned<'f>(found: &'f [ResourceRecordSet], weighted: Option<&Weighted>) -> Vec<&'f ResourceRecordSet> {
    let identifier = weighted.map(|weighted| weighted.set_identifier.as_str());
    let ours = |set: &&ResourceRecordSet| {
        matches!(set.r#type(), RrType::A | RrType::Aaaa | RrType::Cname | RrType::Txt)
            && (set.set_identifier().is_none() || set.set_identifier() == identifier)
    };
    found.iter().filter(ours).collect()
}

/// What the zone shows.
pub fn observed(found: &[ResourceRecordSet], weighted: Option<&Weighted>) -> Option<Observed> {
    let owned = owned(found, weighted);
    let address = owned
        .iter()
        .filter(|set| matches!(set.r#type(), RrType::A | RrType::Aaaa))
        .flat_map(|set| values(set))
        .find_map(|value| value.parse::<IpAddr>().ok())?;
    let said = owned.iter().filter(|set| *set.r#type() == RrType::Txt).find_map(|set| companion(set));
    let (epoch, member) = said.map_or((None, None), |(epoch, member)| (Some(epoch), member));
    Some(Observed { address, epoch, member })
}

impl Wanted<'_> {
    /// Compares.
    pub fn plan(&self, found: &[ResourceRecordSet]) -> Result<Plan, DnsError> {
        if self.weighted.is_none() {
            self.refuse_others(found)?;
        }
        let owned = owned(found, self.weighted);
        let texts = || owned.iter().filter(|set| *set.r#type() == RrType::Txt);
        let newest = texts().filter_map(|set| companion(set)).map(|(epoch, _)| epoch).max();
        if let Some(found) = newest.filter(|found| *found > self.record.epoch) {
            return Err(DnsError::Superseded { found, wanted: self.record.epoch });
        }
        // Values of others in the same TXT set stay: a name has one set of each type.
        let foreign = |value: &&str| !value.trim_matches('"').starts_with(EPOCH_KEY);
        let kept: Vec<&str> = texts().flat_map(|set| values(set)).filter(foreign).collect();
        let wanted = [self.address()?, self.text(&kept)?];
        let in_place = owned.len() == wanted.len()
            && wanted.iter().all(|wanted| owned.iter().any(|found| equal(found, wanted)));
        if in_place {
            return Ok(Plan::InPlace);
        }
        let deletes = owned.into_iter().map(|set| (ChangeAction::Delete, as_found(set)));
        let creates = wanted.into_iter().map(|set| (ChangeAction::Create, set));
        let changes = deletes
            .chain(creates)
            .map(|(action, set)| Change::builder().action(action).resource_record_set(set).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(built)?;
        let comment = format!("regent: epoch {} member {}", self.record.epoch, self.record.member);
        let batch = ChangeBatch::builder().comment(comment).set_changes(Some(changes)).build();
        Ok(Plan::Swap(batch.map_err(built)?))
    }

    /// A simple record beside records with set identifiers: Route 53 refuses it, and deleting what others weigh by hand
    /// would be a decision that nobody asked for.
    fn refuse_others(&self, found: &[ResourceRecordSet]) -> Result<(), DnsError> {
        let mut others = String::new();
        for set in found.iter().filter(|set| set.set_identifier().is_some()) {
            let _ = write!(others, " {} {:?}", set.r#type(), set.set_identifier().unwrap_or_default());
        }
        if others.is_empty() {
            return Ok(());
        }
        Err(DnsError::Failed(format!(
            "{} has records with set identifiers ({}), but this provider's set_identifier is not set: set it, or remove \
             those records",
            self.name,
            others.trim()
        )))
    }

    fn set(&self, kind: RrType, values: Vec<String>) -> Result<ResourceRecordSet, DnsError> {
        let records = values
            .into_iter()
            .map(|value| ResourceRecord::builder().value(value).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(built)?;
        let set = ResourceRecordSet::builder()
            .name(format!("{}.", self.name))
            .r#type(kind)
            .ttl(self.ttl_s.into())
            .set_set_identifier(self.weighted.map(|weighted| weighted.set_identifier.clone()))
            .set_weight(self.weighted.map(|weighted| weighted.weight.into()))
            .set_resource_records(Some(records));
        set.build().map_err(built)
    }

    fn address(&self) -> Result<ResourceRecordSet, DnsError> {
        let kind = if self.record.address.is_ipv6() { RrType::Aaaa } else { RrType::A };
        self.set(kind, vec![self.record.address.to_string()])
    }

    fn text(&self, kept: &[&str]) -> Result<ResourceRecordSet, DnsError> {
        let own = format!("\"{EPOCH_KEY}{} member={}\"", self.record.epoch, self.record.member);
        let kept = kept.iter().map(|value| (*value).to_owned());
        self.set(RrType::Txt, kept.chain([own]).collect())
    }
}

/// A DELETE names everything as it is. Only an empty list of values, which an alias is returned with, must not go back:
/// the schema demands one value at least.
fn as_found(set: &ResourceRecordSet) -> ResourceRecordSet {
    let mut set = set.clone();
    set.resource_records = set.resource_records.filter(|records| !records.is_empty());
    set
}

/// Equal in everything, values in any order and addresses in any notation.
fn equal(found: &ResourceRecordSet, wanted: &ResourceRecordSet) -> bool {
    let plain = |set: &ResourceRecordSet| {
        let mut values: Vec<String> = values(set)
            .map(|value| value.parse::<IpAddr>().map_or_else(|_| value.to_owned(), |ip| ip.to_string()))
            .collect();
        values.sort();
        let mut rest = set.clone();
        rest.resource_records = None;
        rest.name = set.name().trim_end_matches('.').to_ascii_lowercase();
        (values, rest)
    };
    plain(found) == plain(wanted)
}

fn built(error: aws_sdk_route53::error::BuildError) -> DnsError {
    DnsError::Failed(format!("bug: a change cannot be built: {error}"))
}

#[cfg(test)]
mod tests;
