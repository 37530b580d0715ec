//! Taking a cluster over from a group that is lost for good: the call of `import.proto`. Decides nothing: it puts together
//! what the agents say, and the core judges.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::{ClusterConfig, GroupRequest, GroupRequestKind, ImportedMember};
use regent_proto::v1::{ChangeReply, ImportClusterRequest};
use regent_types::{ClusterName, Epoch, MemberName};
use tonic::Status;

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name, member_name, reason, request_id},
    policy::unknown,
};
use crate::config;

/// A report that is older is no word of the member any more, ms. An agent that obeys another group comes by every now and
/// then only.
const HEARD_MS: u64 = 15_000;

impl Operators {
    pub(super) async fn cluster_import(
        &self,
        caller: Caller,
        message: ImportClusterRequest,
    ) -> Answered<ChangeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.import_cluster(request)).await;
        }
        let name = cluster_name(&message.cluster)?;
        let config = self.imported_config(&name, message.toml.as_deref())?;
        let unheard = message.unheard.iter().map(|text| member_name("unheard", Some(text)));
        let unheard: BTreeSet<MemberName> =
            unheard.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let known = |member: &MemberName| config.members.contains_key(member);
        let members = self.said(&config);
        let notes = members.iter().map(|(member, said)| {
            let lease = said.lease_epoch.map_or("no lease".to_owned(), |epoch| format!("a lease of epoch {epoch}"));
            let group = said.group.map_or("none".to_owned(), |group| group.to_string());
            format!(
                "{member}: epoch {} is the highest that it knows, {lease}, {:?} data of epoch {}, obeys group {group}",
                said.highest_epoch, said.form, said.lineage
            )
        });
        let mut notes: Vec<String> = notes.collect();
        notes.push(
            "leave the old coordinators switched off: what still obeys them could be promoted by them"
                .to_owned(),
        );
        let primary = member_name("primary", message.primary.as_deref())?;
        if let Some(stranger) = primary.iter().find(|member| !known(member)) {
            let text = format!("primary: {stranger} is no member of {name}");
            return Err(Status::invalid_argument(text));
        }
        let request = GroupRequest {
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            request_id: request_id(&message.request_id)?,
            kind: GroupRequestKind::ImportCluster {
                config: Box::new(config),
                election_worst_ms: self.node.config.raft.election_worst_ms(),
                members,
                unheard,
                primary,
                expected_epoch: message.expected_epoch.map(Epoch),
            },
        };
        self.group(request, notes, message.dry_run).await
    }

    fn imported_config(&self, name: &ClusterName, toml: Option<&str>) -> Result<ClusterConfig, Status> {
        let Some(toml) = toml else {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(name).ok_or_else(|| unknown(name))?;
            return Ok(known.config.clone());
        };
        let config = config::parse_cluster(&self.node.config, toml)
            .map_err(|error| Status::invalid_argument(format!("toml: {error}")))?;
        if config.name != *name {
            let text = format!("toml: it is of cluster {}, {name} is asked", config.name);
            return Err(Status::invalid_argument(text));
        }
        Ok(config)
    }

    /// What the members say that are heard.
    fn said(&self, config: &ClusterConfig) -> BTreeMap<MemberName, ImportedMember> {
        let inner = self.node.shared.lock();
        let now_ns = self.node.clock.now_ns();
        let heard = config.members.keys().filter_map(|member| {
            let (heartbeat, age_ms) = inner.detector.last_report(now_ns, &config.name, member)?;
            let counts = age_ms <= HEARD_MS && heartbeat.report.guard.reachable;
            counts.then(|| (member.clone(), ImportedMember::of(heartbeat)))
        });
        heard.collect()
    }
}
