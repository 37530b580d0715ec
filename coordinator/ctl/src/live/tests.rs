use ratatui::{Terminal, backend::TestBackend};
use regent_proto::v1;

use super::*;

fn world() -> StatusReply {
    let coordinator = |id: u64, region: &str, role: v1::CoordinatorRole| v1::CoordinatorStatus {
        id,
        region: region.into(),
        role: role.into(),
        ..Default::default()
    };
    let primary = v1::MemberStatus {
        name: "us-east-1".into(),
        role: v1::MemberRole::Primary.into(),
        postgres: v1::PostgresState::Primary.into(),
        accepting: true,
        lease_remaining_ms: Some(252_000),
        heard_age_ms: Some(310),
        write_lsn: Some("0/5000060".into()),
        ..Default::default()
    };
    let standby = v1::MemberStatus {
        name: "eu-north-1".into(),
        role: v1::MemberRole::Standby.into(),
        postgres: v1::PostgresState::Starting.into(),
        heard_age_ms: Some(1_200),
        lag_bytes: Some(1_536),
        lag_ms: Some(40),
        received_lsn: Some("0/5000000".into()),
        sync_reason: Some("a clone is running".into()),
        job: Some(v1::MemberJob {
            kind: "clone".into(),
            done_bytes: 43 << 20,
            total_bytes: Some(100 << 20),
            percent: Some(43),
        }),
        ..Default::default()
    };
    let cluster = v1::ClusterStatus {
        name: "gravl".into(),
        epoch: 5,
        automation: v1::Automation::Automatic.into(),
        primary: Some("us-east-1".into()),
        dns: Some(v1::DnsRecord {
            name: "gravl.db.example.org".into(),
            address: "198.51.100.10".into(),
            ttl_s: 5,
            epoch: 5,
        }),
        members: vec![standby, primary],
        operation: Some(v1::OperationSummary {
            id: 7,
            kind: v1::OperationKind::Failover.into(),
            trigger: v1::Trigger::Partition.into(),
            state: v1::OperationState::Waiting.into(),
            step: "redirect".into(),
            elapsed_ms: 12_345,
            reason: Some("route53 cannot be reached for ListResourceRecordSets".into()),
            to_member: Some("us-east-1".into()),
            ..Default::default()
        }),
        policy: Some(v1::PolicyNumbers { lease_ttl_ms: 270_000, ..Default::default() }),
        ..Default::default()
    };
    v1::StatusReply {
        feature_level: Some(1),
        answered_by: 1,
        leader: Some(3),
        wall_ms: 1_767_323_045_678,
        coordinators: vec![
            coordinator(1, "eu-north-1", v1::CoordinatorRole::Unreachable),
            coordinator(2, "us-east-1", v1::CoordinatorRole::Follower),
            coordinator(3, "eu-west-1", v1::CoordinatorRole::Leader),
        ],
        clusters: vec![cluster],
    }
}

fn view() -> View {
    let event = |sequence: u64| Event {
        sequence,
        wall_ms: 1_767_323_000_000 + sequence * 1000,
        cluster: "gravl".into(),
        kind: if sequence.is_multiple_of(2) { "fence_proven".into() } else { "appointed".into() },
        text: format!("event number {sequence}"),
        ..Default::default()
    };
    View { reply: Some(world()), events: (1..=30).map(event).collect(), ..View::default() }
}

/// What the terminal shows.
fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| page::draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

/// Compares with `live/page-80x24.txt`; `UPDATE_GOLDEN=1` writes it.
#[test]
fn the_page_at_80_by_24() {
    let lines = drawn(&view(), 80, 24);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/page-80x24.txt");
    let text = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn everything_that_matters_is_on_the_page() {
    let text = drawn(&view(), 80, 24).join("\n");
    for word in [
        "eu-north-1 unreachable",
        "eu-west-1 LEADER",
        "gravl",
        "automatic  epoch 5",
        "gravl.db.example.org -> 198.51.100.10",
        "PRIMARY",
        "lease [############] 4m12s",
        "not in sync: a clone is running",
        "lag 1.5 kB, 40ms",
        "clone [######......] 43 MB of 100 MB, 43 %",
        "#7 failover to us-east-1 (partition), step redirect, for 12.3s",
        "promote > [redirect] > validate",
        "waiting: route53 cannot be reached",
        "event number 30",
        "q quit",
    ] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    // Colours say nothing of their own.
    let coloured = View { colour: true, ..view() };
    assert_eq!(drawn(&coloured, 80, 24).join("\n"), text);
}

#[test]
fn any_size_is_drawn_and_an_old_view_says_so() {
    for (width, height) in [(1, 1), (20, 5), (40, 12), (80, 24), (200, 60)] {
        assert_eq!(drawn(&view(), width, height).len(), height as usize);
    }
    let lost = View { trouble: Some("no coordinator could be reached".into()), ..view() };
    assert!(drawn(&lost, 80, 24)[2].contains("! old view: no coordinator could be reached"));
    let first = View {
        trouble: Some("no coordinator could be reached:\n  10.0.0.1:7400: refused".into()),
        ..View::default()
    };
    let lines = drawn(&first, 80, 24).join("\n");
    assert!(lines.contains("no coordinator could be reached") && lines.contains("10.0.0.1:7400"), "{lines}");
}

#[test]
fn tab_turns_over_the_clusters() {
    let mut view = view();
    view.turn(1);
    assert_eq!(view.selected, 0, "there is one");
    let mut second = world().clusters.remove(0);
    second.name = "other".into();
    view.reply.as_mut().unwrap().clusters.push(second);
    view.turn(1);
    assert!(drawn(&view, 80, 24).join("\n").contains("other (2 of 2)"));
    view.turn(1);
    assert!(drawn(&view, 80, 24).join("\n").contains("gravl (1 of 2)"));
    view.turn(-1);
    assert_eq!(view.selected, 1);
}
