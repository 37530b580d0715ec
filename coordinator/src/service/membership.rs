//! Members and whole clusters: list, add, remove, create, forget, adopt. Decides nothing; the core judges.

use regent_core::{
    Body, GroupRequest, GroupRequestKind, MemberChanges, MemberConfig, OperatorRequest, RequestKind,
    SyncState,
};
use regent_proto::v1::{self, change_member_request::Change};
use regent_types::{DataForm, Epoch, MemberName, Region, SystemId};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name, reason, request_id},
    policy::unknown,
};
use crate::config;

fn invalid(field: &str, problem: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {problem}"))
}

fn port(field: &str, value: u32) -> Result<u16, Status> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(invalid(field, format_args!("{value} is not a port (1 to 65535)"))),
    }
}

fn member(name: &str) -> Result<MemberName, Status> {
    MemberName::new(name).map_err(|error| invalid("member.name", error))
}

fn definition(one: &v1::MemberDefinition) -> Result<(MemberName, MemberConfig), Status> {
    if one.host.is_empty() || one.host.contains(char::is_whitespace) {
        return Err(invalid("member.host", format_args!("{:?} is not an address", one.host)));
    }
    let config = MemberConfig {
        region: Region::new(one.region.clone()).map_err(|error| invalid("member.region", error))?,
        host: one.host.clone(),
        port: port("member.port", one.port)?,
        client_address: one.client_address.parse().map_err(|error| {
            invalid("member.client_address", format_args!("{:?}: {error}", one.client_address))
        })?,
        client_port: port("member.client_port", one.client_port)?,
        priority: one.priority,
        promotable: one.promotable,
        agent_address: one.agent_address.clone(),
    };
    Ok((member(&one.name)?, config))
}

fn member_changes(changes: &v1::MemberChanges) -> Result<MemberChanges, Status> {
    let address = |text: &String| {
        text.parse().map_err(|error| invalid("set.client_address", format_args!("{text:?}: {error}")))
    };
    Ok(MemberChanges {
        priority: changes.priority,
        promotable: changes.promotable,
        client_address: changes.client_address.as_ref().map(address).transpose()?,
        client_port: changes.client_port.map(|value| port("set.client_port", value)).transpose()?,
        agent_address: changes.agent_address.clone(),
    })
}

fn shown(name: &MemberName, config: &MemberConfig) -> v1::MemberDefinition {
    v1::MemberDefinition {
        name: name.to_string(),
        region: config.region.to_string(),
        host: config.host.clone(),
        port: config.port.into(),
        client_address: config.client_address.to_string(),
        client_port: config.client_port.into(),
        priority: config.priority,
        promotable: config.promotable,
        agent_address: config.agent_address.clone(),
    }
}

impl Operators {
    pub(super) async fn members(
        &self,
        caller: Caller,
        message: v1::MembersRequest,
    ) -> Answered<v1::MembersReply> {
        let name = cluster_name(&message.cluster)?;
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message.clone(), &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.list_members(request)).await {
                return answer;
            }
        }
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name).ok_or_else(|| unknown(&name))?;
        let primary = cluster.appointment.as_ref().map(|appointment| &appointment.member);
        let newest = cluster.history.last().map(|record| record.epoch);
        let entry = |(name, config): (&MemberName, &MemberConfig)| {
            let (sync_confirmed, sync_reason) = match cluster.sync.get(name) {
                _ if primary == Some(name) => (false, None),
                Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest => (true, None),
                Some(SyncState::Confirmed { epoch }) => {
                    (false, Some(format!("confirmed for epoch {epoch} only")))
                }
                Some(SyncState::Unconfirmed { why }) => (false, Some(why.clone())),
                None => (false, Some("never in sync".to_owned())),
            };
            let over = cluster.appointment.as_ref().filter(|over| config.promotable && over.member != *name);
            let asked = over.map_or(Ok(()), |over| cluster.promotable.asks(over, name));
            v1::MemberEntry {
                definition: Some(shown(name, config)),
                primary: primary == Some(name),
                sync_confirmed,
                sync_reason,
                acknowledged_version: cluster.membership.acknowledged.get(name).copied().unwrap_or(0),
                not_known: asked.err().map(|not_asked| not_asked.to_string()),
            }
        };
        let removed = cluster.membership.removed.iter().map(|(name, removed)| v1::RemovedEntry {
            name: name.to_string(),
            version: removed.version,
            by: removed.by.clone(),
            wall_ms: removed.wall_ms,
        });
        Ok(Response::new(v1::MembersReply {
            cluster: name.to_string(),
            epoch: cluster.epoch.0,
            version: cluster.membership.version,
            members: cluster.config.members.iter().map(entry).collect(),
            removed: removed.collect(),
        }))
    }

    pub(super) async fn member_change(
        &self,
        caller: Caller,
        message: v1::ChangeMemberRequest,
    ) -> Answered<v1::ChangeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.change_member(request)).await;
        }
        let name = cluster_name(&message.cluster)?;
        let (kind, notes) = match &message.change {
            None => return Err(invalid("change", "is missing")),
            Some(Change::Add(one)) => {
                let (member, config) = definition(one)?;
                let notes = vec![
                    format!(
                        "start guard and agent of {member} with the certificate agent/{name}/{member}; it is cloned by itself"
                    ),
                    "it is promotable once it is sync confirmed and the primary has acknowledged the list"
                        .to_owned(),
                    "the files of the coordinators are not changed: write it there too".to_owned(),
                ];
                (RequestKind::AddMember { member, config: Box::new(config) }, notes)
            }
            Some(Change::Set(changes)) => {
                let member = member(&changes.name)?;
                let notes =
                    vec!["the files of the coordinators are not changed: write it there too".to_owned()];
                (RequestKind::SetMember { member, changes: member_changes(changes)? }, notes)
            }
            Some(Change::Remove(text)) => {
                let member = member(text)?;
                let notes = vec![
                    format!(
                        "PostgreSQL of {member} is stopped as soon as its agent hears of it; its data is left where it is"
                    ),
                    format!("the primary drops the slot of {member} when the stream has ended"),
                    "revoke its certificate, and take it out of the files of the coordinators".to_owned(),
                ];
                (RequestKind::RemoveMember { member }, notes)
            }
        };
        let request = OperatorRequest {
            cluster: name.clone(),
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch: Epoch(message.expected_epoch),
            request_id: request_id(&message.request_id)?,
            kind,
        };
        let listed = !matches!(message.change, Some(Change::Set(_)));
        let applied = self.take(Body::Request(request), message.dry_run).await?;
        let version =
            self.node.shared.lock().state.clusters.get(&name).map_or(0, |one| one.membership.version);
        Ok(Response::new(v1::ChangeReply {
            changes: applied.events.iter().map(|event| event.text.clone()).collect(),
            notes,
            epoch: applied.epoch.0,
            version: version + u64::from(message.dry_run && listed),
            dry_run: message.dry_run,
        }))
    }

    pub(super) async fn cluster_create(
        &self,
        caller: Caller,
        message: v1::CreateClusterRequest,
    ) -> Answered<v1::ChangeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.create_cluster(request)).await;
        }
        let config = config::parse_cluster(&self.node.config, &message.toml)
            .map_err(|error| invalid("toml", error))?;
        let (adopt, mut notes) =
            if message.adopt { self.adoption(&config, message.system_id)? } else { Default::default() };
        if !message.adopt {
            notes.push(format!(
                "start guard and agent of {}: it begins with an empty data directory",
                config.initial_primary
            ));
        }
        notes.push("the files of the coordinators are not changed: write it there too".to_owned());
        let request = GroupRequest {
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            request_id: request_id(&message.request_id)?,
            kind: GroupRequestKind::CreateCluster {
                config: Box::new(config),
                election_worst_ms: self.node.config.raft.election_worst_ms(),
                adopt,
            },
        };
        self.group(request, notes, message.dry_run).await
    }

    /// What is taken over, and what it costs. The agents say what they see, where they are heard.
    fn adoption(
        &self,
        config: &regent_core::ClusterConfig,
        named: Option<u64>,
    ) -> Result<(Option<SystemId>, Vec<String>), Status> {
        let inner = self.node.shared.lock();
        let now_ns = self.node.clock.now_ns();
        let seen = |member: &MemberName| {
            let (heartbeat, _) = inner.detector.last_report(now_ns, &config.name, member)?;
            Some(heartbeat.report.data.clone())
        };
        let primary = seen(&config.initial_primary);
        let reported = primary.as_ref().and_then(|data| data.system_id);
        let system_id = match (named.map(SystemId), reported) {
            (Some(named), Some(reported)) if named != reported => {
                let text =
                    format!("{named} was named, the agent of {} reports {reported}", config.initial_primary);
                return Err(Status::failed_precondition(format!("system_id: {text}")));
            }
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => {
                let text = format!(
                    "is missing, and the agent of {} is not heard: name it (pg_controldata: Database system identifier)",
                    config.initial_primary
                );
                return Err(invalid("system_id", text));
            }
        };
        if let Some(data) = primary.filter(|data| data.form != DataForm::Primary) {
            return Err(Status::failed_precondition(format!(
                "the data directory of {} is {:?}, a primary's is adopted",
                config.initial_primary, data.form
            )));
        }
        let mut notes = vec![
            "it costs one restart of each server, under its guard: stop PostgreSQL (pg_ctl stop -m fast), start guard and agent"
                .to_owned(),
            "the guard refuses to start while PostgreSQL runs without it; it kills nothing that it did not start".to_owned(),
            "postgresql.conf keeps every line and gets one: include_if_exists = 'regent.conf'".to_owned(),
            format!("regent.conf sets, from now on: {}", MANAGED_SETTINGS.join(", ")),
            "the same names are taken out of postgresql.auto.conf, which would win; the file as it was is kept beside".to_owned(),
            "pg_hba.conf gets a marked block at its top, for the role regent and the superuser's socket".to_owned(),
        ];
        for member in config.members.keys().filter(|member| **member != config.initial_primary) {
            notes.push(match seen(member) {
                Some(data) if data.form == DataForm::Standby && data.system_id == Some(system_id) => {
                    format!("{member} is a standby of the same system: it is taken over without a clone when its history matches")
                }
                Some(data) => format!("{member} is {:?}: it will be cloned, and its data kept beside", data.form),
                None => format!("{member} is not heard: it is looked at when its agent comes"),
            });
        }
        Ok((Some(system_id), notes))
    }

    pub(super) async fn cluster_forget(
        &self,
        caller: Caller,
        message: v1::ForgetClusterRequest,
    ) -> Answered<v1::ChangeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.forget_cluster(request)).await;
        }
        let cluster = cluster_name(&message.cluster)?;
        let primary_silent_ms = {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&cluster).ok_or_else(|| unknown(&cluster))?;
            let now_ns = self.node.clock.now_ns();
            let primary = known.appointment.as_ref().map(|appointment| &appointment.member);
            primary.map(|member| inner.detector.silence_ms(now_ns, &cluster, member))
        };
        let notes = vec![
            "its members get no lease any more; a primary that lives stops when its lease ends, and one that hears no coordinator "
                .to_owned()
                + "when no promise of the others extends it any more",
            "its data directories and its DNS records at outside providers are left as they are".to_owned(),
        ];
        let request = GroupRequest {
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            request_id: request_id(&message.request_id)?,
            kind: GroupRequestKind::ForgetCluster {
                cluster,
                expected_epoch: Epoch(message.expected_epoch),
                primary_silent_ms,
                consent: message.consent,
            },
        };
        self.group(request, notes, message.dry_run).await
    }

    /// Has a request about the group applied, or tried.
    pub(super) async fn group(
        &self,
        request: GroupRequest,
        notes: Vec<String>,
        dry_run: bool,
    ) -> Answered<v1::ChangeReply> {
        let before = self.node.shared.lock().state.group.log.back().cloned();
        let applied = self.take(Body::Group(request), dry_run).await?;
        let mut changes: Vec<String> = applied.events.iter().map(|event| event.text.clone()).collect();
        let inner = self.node.shared.lock();
        if changes.is_empty()
            && let Some(last) = inner.state.group.log.back()
            && Some(last) != before.as_ref()
        {
            changes.push(last.text.clone());
        }
        Ok(Response::new(v1::ChangeReply {
            changes,
            notes,
            epoch: applied.epoch.0,
            version: inner.state.group.version,
            dry_run,
        }))
    }
}

/// What the agents' include file sets (agent/src/postgres/conf.rs).
const MANAGED_SETTINGS: [&str; 16] = [
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "cluster_name",
    "wal_level",
    "hot_standby",
    "wal_log_hints",
    "max_wal_senders",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "wal_keep_size",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
];
