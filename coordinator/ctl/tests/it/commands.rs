//! The real binary against a fake coordinator: what people and scripts see, and what the cluster is asked.

use crate::{
    samples::{operation, world},
    support::{Fake, World, ctl},
};
use regent_proto::v1::{Event, OperationState, OperationSummary};
use tonic::Status;

const STATUS: &str = "\
ID  REGION      ADDRESS         COORDINATOR  TERM  APPLIED  QUORUM ACK  VERSION
 1  eu-north-1  127.0.0.1:7401  follower        4      120  -           0.1.0
 2  eu-west-1   127.0.0.1:7402  leader          4      120  12ms ago    0.1.0
 3  us-east-1   127.0.0.1:7403  unreachable     -        -  -           -

CLUSTER gravl  epoch 4 (fenced through 3)  automatic  primary eu-north-1
  dns: gravl.db.regent.internal -> 10.0.0.1 (ttl 5s, epoch 4)
  fails over: agent silent 5m, PostgreSQL down 1m, disk stalled 30s; lease 4m30s

  MEMBER      REGION      ROLE     POSTGRES   LEASE  HEARD           LAG  TL  LSN        SYNC
  eu-north-1  eu-north-1  primary  primary    4m12s  310ms             -   3  0/5000060  -
  us-east-1   us-east-1   standby  starting*      -   1.2s  1.5 kB, 40ms   3  0/5000000  no
  ! us-east-1: PostgreSQL (starting) does not accept connections
  ! us-east-1: no automatic failover: no PID namespace
  ! us-east-1: an fsync in the data directory failed: EIO
  ! us-east-1: 1 GB free on its disk, 16 MB kept for slots
  ! us-east-1: clone 43 MB of 100 MB (43 %)
  ! us-east-1: not in sync: a clone is running
";

#[tokio::test]
async fn status_for_people() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["status"]).await.expect(0);
    assert_eq!(ran.out, STATUS);
    assert!(ran.out.lines().all(|line| line.chars().count() <= 100));
    let colour = fake.ctl(&["status", "--color", "always"]).await.expect(0);
    assert!(colour.out.contains("\x1b[31mstarting*\x1b[0m"), "{}", colour.out);
}

#[tokio::test]
async fn status_for_scripts() {
    let fake = Fake::start(world()).await;
    let json = fake.ctl(&["status", "gravl", "-o", "json"]).await.expect(0).json();
    let cluster = &json["clusters"][0];
    assert_eq!(cluster["primary"], "eu-north-1");
    assert_eq!(cluster["automation"], "automatic");
    assert_eq!(cluster["members"][1]["postgres"], "starting");
    assert_eq!(cluster["members"][1]["lag_bytes"], 1536);
    assert_eq!(cluster["members"][1]["disk"]["outcome"]["failed"]["error"], "EIO");
    assert!(cluster["operation"].is_null());
}

#[tokio::test]
async fn what_runs_waits_or_is_paused_is_said() {
    let mut world = world();
    world.status.leader = None;
    let cluster = &mut world.status.clusters[0];
    cluster.automation = regent_proto::v1::Automation::Paused.into();
    cluster.automation_reason = Some("regent://operator/alice: maintenance".into());
    cluster.operation = operation(OperationState::Waiting, Some("no candidate")).summary;
    let ran = Fake::start(world).await.ctl(&["status"]).await.expect(0);
    ran.says("! no leader is known to coordinator 1: this view may be old")
        .says("  paused: regent://operator/alice: maintenance")
        .says("  running: #7 failover (operator), step fence, for 9.1s, waiting: no candidate");
}

#[tokio::test]
async fn an_unknown_cluster_is_refused() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["status", "gravel"]).await.expect(1);
    assert_eq!(ran.err, "regentctl: not found: there is no cluster gravel\n");
    let ran = fake.ctl(&["status", "gravel", "-o", "json"]).await.expect(1);
    assert!(ran.err.contains(r#""exit_code":1"#), "{}", ran.err);
}

#[tokio::test]
async fn every_endpoint_is_tried() {
    let fake = Fake::start(world()).await;
    let address = fake.address.to_string();
    // Nobody listens on port 1 of loopback.
    let arguments = ["--plaintext", "--endpoint", "127.0.0.1:1", "--endpoint", &address, "status"];
    ctl(&arguments).await.expect(0);
}

#[tokio::test]
async fn nobody_to_ask_is_exit_code_3_with_every_reason() {
    let arguments =
        ["--plaintext", "--endpoint", "127.0.0.1:1", "--endpoint", "[::1]:1", "--timeout", "1s", "status"];
    let ran = ctl(&arguments).await.expect(3);
    ran.says("no coordinator could be reached").says("\n  127.0.0.1:1: ").says("\n  [::1]:1: ");
    ran.says("Connection refused");

    let world = World { refuse_with: Some(Status::unavailable("no leader is known")), ..world() };
    let fake = Fake::start(world).await;
    let ran = fake.ctl(&["status", "--timeout", "500ms"]).await.expect(3);
    ran.says("coordinators answer, but no leader could be asked").says("no leader is known");
}

#[tokio::test]
async fn every_refusal_has_its_exit_code() {
    for (status, code, text) in [
        (
            Status::permission_denied("regent://viewer/x may not do that"),
            1,
            "not permitted: regent://viewer/x",
        ),
        (Status::failed_precondition("operation 3 is running"), 1, "refused: operation 3 is running"),
        (Status::aborted("epoch 3 was expected"), 1, "the cluster has changed: epoch 3 was expected"),
        (Status::invalid_argument("limit: 0"), 2, "the cluster cannot read the request: limit: 0"),
    ] {
        let fake = Fake::start(World { refuse_with: Some(status), ..world() }).await;
        fake.ctl(&["history", "gravl"]).await.expect(code).says(text);
    }
}

#[tokio::test]
async fn a_failover_is_planned_sent_once_and_followed() {
    let mut world = world();
    world.operations = vec![
        operation(OperationState::Running, None),
        operation(OperationState::Waiting, Some("the lease has 3s left")),
        operation(OperationState::Done, None),
    ];
    let fake = Fake::start(world).await;
    let arguments = ["failover", "gravl", "--reason", " eu-north-1 is flooded ", "--to", "us-east-1"];
    let ran =
        fake.ctl(&[&arguments[..], &["--wait", "--yes", "--request-id", "r-1"]].concat()).await.expect(0);
    assert!(ran.err.starts_with("failover of gravl at epoch 4: eu-north-1 -> us-east-1\n"), "{}", ran.err);
    ran.says("loss, at most: 96 B (at last contact)").says("operation 7 of gravl is started");
    let steps: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("2026-")).collect();
    assert_eq!(
        steps,
        [
            "2026-01-02 03:04:05.678  declare 3ms  asked for by regent://operator/alice",
            "2026-01-02 03:04:05.678  fence 8.4s  lease expired",
        ]
    );
    assert!(ran.out.starts_with("failover #7 of gravl: done\n"), "{}", ran.out);

    let world = fake.world.lock().unwrap();
    let [looked, sent] = world.failovers.as_slice() else { panic!("{:?}", world.failovers) };
    assert!(looked.dry_run && !sent.dry_run);
    assert_eq!(sent.expected_epoch, 4);
    assert_eq!(sent.reason, "eu-north-1 is flooded");
    assert_eq!(sent.request_id, "r-1");
    assert_eq!(sent.target.as_deref(), Some("us-east-1"));
}

#[tokio::test]
async fn a_failover_without_a_terminal_needs_yes() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["failover", "gravl", "--reason", "x"]).await.expect(2);
    ran.says("use --yes, or --dry-run to look");
    assert!(fake.world.lock().unwrap().failovers.is_empty());
}

#[tokio::test]
async fn a_script_that_knows_the_epoch_sends_only_that() {
    let fake = Fake::start(world()).await;
    let arguments = ["failover", "gravl", "--reason", "x", "--yes", "--expected-epoch", "4", "-o", "json"];
    let json = fake.ctl(&arguments).await.expect(0).json();
    assert_eq!(json["operation"], 7);
    assert_eq!(json["expected_epoch"], 4);
    {
        let world = fake.world.lock().unwrap();
        assert_eq!(world.failovers.len(), 1);
        assert_eq!(json["request_id"], world.failovers[0].request_id);
    }
    let stale = ["failover", "gravl", "--reason", "x", "--yes", "--expected-epoch", "3"];
    let ran = fake.ctl(&stale).await.expect(1);
    ran.says("epoch 3 was expected, the current one is 4").says("decide again");
}

#[tokio::test]
async fn a_dry_run_shows_the_plan_and_what_blocks_it() {
    let fake = Fake::start(world()).await;
    let arguments = ["failover", "gravl", "--reason", "x", "--dry-run"];
    let ran = fake.ctl(&arguments).await.expect(0);
    assert_eq!(
        ran.out,
        "\
failover of gravl at epoch 4: eu-north-1 -> us-east-1
  loss, at most: 96 B (at last contact)

  CANDIDATE  CHOSEN  RECEIVED    LAG  WHY
  us-east-1  yes     0/5000000  96 B  has received most

  STEP   AT MOST  WHAT
  fence    4m33s  ask the guard, else wait for the lease
"
    );
    fake.world.lock().unwrap().plan.blockers = vec!["operation 3 is running".into()];
    fake.ctl(&arguments).await.expect(1).says("it would not start: operation 3 is running");
    assert!(fake.world.lock().unwrap().failovers.iter().all(|request| request.dry_run));
}

#[tokio::test]
async fn an_operation_that_ends_badly_or_not_at_all_says_so() {
    let start = ["failover", "gravl", "--reason", "x", "--yes", "--wait", "--expected-epoch", "4"];
    let mut aborted = world();
    aborted.operations = vec![operation(OperationState::Aborted, Some("no member could take over"))];
    let ran = Fake::start(aborted).await.ctl(&start).await.expect(1);
    ran.says("operation 7 was aborted: no member could take over");

    let mut waiting = world();
    waiting.operations = vec![operation(OperationState::Waiting, Some("the lag is above its bound"))];
    let arguments = [&start[..], &["--wait-timeout", "400ms"]].concat();
    let ran = Fake::start(waiting).await.ctl(&arguments).await.expect(4);
    ran.says("has not ended after 400ms and goes on: in step fence, waiting: the lag is above its bound")
        .says("regentctl history gravl 7");
}

#[tokio::test]
async fn pause_and_resume_carry_reason_epoch_and_request() {
    let fake = Fake::start(world()).await;
    let ran = fake.ctl(&["pause", "gravl", "--reason", "maintenance"]).await.expect(0);
    assert_eq!(ran.out, "gravl is now paused (epoch 4)\n");
    let ran = fake.ctl(&["resume", "gravl", "--reason", "over", "--dry-run"]).await.expect(0);
    assert_eq!(ran.out, "gravl would be automatic (epoch 4)\n");
    let world = fake.world.lock().unwrap();
    let [("pause", pause), ("resume", resume)] = world.automations.as_slice() else {
        panic!("{:?}", world.automations)
    };
    assert_eq!((pause.reason.as_str(), pause.expected_epoch, pause.dry_run), ("maintenance", 4, false));
    assert!(resume.dry_run);
    assert_ne!(pause.request_id, resume.request_id);
}

#[tokio::test]
async fn assuming_a_fence_takes_the_risk_by_name() {
    let fake = Fake::start(world()).await;
    let call = ["assume-fenced", "gravl", "--member", "eu-north-1", "--reason", "power is cut"];
    let epoch = ["--expected-epoch", "4"];
    fake.ctl(&[&call[..], &epoch[..]].concat()).await.expect(2).says("--i-accept-two-writers");
    let stale = ["--expected-epoch", "3", "--i-accept-two-writers"];
    fake.ctl(&[&call[..], &stale[..]].concat()).await.expect(1).says("3").says("4");
    let ran = fake.ctl(&[&call[..], &epoch[..], &["--i-accept-two-writers"]].concat()).await.expect(0);
    let said = "eu-north-1 is taken for dead at epoch 4; operation 7 goes on: regentctl history gravl 7\n";
    assert_eq!(ran.out, said);
    let world = fake.world.lock().unwrap();
    let [request] = world.assumed.as_slice() else { panic!("{:?}", world.assumed) };
    assert_eq!((request.member.as_str(), request.reason.as_str()), ("eu-north-1", "power is cut"));
}

#[tokio::test]
async fn history_lists_and_reports() {
    let mut world = world();
    let done = operation(OperationState::Done, None);
    let aborted = OperationSummary {
        id: 6,
        state: OperationState::Aborted.into(),
        reason: Some("it came back".into()),
        to_epoch: None,
        ..done.summary.clone().unwrap()
    };
    world.history = vec![done.summary.clone().unwrap(), aborted];
    world.operations = vec![done];
    let fake = Fake::start(world).await;
    let ran = fake.ctl(&["history", "gravl"]).await.expect(0);
    assert_eq!(
        ran.out,
        "\
#  STARTED (UTC)        KIND      TRIGGER   EPOCH   FROM -> TO               TOOK  RESULT
7  2026-01-02 03:04:05  failover  operator  4 -> 5  eu-north-1 -> us-east-1  9.1s  done
6  2026-01-02 03:04:05  failover  operator  4       eu-north-1 -> us-east-1  9.1s  aborted
! #6: it came back
"
    );
    let ran = fake.ctl(&["history", "gravl", "7"]).await.expect(0);
    assert_eq!(
        ran.out,
        "\
failover #7 of gravl: done
  trigger    operator
  by         regent://operator/alice
  why        eu-north-1 is flooded
  members    eu-north-1 -> us-east-1
  epoch      4 -> 5
  started    2026-01-02 03:04:05.678 UTC
  took       9.1s
  request    r-1
  loss       not known yet, at most 2 kB

  STEP     TOOK  BUDGET  EVIDENCE
  declare   3ms      5m  asked for by regent://operator/alice
  fence    8.4s      5m  lease expired

  PHASE                 TOOK  BUDGET
  failover preparation  8.5s     20m

  FENCE          CERTAINTY         EVIDENCE
  lease expired  assumed by lease  9 s bound passed
"
    );
    let json = fake.ctl(&["history", "gravl", "7", "-o", "json"]).await.expect(0).json();
    assert_eq!(json["fence"][0]["certainty"], "assumed_by_lease");
    assert_eq!(json["summary"]["state"], "done");
}

fn events(count: u64) -> Vec<Event> {
    (1..=count)
        .map(|sequence| Event {
            sequence,
            wall_ms: 1_767_323_045_678,
            cluster: "gravl".into(),
            epoch: 4,
            kind: "fence_decided".into(),
            rule: "5.4".into(),
            text: "epoch 4 is closed".into(),
            ..Default::default()
        })
        .collect()
}

#[tokio::test]
async fn watching_survives_streams_that_break_and_repeats_nothing() {
    let fake = Fake::start(World { events: events(5), events_per_stream: Some(2), ..world() }).await;
    let ran = fake.ctl(&["watch", "--from", "1", "--count", "5", "-o", "json"]).await.expect(0);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<u64> = lines.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
    assert_eq!(lines[0]["kind"], "fence_decided");
    let from: Vec<u64> = fake.world.lock().unwrap().watches.iter().map(|watch| watch.from_sequence).collect();
    assert_eq!(from, [1, 3, 5]);
}

#[tokio::test]
async fn watching_for_people() {
    let fake = Fake::start(World { events: events(3), ..world() }).await;
    let ran = fake.ctl(&["watch", "--cluster", "gravl", "--from", "3", "--count", "1"]).await.expect(0);
    assert_eq!(
        ran.out,
        "     3  2026-01-02 03:04:05.678  gravl epoch 4  fence_decided  epoch 4 is closed [5.4]\n"
    );
    assert_eq!(fake.world.lock().unwrap().watches[0].cluster.as_deref(), Some("gravl"));
}

#[tokio::test]
async fn bad_flags_name_the_value() {
    for (arguments, text) in [
        (vec!["status", "Gravl"], "cluster name \"Gravl\" is not valid"),
        (vec!["failover", "gravl"], "--reason"),
        (vec!["failover", "gravl", "--reason", " "], "a reason is required"),
        (vec!["failover", "gravl", "--reason", "x", "--to", "a b"], "member name \"a b\" is not valid"),
        (
            vec!["failover", "gravl", "--reason", "x", "--request-id", "a b"],
            "request id \"a b\" is not valid",
        ),
        (vec!["failover", "gravl", "--reason", "x", "--expected-epoch", "-1"], "-1"),
        (vec!["history", "gravl", "--limit", "0"], "0 is not in 1..=1000"),
        (vec!["history", "gravl", "seven"], "seven"),
        (vec!["status", "--timeout", "soon"], "soon"),
        (vec!["status", "--output", "xml"], "xml"),
        (vec!["status", "--frobnicate"], "--frobnicate"),
        (vec!["stauts"], "stauts"),
        (vec!["pki", "issue", "admin/alice"], "identity \"regent://admin/alice\" is not valid"),
        (vec!["status", "--config", "/nowhere/regentctl.toml"], "/nowhere/regentctl.toml"),
        (vec!["status"], "no coordinator is known"),
    ] {
        ctl(&arguments).await.expect(2).says(text);
    }
}

#[tokio::test]
async fn help_has_examples_and_exit_codes() {
    ctl(&["--help"]).await.expect(0).says("Exit codes:").says("3  no coordinator could be reached");
    for command in [
        "switchover",
        "failback",
        "approve",
        "abort",
        "status",
        "watch",
        "failover",
        "pause",
        "resume",
        "history",
        "completions",
        "version",
    ] {
        ctl(&[command, "--help"]).await.expect(0).says("Example");
    }
    for command in ["init", "issue", "show"] {
        ctl(&["pki", command, "--help"]).await.expect(0).says("Example");
    }
    ctl(&["completions", "bash"]).await.expect(0).says("complete -F _regentctl");
    let version = ctl(&["version", "-o", "json"]).await.expect(0).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}
