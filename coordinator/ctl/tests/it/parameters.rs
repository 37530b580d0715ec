//! PostgreSQL's parameters: what is sent, how the members' answers read, and the order of restarts.

use regent_proto::v1;

use crate::{samples, support::Fake};

fn member(name: &str, primary: bool, pending: &[&str], refused: &[(&str, &str)]) -> v1::MemberParameters {
    let text = |(name, why): &(&str, &str)| ((*name).to_owned(), (*why).to_owned());
    v1::MemberParameters {
        member: name.into(),
        primary,
        facts: Some(v1::ParameterFacts {
            version: 3,
            pending_restart: pending.iter().map(|name| (*name).to_owned()).collect(),
            raise_first: Vec::new(),
            refused: refused.iter().map(text).collect(),
        }),
    }
}

fn world(members: Vec<v1::MemberParameters>) -> crate::support::World {
    let mut world = samples::world();
    world.parameters = v1::ParametersReply {
        cluster: "gravl".into(),
        epoch: 4,
        version: 3,
        values: [("max_connections".to_owned(), "300".to_owned())].into(),
        members,
    };
    world
}

#[tokio::test]
async fn parameters_are_set_shown_and_a_members_refusal_is_an_error() {
    let members = vec![
        member("eu-north-1", true, &["max_connections"], &[]),
        member("us-east-1", false, &[], &[("nonsense", "unrecognized configuration parameter")]),
    ];
    let fake = Fake::start(world(members)).await;
    let shown = fake.ctl(&["postgres", "show", "gravl"]).await.expect(0);
    shown.says("max_connections").says("300").says("restart pending").says("refuses nonsense");
    let args = ["postgres", "set", "gravl", "Max_Connections=300", "log_line_prefix=", "--reason", "r"];
    let dry: Vec<&str> = args.iter().copied().chain(["--dry-run"]).collect();
    fake.ctl(&dry).await.expect(0).says("would change").says("takes restarts");
    let sent = fake.world.lock().unwrap().parameter_changes.pop().unwrap();
    assert!(sent.dry_run && sent.expected_epoch == 4 && sent.set["max_connections"] == "300", "{sent:?}");
    assert_eq!(sent.set["log_line_prefix"], "");
    // Taken by the group, and refused by a member's PostgreSQL.
    fake.ctl(&args).await.expect(1);
    fake.ctl(&["postgres", "unset", "gravl", "work_mem", "--reason", "r"]).await.expect(1);
    assert_eq!(fake.world.lock().unwrap().parameter_changes.pop().unwrap().unset, ["work_mem"]);
    for bad in [
        &["postgres", "set", "gravl", "work_mem", "--reason", "r"][..],
        &["postgres", "set", "gravl", "a=1", "a=2", "--reason", "r"],
        &["postgres", "set", "gravl", "a=1"],
    ] {
        fake.ctl(bad).await.expect(2);
    }
}

#[tokio::test]
async fn pending_restarts_are_done_standbys_first() {
    let members = || {
        vec![
            member("eu-north-1", true, &["max_connections"], &[]),
            member("eu-west-1", false, &[], &[]),
            member("us-east-1", false, &["max_connections"], &[]),
        ]
    };
    let mut world = world(members());
    world.operations = vec![v1::OperationReport {
        summary: Some(v1::OperationSummary {
            id: 7,
            state: v1::OperationState::Done.into(),
            ..Default::default()
        }),
        ..Default::default()
    }];
    let fake = Fake::start(world).await;
    let args = ["restart", "gravl", "--if-pending", "--reason", "more clients"];
    let dry: Vec<&str> = args.iter().copied().chain(["--dry-run"]).collect();
    fake.ctl(&dry).await.expect(0).says("would restart us-east-1, a standby");
    assert!(fake.world.lock().unwrap().restarts.is_empty());
    fake.ctl(&args)
        .await
        .expect(0)
        .says("restarted us-east-1, a standby")
        .says("restarted eu-north-1, the primary");
    let sent = fake.world.lock().unwrap().restarts.iter().map(|one| one.member.clone()).collect::<Vec<_>>();
    assert_eq!(sent, ["us-east-1", "eu-north-1"]);
    fake.ctl(&args).await.expect(0).says("no member waits");
    fake.ctl(&["restart", "gravl", "--reason", "r"]).await.expect(2);
    fake.ctl(&["reload", "gravl", "--if-pending", "--reason", "r"]).await.expect(2);
}
