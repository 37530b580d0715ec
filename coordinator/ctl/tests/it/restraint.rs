//! `automation`, `acknowledge`, `approve`, and how the status says what waits.

use regent_proto::v1::{Condition, ExplainReply, HeardBy, PendingFailover, Restraint};

use crate::{samples::world, support::Fake};

#[tokio::test]
async fn the_mode_is_set_by_name_and_with_a_reason() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["automation", "gravl", "approve", "--reason", "first weeks"]).await.expect(0);
    ran.says("gravl is now approve (was automatic, epoch 4)");
    let ran = fake.ctl(&["automation", "gravl", "approve", "--reason", "r", "--dry-run"]).await.expect(0);
    ran.says("gravl would be approve");
    let asked = fake.world.lock().unwrap().modes.clone();
    assert_eq!((asked[0].mode.as_str(), asked[0].reason.as_str()), ("approve", "first weeks"));
    assert!(asked[0].request_id.starts_with("ctl-") && !asked[0].dry_run && asked[1].dry_run, "{asked:?}");
    fake.ctl(&["automation", "gravl", "sometimes", "--reason", "r"]).await.expect(2).says("sometimes");
    fake.ctl(&["automation", "gravl", "approve"]).await.expect(2).says("--reason");
}

#[tokio::test]
async fn an_acknowledgement_and_an_approval_say_what_begins() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["acknowledge", "gravl", "--reason", "seen"]).await.expect(0);
    ran.says("gravl: operation 5 is acknowledged; the next automatic failover need not wait");
    let ran = fake.ctl(&["approve", "gravl", "--reason", "seen"]).await.expect(0);
    ran.says("follow it: regentctl history gravl 7");
    let ran = fake.ctl(&["approve", "gravl", "--reason", "seen", "--dry-run"]).await.expect(0);
    ran.says("dry run: alice approves");
    let ran = fake.ctl(&["approve", "gravl", "--reason", "seen", "-o", "json"]).await.expect(0);
    assert_eq!(ran.json()["operation"], 7);
    fake.ctl(&["approve", "gravl", "--reason", "r", "--expected-epoch", "9"]).await.expect(1).says("epoch 9");
}

#[tokio::test]
async fn the_status_says_what_waits_and_for_what() {
    let mut world = world();
    world.status.clusters[0].restraint = Some(Restraint {
        pending: Some(PendingFailover {
            member: "eu-north-1".into(),
            found: "silent for 300000 ms".into(),
            why: "approve it".into(),
            since_wall_ms: 1_767_323_045_678,
        }),
        cooldown_after: Some(5),
        cooldown_remaining_ms: Some(1_800_000),
        refusal: None,
        resumes_to: None,
        veto: Some("the market is open".into()),
        observed: None,
    });
    let ran = Fake::start(world).await.ctl(&["status"]).await.expect(0);
    ran.says(
        "! failover of eu-north-1 waits since 2026-01-02 03:04:05.678: silent for 300000 ms; approve it",
    )
    .says("the veto hook holds an automatic failover back: the market is open")
    .says("cooldown: after operation 5 the next automatic failover waits for an acknowledgement, for 30m");
}

#[tokio::test]
async fn an_explanation_begins_with_the_answer() {
    let mut world = world();
    let condition = |name: &str, holds, text: &str| Condition { name: name.into(), holds, text: text.into() };
    world.explained = ExplainReply {
        cluster: "gravl".into(),
        epoch: 4,
        primary: Some("eu-north-1".into()),
        verdict: "no: no trigger has reached its threshold".into(),
        if_silent: "a failover would begin".into(),
        would_if_silent: true,
        triggers: vec![condition("partition", false, "eu-north-1 silent for 20 ms of 300000 ms")],
        guards: vec![condition("automation", false, "paused (alice)")],
        loss_bytes: Some(1536),
        loss_exposed_ms: Some(274_000),
        heard: vec![HeardBy { member: "eu-north-1".into(), coordinator: 2, ..HeardBy::default() }],
        ..ExplainReply::default()
    };
    let fake = Fake::start(world).await;
    let ran = fake.ctl(&["explain", "gravl"]).await.expect(0);
    ran.says("would it fail over now?  no: no trigger has reached its threshold")
        .says("if its region were lost: a failover would begin")
        .says("1.5 kB of WAL at last contact")
        .says("automation  no      paused (alice)")
        .says("never");
    assert_eq!(fake.ctl(&["explain", "gravl", "-o", "json"]).await.expect(0).json()["would_if_silent"], true);
}
