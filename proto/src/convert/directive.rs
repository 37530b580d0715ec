//! Directives and their keys.

use regent_types::{
    AdoptedHistory, Branch, Directive, EffectKey, Epoch, OperationId, SystemId, Timeline, Upstream,
};

use super::{
    ConvertError, Converted, filled, list, optional, parsed, parsed_optional, port, present, required,
};
use crate::v1::{self, directive};

impl From<EffectKey> for v1::EffectKey {
    fn from(key: EffectKey) -> Self {
        Self { cluster: key.cluster.into(), operation: key.operation.0, step: key.step, epoch: key.epoch.0 }
    }
}

impl TryFrom<v1::EffectKey> for EffectKey {
    type Error = ConvertError;
    fn try_from(key: v1::EffectKey) -> Converted<Self> {
        Ok(Self {
            cluster: parsed(&key.cluster, "cluster")?,
            operation: OperationId(key.operation),
            step: key.step,
            epoch: Epoch(key.epoch),
        })
    }
}

impl From<Directive> for v1::Directive {
    fn from(directive: Directive) -> Self {
        use directive::Directive as Proto;
        let directive = match directive {
            Directive::Fence { epoch, grace_ms } => {
                Proto::Fence(directive::Fence { epoch: epoch.0, grace_ms })
            }
            Directive::Prepare { fenced, promises_void } => {
                Proto::Prepare(directive::Prepare { fenced: fenced.0, promises_void })
            }
            Directive::Promote { epoch, instance, initialize, replay_timeout_ms } => {
                Proto::Promote(directive::Promote {
                    epoch: epoch.0,
                    instance: instance.into(),
                    initialize,
                    replay_timeout_ms,
                })
            }
            Directive::Rejoin { upstream, branches, rewind_timeout_ms } => Proto::Rejoin(directive::Rejoin {
                upstream: Some(upstream.into()),
                branches: branches.into_iter().map(Into::into).collect(),
                rewind_timeout_ms,
            }),
            Directive::Validate { name, address, port, epoch } => {
                Proto::Validate(directive::Validate { name, address, port: port.into(), epoch: epoch.0 })
            }
            Directive::Adopt { epoch, system_id, standby_of } => Proto::Adopt(directive::Adopt {
                epoch: epoch.0,
                system_id: system_id.0,
                standby_of: standby_of.map(Into::into),
            }),
            Directive::Disown { epoch } => Proto::Disown(directive::Disown { epoch: epoch.0 }),
            Directive::Checkpoint { epoch } => Proto::Checkpoint(v1::CheckpointDirective { epoch: epoch.0 }),
            Directive::Drain { fenced, timeout_ms } => {
                Proto::Drain(v1::DrainDirective { fenced: fenced.0, timeout_ms })
            }
            Directive::Restart { epoch, primary, reload_only } => {
                Proto::Restart(directive::Restart { epoch: epoch.0, primary, reload_only })
            }
        };
        Self { directive: Some(directive) }
    }
}

impl TryFrom<v1::Directive> for Directive {
    type Error = ConvertError;
    fn try_from(directive: v1::Directive) -> Converted<Self> {
        use directive::Directive as Proto;
        Ok(match present(directive.directive, "directive")? {
            Proto::Fence(fence) => Self::Fence { epoch: Epoch(fence.epoch), grace_ms: fence.grace_ms },
            Proto::Prepare(prepare) => {
                Self::Prepare { fenced: Epoch(prepare.fenced), promises_void: prepare.promises_void }
            }
            Proto::Promote(promote) => Self::Promote {
                epoch: Epoch(promote.epoch),
                instance: parsed(&promote.instance, "promote.instance")?,
                initialize: promote.initialize,
                replay_timeout_ms: promote.replay_timeout_ms,
            },
            Proto::Rejoin(rejoin) => Self::Rejoin {
                upstream: required(rejoin.upstream, "rejoin.upstream")?,
                branches: list(rejoin.branches, "rejoin.branches")?,
                rewind_timeout_ms: rejoin.rewind_timeout_ms,
            },
            Proto::Restart(restart) => Self::Restart {
                epoch: Epoch(restart.epoch),
                primary: restart.primary,
                reload_only: restart.reload_only,
            },
            Proto::Validate(validate) => Self::Validate {
                name: filled(validate.name, "validate.name")?,
                address: filled(validate.address, "validate.address")?,
                port: port(validate.port, "validate.port")?,
                epoch: Epoch(validate.epoch),
            },
            Proto::Adopt(adopt) => Self::Adopt {
                epoch: Epoch(adopt.epoch),
                system_id: SystemId(adopt.system_id),
                standby_of: optional(adopt.standby_of, "adopt.standby_of")?,
            },
            Proto::Disown(disown) => Self::Disown { epoch: Epoch(disown.epoch) },
            Proto::Checkpoint(checkpoint) => Self::Checkpoint { epoch: Epoch(checkpoint.epoch) },
            Proto::Drain(drain) => Self::Drain { fenced: Epoch(drain.fenced), timeout_ms: drain.timeout_ms },
        })
    }
}

impl From<Upstream> for v1::Upstream {
    fn from(upstream: Upstream) -> Self {
        Self {
            member: upstream.member.into(),
            epoch: upstream.epoch.0,
            host: upstream.host,
            port: upstream.port.into(),
            timeline: upstream.timeline.0,
        }
    }
}

impl TryFrom<v1::Upstream> for Upstream {
    type Error = ConvertError;
    fn try_from(upstream: v1::Upstream) -> Converted<Self> {
        Ok(Self {
            member: parsed(&upstream.member, "member")?,
            epoch: Epoch(upstream.epoch),
            host: filled(upstream.host, "host")?,
            port: port(upstream.port, "port")?,
            timeline: Timeline(upstream.timeline),
        })
    }
}

impl From<Branch> for v1::Branch {
    fn from(branch: Branch) -> Self {
        Self { epoch: branch.epoch.0, timeline: branch.timeline.0, switch_lsn: branch.switch_lsn.to_string() }
    }
}

impl TryFrom<v1::Branch> for Branch {
    type Error = ConvertError;
    fn try_from(branch: v1::Branch) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(branch.epoch),
            timeline: Timeline(branch.timeline),
            switch_lsn: parsed(&branch.switch_lsn, "switch_lsn")?,
        })
    }
}

impl From<AdoptedHistory> for v1::AdoptedHistory {
    fn from(history: AdoptedHistory) -> Self {
        Self {
            timeline: history.timeline.0,
            switch_lsn: history.switch_lsn.map(|lsn| lsn.to_string()),
            end_lsn: history.end_lsn.to_string(),
        }
    }
}

impl TryFrom<v1::AdoptedHistory> for AdoptedHistory {
    type Error = ConvertError;
    fn try_from(history: v1::AdoptedHistory) -> Converted<Self> {
        Ok(Self {
            timeline: Timeline(history.timeline),
            switch_lsn: parsed_optional(history.switch_lsn.as_deref(), "switch_lsn")?,
            end_lsn: parsed(&history.end_lsn, "end_lsn")?,
        })
    }
}
