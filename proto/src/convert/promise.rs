//! Promises: the list of who may be promoted, and what an agent reports of its own.

use regent_types::{
    Epoch, GivenPromise, LeaseTerms, PromiseFacts, PromiseView, PromisedLease, PromotableMember,
};

use super::{ConvertError, Converted, list, optional, parsed, parsed_list};
use crate::v1::{self, promise_facts};

impl From<PromiseView> for v1::PromiseView {
    fn from(view: PromiseView) -> Self {
        Self {
            version: view.version,
            promotable: view.promotable.into_iter().map(Into::into).collect(),
            duration_ms: view.terms.ttl_ms,
            rho_ppm: view.terms.rho_ppm,
            kill_ms: view.terms.kill_ms,
        }
    }
}

impl TryFrom<v1::PromiseView> for PromiseView {
    type Error = ConvertError;
    fn try_from(view: v1::PromiseView) -> Converted<Self> {
        Ok(Self {
            version: view.version,
            promotable: list(view.promotable, "promotable")?,
            terms: LeaseTerms { ttl_ms: view.duration_ms, rho_ppm: view.rho_ppm, kill_ms: view.kill_ms },
        })
    }
}

impl From<PromotableMember> for v1::PromotableMember {
    fn from(one: PromotableMember) -> Self {
        Self { member: one.member.into(), agent_address: one.agent_address }
    }
}

impl TryFrom<v1::PromotableMember> for PromotableMember {
    type Error = ConvertError;
    fn try_from(one: v1::PromotableMember) -> Converted<Self> {
        Ok(Self { member: parsed(&one.member, "member")?, agent_address: one.agent_address })
    }
}

impl From<PromiseFacts> for v1::PromiseFacts {
    fn from(facts: PromiseFacts) -> Self {
        Self {
            list: facts.list.map(|(epoch, version)| promise_facts::List { epoch: epoch.0, version }),
            given: facts.given.map(|given| promise_facts::Given {
                epoch: given.epoch.map(|epoch| epoch.0),
                remaining_ms: given.remaining_ms,
            }),
            extended: facts.extended.map(Into::into),
            asks: facts.asks.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::PromiseFacts> for PromiseFacts {
    type Error = ConvertError;
    fn try_from(facts: v1::PromiseFacts) -> Converted<Self> {
        Ok(Self {
            list: facts.list.map(|list| (Epoch(list.epoch), list.version)),
            given: facts.given.map(|given| GivenPromise {
                epoch: given.epoch.map(Epoch),
                remaining_ms: given.remaining_ms,
            }),
            extended: optional(facts.extended, "extended")?,
            asks: parsed_list(&facts.asks, "asks")?,
        })
    }
}

impl From<PromisedLease> for promise_facts::Extended {
    fn from(lease: PromisedLease) -> Self {
        Self {
            epoch: lease.epoch.0,
            by: lease.by.into_iter().map(Into::into).collect(),
            remaining_ms: lease.remaining_ms,
        }
    }
}

impl TryFrom<promise_facts::Extended> for PromisedLease {
    type Error = ConvertError;
    fn try_from(lease: promise_facts::Extended) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(lease.epoch),
            by: parsed_list(&lease.by, "by")?,
            remaining_ms: lease.remaining_ms,
        })
    }
}
