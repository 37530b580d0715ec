//! What is kept of a divergent history, and what WAL does to a disk.

use regent_types::{Epoch, SalvageCompleteness, SalvageSummary, SalvagedRelation, Timeline, WalRetention};

use super::{ConvertError, Converted, filled, list, parsed, parsed_optional};
use crate::v1;

impl From<WalRetention> for v1::WalRetention {
    fn from(retention: WalRetention) -> Self {
        Self {
            oldest_lsn: retention.oldest_lsn.map(|lsn| lsn.to_string()),
            bytes_per_s: retention.bytes_per_s,
            slot_keep_max_bytes: retention.slot_keep_max_bytes,
            full_in_s: retention.full_in_s,
        }
    }
}

impl TryFrom<v1::WalRetention> for WalRetention {
    type Error = ConvertError;
    fn try_from(retention: v1::WalRetention) -> Converted<Self> {
        Ok(Self {
            oldest_lsn: parsed_optional(retention.oldest_lsn.as_deref(), "oldest_lsn")?,
            bytes_per_s: retention.bytes_per_s,
            slot_keep_max_bytes: retention.slot_keep_max_bytes,
            full_in_s: retention.full_in_s,
        })
    }
}

impl From<SalvagedRelation> for v1::SalvagedRelation {
    fn from(relation: SalvagedRelation) -> Self {
        let SalvagedRelation { name, inserts, updates, deletes } = relation;
        Self { name, inserts, updates, deletes }
    }
}

impl TryFrom<v1::SalvagedRelation> for SalvagedRelation {
    type Error = ConvertError;
    fn try_from(relation: v1::SalvagedRelation) -> Converted<Self> {
        let v1::SalvagedRelation { name, inserts, updates, deletes } = relation;
        Ok(Self { name: filled(name, "name")?, inserts, updates, deletes })
    }
}

impl From<SalvageSummary> for v1::SalvageSummary {
    fn from(salvage: SalvageSummary) -> Self {
        Self {
            folder: salvage.folder,
            epoch: salvage.epoch.0,
            timeline: salvage.timeline.0,
            from_lsn: salvage.from_lsn.to_string(),
            to_lsn: salvage.to_lsn.to_string(),
            transactions: salvage.transactions,
            span_ms: salvage.span_ms,
            partial: match salvage.completeness {
                SalvageCompleteness::Complete => None,
                SalvageCompleteness::Partial { reason } => Some(reason),
            },
            relations: salvage.relations.into_iter().map(Into::into).collect(),
            relations_total: salvage.relations_total,
            data: salvage.data,
        }
    }
}

impl TryFrom<v1::SalvageSummary> for SalvageSummary {
    type Error = ConvertError;
    fn try_from(salvage: v1::SalvageSummary) -> Converted<Self> {
        Ok(Self {
            folder: filled(salvage.folder, "folder")?,
            epoch: Epoch(salvage.epoch),
            timeline: Timeline(salvage.timeline),
            from_lsn: parsed(&salvage.from_lsn, "from_lsn")?,
            to_lsn: parsed(&salvage.to_lsn, "to_lsn")?,
            transactions: salvage.transactions,
            span_ms: salvage.span_ms,
            completeness: match salvage.partial {
                None => SalvageCompleteness::Complete,
                Some(reason) => SalvageCompleteness::Partial { reason },
            },
            relations: list(salvage.relations, "relations")?,
            relations_total: salvage.relations_total,
            data: salvage.data,
        })
    }
}
