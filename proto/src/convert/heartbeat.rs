//! Heartbeats, leases and acknowledgements.

use regent_types::{
    Acknowledgement, BootId, ClusterView, Epoch, Grant, Heartbeat, LeaseDecision, LeaseRefusal, PrimaryView,
};

use super::{
    ConvertError, Converted, filled, optional, parsed, parsed_list, parsed_optional, part, port, present,
    required,
};
use crate::v1::{self, acknowledgement, lease_refusal};

impl From<Heartbeat> for v1::Heartbeat {
    fn from(heartbeat: Heartbeat) -> Self {
        Self {
            cluster: heartbeat.cluster.into(),
            member: heartbeat.member.into(),
            instance: heartbeat.instance.into(),
            boot: heartbeat.boot.0,
            stamp_ns: heartbeat.stamp_ns,
            nonce: heartbeat.nonce,
            report: Some(heartbeat.report.into()),
            members_version: heartbeat.members_version,
            group: heartbeat.group.map(Into::into),
        }
    }
}

impl TryFrom<v1::Heartbeat> for Heartbeat {
    type Error = ConvertError;
    fn try_from(heartbeat: v1::Heartbeat) -> Converted<Self> {
        Ok(Self {
            cluster: parsed(&heartbeat.cluster, "cluster")?,
            member: parsed(&heartbeat.member, "member")?,
            instance: parsed(&heartbeat.instance, "instance")?,
            boot: BootId(filled(heartbeat.boot, "boot")?),
            stamp_ns: heartbeat.stamp_ns,
            nonce: heartbeat.nonce,
            report: required(heartbeat.report, "report")?,
            members_version: heartbeat.members_version,
            group: parsed_optional(heartbeat.group.as_deref(), "group")?,
        })
    }
}

impl From<Grant> for v1::Grant {
    fn from(grant: Grant) -> Self {
        Self {
            epoch: grant.epoch.0,
            instance: grant.instance.into(),
            stamp_ns: grant.stamp_ns,
            ttl_ms: grant.ttl_ms,
        }
    }
}

impl TryFrom<v1::Grant> for Grant {
    type Error = ConvertError;
    fn try_from(grant: v1::Grant) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(grant.epoch),
            instance: parsed(&grant.instance, "instance")?,
            stamp_ns: grant.stamp_ns,
            ttl_ms: grant.ttl_ms,
        })
    }
}

impl From<LeaseRefusal> for v1::LeaseRefusal {
    fn from(refusal: LeaseRefusal) -> Self {
        use lease_refusal::Reason;
        let reason = match refusal {
            LeaseRefusal::NotAppointed { epoch, holder } => {
                Reason::NotAppointed(lease_refusal::NotAppointed {
                    epoch: epoch.0,
                    holder: holder.map(Into::into),
                })
            }
            LeaseRefusal::Fenced { epoch, fenced_through } => {
                Reason::Fenced(lease_refusal::Fenced { epoch: epoch.0, fenced_through: fenced_through.0 })
            }
            LeaseRefusal::OtherInstance { epoch, bound, presented } => {
                Reason::OtherInstance(lease_refusal::OtherInstance {
                    epoch: epoch.0,
                    bound: bound.into(),
                    presented: presented.into(),
                })
            }
            LeaseRefusal::Unknown { cluster, member } => Reason::Unknown(lease_refusal::UnknownMember {
                cluster: cluster.into(),
                member: member.into(),
            }),
            LeaseRefusal::Removed { cluster, member, version } => {
                Reason::Removed(lease_refusal::RemovedMember {
                    cluster: cluster.into(),
                    member: member.into(),
                    version,
                })
            }
            LeaseRefusal::Importing { cluster, waiting } => Reason::Importing(lease_refusal::Importing {
                cluster: cluster.into(),
                waiting: waiting.into_iter().map(Into::into).collect(),
            }),
        };
        Self { reason: Some(reason) }
    }
}

impl TryFrom<v1::LeaseRefusal> for LeaseRefusal {
    type Error = ConvertError;
    fn try_from(refusal: v1::LeaseRefusal) -> Converted<Self> {
        use lease_refusal::Reason;
        Ok(match present(refusal.reason, "reason")? {
            Reason::NotAppointed(refusal) => Self::NotAppointed {
                epoch: Epoch(refusal.epoch),
                holder: parsed_optional(refusal.holder.as_deref(), "not_appointed.holder")?,
            },
            Reason::Fenced(refusal) => {
                Self::Fenced { epoch: Epoch(refusal.epoch), fenced_through: Epoch(refusal.fenced_through) }
            }
            Reason::OtherInstance(refusal) => Self::OtherInstance {
                epoch: Epoch(refusal.epoch),
                bound: parsed(&refusal.bound, "other_instance.bound")?,
                presented: parsed(&refusal.presented, "other_instance.presented")?,
            },
            Reason::Unknown(refusal) => Self::Unknown {
                cluster: parsed(&refusal.cluster, "unknown.cluster")?,
                member: parsed(&refusal.member, "unknown.member")?,
            },
            Reason::Removed(refusal) => Self::Removed {
                cluster: parsed(&refusal.cluster, "removed.cluster")?,
                member: parsed(&refusal.member, "removed.member")?,
                version: refusal.version,
            },
            Reason::Importing(refusal) => Self::Importing {
                cluster: parsed(&refusal.cluster, "importing.cluster")?,
                waiting: parsed_list(&refusal.waiting, "importing.waiting")?,
            },
        })
    }
}

impl From<Acknowledgement> for v1::Acknowledgement {
    fn from(acknowledgement: Acknowledgement) -> Self {
        use acknowledgement::Lease;
        let lease = match acknowledgement.lease {
            LeaseDecision::Granted(grant) => Lease::Granted(grant.into()),
            LeaseDecision::Refused(refusal) => Lease::Refused(refusal.into()),
        };
        Self {
            nonce: acknowledgement.nonce,
            lease: Some(lease),
            view: acknowledgement.view.map(Into::into),
            group: acknowledgement.group.map(Into::into),
        }
    }
}

impl TryFrom<v1::Acknowledgement> for Acknowledgement {
    type Error = ConvertError;
    fn try_from(acknowledgement: v1::Acknowledgement) -> Converted<Self> {
        use acknowledgement::Lease;
        let lease = match present(acknowledgement.lease, "lease")? {
            Lease::Granted(grant) => LeaseDecision::Granted(part(grant, "granted")?),
            Lease::Refused(refusal) => LeaseDecision::Refused(part(refusal, "refused")?),
        };
        Ok(Self {
            nonce: acknowledgement.nonce,
            lease,
            view: optional(acknowledgement.view, "view")?,
            group: parsed_optional(acknowledgement.group.as_deref(), "group")?,
        })
    }
}

impl From<ClusterView> for v1::ClusterView {
    fn from(view: ClusterView) -> Self {
        Self {
            epoch: view.epoch.0,
            fenced_through: view.fenced_through.0,
            primary: view.primary.map(Into::into),
            members: view.members.into_iter().map(Into::into).collect(),
            members_version: view.members_version,
            heartbeat_interval_ms: view.heartbeat_interval_ms,
            promises: view.promises.map(Into::into),
            parameters: view.parameters.map(Into::into),
            supersedes: view.supersedes.into_iter().map(Into::into).collect(),
            synchronous: view.synchronous.map(Into::into),
        }
    }
}

impl TryFrom<v1::ClusterView> for ClusterView {
    type Error = ConvertError;
    fn try_from(view: v1::ClusterView) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(view.epoch),
            fenced_through: Epoch(view.fenced_through),
            primary: optional(view.primary, "primary")?,
            members: parsed_list(&view.members, "members")?,
            members_version: view.members_version,
            heartbeat_interval_ms: view.heartbeat_interval_ms,
            promises: optional(view.promises, "promises")?,
            parameters: optional(view.parameters, "parameters")?,
            supersedes: parsed_list(&view.supersedes, "supersedes")?,
            synchronous: optional(view.synchronous, "synchronous")?,
        })
    }
}

impl From<PrimaryView> for v1::PrimaryView {
    fn from(primary: PrimaryView) -> Self {
        Self {
            member: primary.member.into(),
            region: primary.region.into(),
            epoch: primary.epoch.0,
            host: primary.host,
            port: primary.port.into(),
            established: primary.established,
        }
    }
}

impl TryFrom<v1::PrimaryView> for PrimaryView {
    type Error = ConvertError;
    fn try_from(primary: v1::PrimaryView) -> Converted<Self> {
        Ok(Self {
            member: parsed(&primary.member, "member")?,
            region: parsed(&primary.region, "region")?,
            epoch: Epoch(primary.epoch),
            host: filled(primary.host, "host")?,
            port: port(primary.port, "port")?,
            established: primary.established,
        })
    }
}
