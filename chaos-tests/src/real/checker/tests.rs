//! The checker fails when it should: each test breaks one good run.

use super::*;

const A: &str = "127.64.0.1:5432";
const B: &str = "127.64.0.2:5432";

fn attempt(writer_id: i32, number: i64, server: &str, span_ms: (u64, u64), outcome: Outcome) -> Attempt {
    Attempt {
        writer_id,
        number,
        server: server.into(),
        kind: SessionKind::Direct,
        sent_ns: span_ms.0 * 1_000_000,
        done_ns: span_ms.1 * 1_000_000,
        outcome,
        xid: None,
    }
}

fn row(writer_id: i32, number: i64, server: &str) -> FoundRow {
    FoundRow { writer_id, number, server: server.into(), begun_us: 0 }
}

/// A served epoch 1 until 100 ms, B epoch 2 from 200 ms on.
fn good() -> Evidence {
    let ack = Outcome::Acknowledged;
    Evidence {
        attempts: vec![
            attempt(1, 1, A, (10, 20), ack.clone()),
            attempt(1, 2, A, (90, 100), ack.clone()),
            attempt(1, 3, A, (110, 150), Outcome::Unknown("cut".into())),
            attempt(1, 4, B, (160, 161), Outcome::Failed("read only".into())),
            attempt(1, 5, B, (200, 210), ack),
        ],
        reigns: vec![
            Reign { epoch: 2, server: B.into(), not_before_ns: 0 },
            Reign { epoch: 1, server: A.into(), not_before_ns: 0 },
        ],
        surviving: vec![row(1, 1, A), row(1, 2, A), row(1, 5, B)],
        salvaged: vec![],
    }
}

fn verdict(evidence: &Evidence) -> Verdict {
    // Wall time zero is monotonic zero here.
    check(evidence, WallOffset::zero())
}

fn problem(evidence: &Evidence, allowed: LossAllowed) -> String {
    verdict(evidence).require(allowed).expect_err("this run is broken").to_string()
}

#[test]
fn a_good_run_passes() {
    let verdict = verdict(&good());
    verdict.require(LossAllowed::Nothing).unwrap();
    let all = verdict.total();
    assert_eq!((all.acknowledged, all.kept, all.unknown, all.failed), (3, 3, 1, 1));
    assert!(verdict.to_string().contains("acknowledged"));
}

#[test]
fn a_lost_row_is_named_whatever_loss_is_allowed() {
    let mut evidence = good();
    evidence.surviving.remove(1);
    for allowed in [LossAllowed::Nothing, LossAllowed::Salvaged] {
        let error = problem(&evidence, allowed);
        assert!(error.contains("1 acknowledged rows are nowhere: 1/2"), "{error}");
    }
}

#[test]
fn a_salvaged_row_passes_only_where_loss_is_allowed() {
    let mut evidence = good();
    let row = evidence.surviving.remove(1);
    evidence.salvaged.push(row);
    verdict(&evidence).require(LossAllowed::Salvaged).unwrap();
    assert!(problem(&evidence, LossAllowed::Nothing).contains("salvage only"));
}

#[test]
fn two_writers_are_found_with_both_numbers() {
    let mut evidence = good();
    evidence.attempts.push(attempt(2, 1, A, (204, 205), Outcome::Acknowledged));
    evidence.salvaged.push(row(2, 1, A));
    let error = problem(&evidence, LossAllowed::Salvaged);
    assert!(
        error.contains("205000000 ns") && error.contains("200000000 ns") && error.contains("5 ms"),
        "{error}"
    );
}

#[test]
fn an_acknowledgement_held_by_a_link_is_no_overlap_but_a_late_start_is() {
    let mut evidence = good();
    let mut late = attempt(2, 1, A, (90, 900), Outcome::Acknowledged);
    late.kind = SessionKind::Linked;
    evidence.attempts.push(late);
    evidence.salvaged.push(row(2, 1, A));
    verdict(&evidence).require(LossAllowed::Salvaged).unwrap();
    evidence.attempts.last_mut().unwrap().sent_ns = 300_000_000;
    assert!(problem(&evidence, LossAllowed::Salvaged).contains("two writers"));
}

#[test]
fn a_row_nobody_heard_of_counts_by_the_servers_clock() {
    let mut evidence = good();
    evidence.salvaged.push(FoundRow { begun_us: 150_000, ..row(1, 3, A) });
    verdict(&evidence).require(LossAllowed::Salvaged).unwrap();
    evidence.salvaged[0].begun_us = 300_000;
    assert!(problem(&evidence, LossAllowed::Salvaged).contains("two writers"));
}

#[test]
fn a_commit_without_an_epoch_is_found() {
    let mut evidence = good();
    evidence.reigns.remove(0);
    let error = problem(&evidence, LossAllowed::Salvaged);
    assert!(error.contains(B) && error.contains("held no epoch"), "{error}");
}

#[test]
fn a_server_that_comes_back_is_told_apart_by_time() {
    let mut evidence = good();
    evidence.attempts.push(attempt(1, 6, A, (300, 301), Outcome::Acknowledged));
    evidence.surviving.push(row(1, 6, A));
    assert!(problem(&evidence, LossAllowed::Nothing).contains("two writers"));
    evidence.reigns.push(Reign { epoch: 3, server: A.into(), not_before_ns: 250_000_000 });
    verdict(&evidence).require(LossAllowed::Nothing).unwrap();
}

#[test]
fn a_refused_row_that_is_there_is_found() {
    let mut evidence = good();
    evidence.surviving.push(row(1, 4, B));
    assert!(problem(&evidence, LossAllowed::Nothing).contains("refused"));
}

#[test]
fn a_row_written_twice_and_an_empty_run_prove_nothing() {
    let mut evidence = good();
    evidence.attempts.push(evidence.attempts[0].clone());
    assert!(problem(&evidence, LossAllowed::Nothing).contains("twice"));
    assert!(problem(&Evidence::default(), LossAllowed::Nothing).contains("proves nothing"));
}
