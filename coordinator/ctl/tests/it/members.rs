//! Policies, members, coordinators and clusters: what is sent, and how the answer reads.

use regent_proto::v1::{self, change_coordinators_request, change_member_request};

use crate::{samples, support::Fake};

fn changed(text: &str) -> v1::ChangeReply {
    v1::ChangeReply {
        changes: vec![text.into()],
        notes: vec!["write it into the files too".into()],
        epoch: 4,
        version: 2,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_policy_is_shown_and_changed_key_by_key() {
    let mut world = samples::world();
    let value = |key: &str, value: &str| v1::PolicyValue { key: key.into(), value: value.into() };
    world.policy = v1::PolicyReply {
        cluster: "gravl".into(),
        epoch: 4,
        values: vec![value("lease_ttl", "4m 30s"), value("max_lag_bytes", "off")],
        file_differs: vec!["policy (file -> in force): partition_timeout_ms 1 -> 2".into()],
        leases_in_flight_ms: Some(270_000),
    };
    world.changed = changed("lease.ttl_ms 270000 -> 60000");
    let fake = Fake::start(world).await;
    let shown = fake.ctl(&["policy", "show", "gravl"]).await.expect(0);
    shown.says("lease_ttl").says("4m 30s").says("in force").says("4m30s");
    assert_eq!(fake.ctl(&["policy", "show", "gravl", "-o", "json"]).await.json()["epoch"], 4);

    let args = ["policy", "set", "gravl", "lease_ttl=1m", "max_lag_bytes=off", "--reason", "r", "--dry-run"];
    fake.ctl(&args).await.expect(0).says("would change: lease.ttl_ms").says("files too");
    let sent = fake.world.lock().unwrap().policies.pop().unwrap();
    assert_eq!((sent.expected_epoch, sent.dry_run, sent.reason.as_str()), (4, true, "r"));
    assert_eq!(sent.values, [value("lease_ttl", "1m"), value("max_lag_bytes", "off")]);

    for bad in
        [&["policy", "set", "gravl", "lease_ttl", "--reason", "r"][..], &["policy", "set", "gravl", "a=1"]]
    {
        fake.ctl(bad).await.expect(2);
    }
    assert!(fake.world.lock().unwrap().policies.is_empty());
}

#[tokio::test]
async fn members_and_coordinators_are_listed_added_and_removed() {
    let mut world = samples::world();
    let definition = v1::MemberDefinition {
        name: "us-east-1".into(),
        region: "us-east-1".into(),
        host: "10.0.0.2".into(),
        port: 5432,
        client_address: "10.1.0.2".into(),
        client_port: 5432,
        priority: 100,
        promotable: true,
        agent_address: None,
    };
    world.members = v1::MembersReply {
        cluster: "gravl".into(),
        epoch: 4,
        version: 2,
        members: vec![v1::MemberEntry {
            definition: Some(definition),
            sync_confirmed: true,
            not_known: Some("the primary has acknowledged version 1".into()),
            ..Default::default()
        }],
        removed: vec![v1::RemovedEntry { name: "old".into(), version: 1, by: "alice".into(), wall_ms: 1 }],
    };
    world.coordinators = v1::CoordinatorsReply { version: 7, ..Default::default() };
    world.changed = changed("done");
    let fake = Fake::start(world).await;
    let listed = fake.ctl(&["members", "list", "gravl"]).await.expect(0);
    listed.says("us-east-1").says("not promotable yet").says("removed: old");

    let add =
        ["members", "add", "gravl", "eu-west-1", "--region", "eu-west-1", "--host", "h", "--reason", "r"];
    fake.ctl(&[&add[..], &["--client-address", "nowhere"]].concat()).await.expect(2);
    fake.ctl(&[&add[..], &["--client-address", "192.0.2.1", "--port", "6000"]].concat()).await.expect(0);
    fake.ctl(&["members", "remove", "gravl", "us-east-1", "--reason", "r"])
        .await
        .expect(0)
        .says("changed: done");
    let sent = std::mem::take(&mut fake.world.lock().unwrap().member_changes);
    let Some(change_member_request::Change::Add(added)) = &sent[0].change else { panic!("{sent:?}") };
    assert_eq!((added.port, added.client_port, added.promotable), (6000, 6000, true));
    assert_eq!(sent[1].change, Some(change_member_request::Change::Remove("us-east-1".into())));

    fake.ctl(&["members", "coordinators", "list"]).await.expect(0).says("group version 7");
    let add = ["members", "coordinators", "add", "4", "--address", "h:1", "--region", "x", "--reason", "r"];
    fake.ctl(&add).await.expect(0);
    fake.ctl(&["members", "coordinators", "remove", "2", "--reason", "r"]).await.expect(0);
    let sent = std::mem::take(&mut fake.world.lock().unwrap().coordinator_changes);
    assert!(sent.iter().all(|one| one.expected_version == 7 && !one.consent), "{sent:?}");
    assert_eq!(sent[1].change, Some(change_coordinators_request::Change::Remove(2)));
}

#[tokio::test]
async fn clusters_are_created_adopted_and_forgotten() {
    let mut world = samples::world();
    world.changed = changed("done");
    let fake = Fake::start(world).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[[cluster]]\n").unwrap();
    let file = file.to_str().unwrap();
    fake.ctl(&["members", "create", "--file", "/no/such", "--reason", "r"]).await.expect(2).says("/no/such");
    fake.ctl(&["members", "create", "--file", file, "--reason", "r"]).await.expect(0);
    fake.ctl(&["adopt", "--file", file, "--system-id", "77", "--reason", "r", "--dry-run"]).await.expect(0);
    fake.ctl(&["members", "forget", "gravl", "--reason", "r", "--consent-to-stop-primary"]).await.expect(0);
    let world = fake.world.lock().unwrap();
    let kinds: Vec<_> = world.creations.iter().map(|one| (one.adopt, one.system_id, one.dry_run)).collect();
    assert_eq!(kinds, [(false, None, false), (true, Some(77), true)]);
    assert_eq!(world.creations[0].toml, "[[cluster]]\n");
    assert!(world.forgotten[0].consent && world.forgotten[0].expected_epoch == 4);
}

#[tokio::test]
async fn a_cluster_of_a_lost_group_is_imported() {
    let mut world = samples::world();
    world.changed = changed("gravl is taken over above epoch 4");
    let fake = Fake::start(world).await;
    fake.ctl(&["import", "gravl"]).await.expect(2).says("--reason");
    fake.ctl(&["import", "gravl", "--file", "/no/such", "--reason", "r"]).await.expect(2).says("/no/such");
    let args =
        ["import", "gravl", "--reason", "all lost", "--unheard", "us-east-1", "--primary", "eu-north-1"];
    let dry = fake.ctl(&[&args[..], &["--expected-epoch", "4", "--dry-run"]].concat()).await.expect(0);
    dry.says("would change: gravl is taken over above epoch 4");
    fake.ctl(&["import", "gravl", "--reason", "all lost"]).await.expect(0).says("changed: gravl");
    let sent = std::mem::take(&mut fake.world.lock().unwrap().imports);
    assert_eq!((sent[0].unheard.as_slice(), sent[0].dry_run), (&["us-east-1".to_owned()][..], true));
    assert_eq!((sent[0].primary.as_deref(), sent[0].expected_epoch), (Some("eu-north-1"), Some(4)));
    assert_eq!(
        (sent[1].primary.as_deref(), sent[1].expected_epoch, sent[1].toml.clone()),
        (None, None, None)
    );
}
