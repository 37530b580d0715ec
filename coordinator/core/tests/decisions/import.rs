//! Commands about a cluster that comes from another group.
//!
//! `group named 7` gives the group its id; `made a b c` puts members of group 5's cluster there, at epoch 4, the first one with the
//! lease; `import a b` takes it over by what these say (`unheard=c`, `primary=b`, `epoch=4`, `list=a,b`, `without=c` leaves it
//! out of the configuration); `obeys a` has the member obey this group.

use std::collections::BTreeSet;

use regent_core::{Body, GroupNews, GroupRequest, GroupRequestKind, ImportedMember};
use regent_types::{DataForm, Epoch, GroupId, MemberName, PostgresState, RequestId, SystemId, Timeline};

use super::world::{World, cluster_name, config, member_name};

const OLD: GroupId = GroupId(5);
const EPOCH: Epoch = Epoch(4);

fn names(text: &str) -> Vec<MemberName> {
    text.split(',').map(member_name).collect()
}

/// One command of a script.
pub fn command(world: &mut World, verb: &str, args: &[&str]) {
    let value = |key: &str| args.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
    let plain = || args.iter().copied().filter(|arg| !arg.contains('='));
    let name = cluster_name("gravl");
    match verb {
        "named" => {
            world.state.feature_level = regent_core::FEATURE_LEVEL;
            let id = GroupId(args[0].parse().unwrap());
            drop(world.propose(Body::GroupNews(GroupNews::Named { id })));
        }
        "made" => {
            for (index, one) in plain().enumerate() {
                let instance = world.next_instance();
                let mut member = super::member::Member::new(&name, &member_name(one), instance);
                let primary = index == 0;
                member.form = if primary { DataForm::Primary } else { DataForm::Standby };
                member.state = if primary { PostgresState::Primary } else { PostgresState::Standby };
                member.streaming = !primary;
                (member.system_id, member.timeline) = (Some(SystemId(7_001)), Some(Timeline(3)));
                member.lineage = EPOCH;
                member.group = Some(OLD);
                member.foreign_lease = primary.then_some(EPOCH);
                member.list = Some((EPOCH, 9));
                member.asks = plain().map(member_name).collect();
                world.members.insert((name.clone(), member_name(one)), member);
            }
        }
        "import" => {
            let heard: Vec<MemberName> = plain().map(member_name).collect();
            let all: Vec<String> = world.members.keys().map(|(_, member)| member.to_string()).collect();
            let without = value("without");
            let left: Vec<&str> =
                all.iter().map(String::as_str).filter(|one| Some(*one) != without).collect();
            let now_ns = world.now_ns;
            let members = heard.iter().map(|member| {
                let heartbeat = world.members[&(name.clone(), member.clone())].heartbeat(now_ns);
                (member.clone(), ImportedMember::of(&heartbeat))
            });
            let kind = GroupRequestKind::ImportCluster {
                members: members.collect(),
                config: Box::new(config("gravl", &left)),
                election_worst_ms: 3_000,
                unheard: value("unheard")
                    .map_or_else(BTreeSet::new, |text| names(text).into_iter().collect()),
                primary: value("primary").map(member_name),
                expected_epoch: value("epoch").map(|epoch| Epoch(epoch.parse().unwrap())),
            };
            let request_id = RequestId::new(format!("i{}", world.state.applied_index)).unwrap();
            let request = GroupRequest { actor: "alice".into(), reason: "lost".into(), request_id, kind };
            drop(world.propose(Body::Group(request)));
        }
        "obeys" => {
            let own = world.state.group.id;
            world.member("gravl", args[0]).group = own;
        }
        other => panic!("no command {other}"),
    }
}
