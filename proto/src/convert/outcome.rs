//! Outcomes and their evidence.

use regent_types::{
    BootId, CandidateReport, Epoch, Evidence, FencedEvidence, Outcome, PromotedEvidence, RejoinMethod,
    RejoinedEvidence, SystemId, Timeline,
};

use super::{
    ConvertError, Converted, filled, known, optional, parsed, parsed_list, parsed_optional, part, present,
    report::data_form, unspecified,
};
use crate::v1::{self, evidence, outcome};

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        use outcome::Outcome as Proto;
        let outcome = match outcome {
            Outcome::Done(evidence) => Proto::Done(evidence.into()),
            Outcome::Refused { reason } => Proto::Refused(reason),
            Outcome::Unknown { reason } => Proto::Unknown(reason),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = ConvertError;
    fn try_from(outcome: v1::Outcome) -> Converted<Self> {
        use outcome::Outcome as Proto;
        Ok(match present(outcome.outcome, "outcome")? {
            Proto::Done(evidence) => Self::Done(part(evidence, "done")?),
            Proto::Refused(reason) => Self::Refused { reason },
            Proto::Unknown(reason) => Self::Unknown { reason },
        })
    }
}

impl From<Evidence> for v1::Evidence {
    fn from(evidence: Evidence) -> Self {
        use evidence::Evidence as Proto;
        let evidence = match evidence {
            Evidence::Fenced(fenced) => Proto::Fenced(fenced.into()),
            Evidence::Prepared(report) => Proto::Prepared(report.into()),
            Evidence::Promoted(promoted) => Proto::Promoted(promoted.into()),
            Evidence::Rejoined(rejoined) => Proto::Rejoined(rejoined.into()),
            Evidence::Restarted { elapsed_ms } => Proto::Restarted(evidence::Restarted { elapsed_ms }),
            Evidence::Validated { address, elapsed_ms, connected_ms } => {
                Proto::Validated(evidence::Validated { address, elapsed_ms, connected_ms })
            }
            Evidence::Redirected { provider, changed } => {
                Proto::Redirected(evidence::Redirected { provider, changed })
            }
            Evidence::Claimed { text } => Proto::Claimed(text),
            Evidence::Checkpointed(checkpointed) => Proto::Checkpointed(checkpointed.into()),
        };
        Self { evidence: Some(evidence) }
    }
}

impl TryFrom<v1::Evidence> for Evidence {
    type Error = ConvertError;
    fn try_from(evidence: v1::Evidence) -> Converted<Self> {
        use evidence::Evidence as Proto;
        Ok(match present(evidence.evidence, "evidence")? {
            Proto::Fenced(fenced) => Self::Fenced(part(fenced, "fenced")?),
            Proto::Prepared(report) => Self::Prepared(part(report, "prepared")?),
            Proto::Promoted(promoted) => Self::Promoted(part(promoted, "promoted")?),
            Proto::Rejoined(rejoined) => Self::Rejoined(part(rejoined, "rejoined")?),
            Proto::Restarted(restarted) => Self::Restarted { elapsed_ms: restarted.elapsed_ms },
            Proto::Validated(validated) => Self::Validated {
                address: filled(validated.address, "validated.address")?,
                elapsed_ms: validated.elapsed_ms,
                connected_ms: validated.connected_ms,
            },
            Proto::Redirected(redirected) => Self::Redirected {
                provider: filled(redirected.provider, "redirected.provider")?,
                changed: redirected.changed,
            },
            Proto::Claimed(text) => Self::Claimed { text: filled(text, "claimed")? },
            Proto::Checkpointed(checkpointed) => Self::Checkpointed(part(checkpointed, "checkpointed")?),
        })
    }
}

impl From<FencedEvidence> for v1::FencedEvidence {
    fn from(fenced: FencedEvidence) -> Self {
        Self {
            epoch: fenced.epoch.0,
            instance: fenced.instance.into(),
            boot: fenced.boot.0,
            succeeds: fenced.succeeds.into_iter().map(Into::into).collect(),
            checkpoint_lsn: fenced.checkpoint_lsn.map(|lsn| lsn.to_string()),
            timeline: fenced.timeline.map(|timeline| timeline.0),
            clean: fenced.clean,
        }
    }
}

impl TryFrom<v1::FencedEvidence> for FencedEvidence {
    type Error = ConvertError;
    fn try_from(fenced: v1::FencedEvidence) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(fenced.epoch),
            instance: parsed(&fenced.instance, "instance")?,
            boot: BootId(filled(fenced.boot, "boot")?),
            succeeds: parsed_list(&fenced.succeeds, "succeeds")?,
            checkpoint_lsn: parsed_optional(fenced.checkpoint_lsn.as_deref(), "checkpoint_lsn")?,
            timeline: fenced.timeline.map(Timeline),
            clean: fenced.clean,
        })
    }
}

impl From<CandidateReport> for v1::CandidateReport {
    fn from(report: CandidateReport) -> Self {
        Self {
            member: report.member.into(),
            instance: report.instance.into(),
            boot: report.boot.0,
            received_lsn: report.received_lsn.map(|lsn| lsn.to_string()),
            replayed_lsn: report.replayed_lsn.map(|lsn| lsn.to_string()),
            timeline: report.timeline.map(|timeline| timeline.0),
            system_id: report.system_id.map(|id| id.0),
            form: v1::DataForm::from(report.form).into(),
            lineage: report.lineage.0,
            promises_closed: report.promises_closed.0,
            refused: report.refused,
            stamp_ns: report.stamp_ns,
            promise_left_ms: report.promise_left_ms,
        }
    }
}

impl TryFrom<v1::CandidateReport> for CandidateReport {
    type Error = ConvertError;
    fn try_from(report: v1::CandidateReport) -> Converted<Self> {
        Ok(Self {
            member: parsed(&report.member, "member")?,
            instance: parsed(&report.instance, "instance")?,
            boot: BootId(filled(report.boot, "boot")?),
            received_lsn: parsed_optional(report.received_lsn.as_deref(), "received_lsn")?,
            replayed_lsn: parsed_optional(report.replayed_lsn.as_deref(), "replayed_lsn")?,
            timeline: report.timeline.map(Timeline),
            system_id: report.system_id.map(SystemId),
            form: data_form(report.form, "form")?,
            lineage: Epoch(report.lineage),
            promises_closed: Epoch(report.promises_closed),
            refused: report.refused,
            stamp_ns: report.stamp_ns,
            promise_left_ms: report.promise_left_ms,
        })
    }
}

impl From<PromotedEvidence> for v1::PromotedEvidence {
    fn from(promoted: PromotedEvidence) -> Self {
        Self {
            epoch: promoted.epoch.0,
            system_id: promoted.system_id.0,
            timeline: promoted.timeline.0,
            switch_lsn: promoted.switch_lsn.to_string(),
            elapsed_ms: promoted.elapsed_ms,
            replay_ms: promoted.replay_ms,
        }
    }
}

impl TryFrom<v1::PromotedEvidence> for PromotedEvidence {
    type Error = ConvertError;
    fn try_from(promoted: v1::PromotedEvidence) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(promoted.epoch),
            system_id: SystemId(promoted.system_id),
            timeline: Timeline(promoted.timeline),
            switch_lsn: parsed(&promoted.switch_lsn, "switch_lsn")?,
            elapsed_ms: promoted.elapsed_ms,
            replay_ms: promoted.replay_ms,
        })
    }
}

impl From<RejoinMethod> for v1::RejoinMethod {
    fn from(method: RejoinMethod) -> Self {
        match method {
            RejoinMethod::Unchanged => Self::Unchanged,
            RejoinMethod::Repointed => Self::Repointed,
            RejoinMethod::Rewound => Self::Rewound,
            RejoinMethod::Cloned => Self::Cloned,
        }
    }
}

fn rejoin_method(value: i32, field: &str) -> Converted<RejoinMethod> {
    use v1::RejoinMethod as Proto;
    Ok(match known(value, field)? {
        Proto::Unspecified => return unspecified(field),
        Proto::Unchanged => RejoinMethod::Unchanged,
        Proto::Repointed => RejoinMethod::Repointed,
        Proto::Rewound => RejoinMethod::Rewound,
        Proto::Cloned => RejoinMethod::Cloned,
    })
}

impl From<RejoinedEvidence> for v1::RejoinedEvidence {
    fn from(rejoined: RejoinedEvidence) -> Self {
        Self {
            method: v1::RejoinMethod::from(rejoined.method).into(),
            reason: rejoined.reason,
            salvage: rejoined.salvage.map(Into::into),
            copied_bytes: rejoined.copied_bytes,
            elapsed_ms: rejoined.elapsed_ms,
        }
    }
}

impl TryFrom<v1::RejoinedEvidence> for RejoinedEvidence {
    type Error = ConvertError;
    fn try_from(rejoined: v1::RejoinedEvidence) -> Converted<Self> {
        Ok(Self {
            method: rejoin_method(rejoined.method, "method")?,
            reason: rejoined.reason,
            salvage: optional(rejoined.salvage, "salvage")?,
            copied_bytes: rejoined.copied_bytes,
            elapsed_ms: rejoined.elapsed_ms,
        })
    }
}
