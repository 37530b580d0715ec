use aws_sdk_route53::types::AliasTarget;

use super::*;

const NAME: &str = "pg.db.example.org";

fn record(epoch: u64, address: &str) -> DnsRecord {
    let member = MemberName::new("us-east-1").unwrap();
    DnsRecord { epoch: Epoch(epoch), member, address: address.parse().unwrap(), ttl_s: 5 }
}

fn wanted<'w>(record: &'w DnsRecord, weighted: Option<&'w Weighted>) -> Wanted<'w> {
    Wanted { name: NAME, record, ttl_s: record.ttl_s, weighted }
}

fn set(kind: RrType, values: &[&str]) -> ResourceRecordSet {
    let value = |value: &&str| ResourceRecord::builder().value(*value).build().unwrap();
    let records: Vec<_> = values.iter().map(value).collect();
    let set = ResourceRecordSet::builder().name(format!("{NAME}.")).r#type(kind).ttl(5);
    set.set_resource_records(Some(records)).build().unwrap()
}

fn text(epoch: u64) -> ResourceRecordSet {
    set(RrType::Txt, &[&format!("\"regent-epoch={epoch} member=us-east-1\"")])
}

/// `DELETE A 192.0.2.1`, in the batch's order.
#[track_caller]
fn batch(wanted: &Wanted<'_>, found: &[ResourceRecordSet]) -> Vec<String> {
    let Plan::Swap(batch) = wanted.plan(found).unwrap() else { panic!("nothing to do") };
    let line = |change: &Change| {
        let set = change.resource_record_set().unwrap();
        let values: Vec<&str> = values(set).collect();
        format!("{} {} {}", change.action(), set.r#type(), values.join(" "))
    };
    batch.changes().iter().map(line).collect()
}

#[test]
fn an_empty_zone_gets_both_records_and_a_full_one_nothing() {
    let record = record(5, "192.0.2.5");
    let wanted = wanted(&record, None);
    assert_eq!(batch(&wanted, &[]), ["CREATE A 192.0.2.5", "CREATE TXT \"regent-epoch=5 member=us-east-1\""]);
    let there = [set(RrType::A, &["192.0.2.5"]), text(5)];
    assert_eq!(wanted.plan(&there), Ok(Plan::InPlace));
    // Another TTL is another record: it is swapped.
    let mut slow = there.clone();
    slow[0].ttl = Some(300);
    assert_eq!(batch(&wanted, &slow).len(), 4);
}

#[test]
fn a_newer_epoch_is_left_alone_and_an_older_one_replaced() {
    let record = record(5, "192.0.2.5");
    let newer = [set(RrType::A, &["192.0.2.6"]), text(6)];
    let error = wanted(&record, None).plan(&newer).unwrap_err();
    assert_eq!(error, DnsError::Superseded { found: Epoch(6), wanted: Epoch(5) });
    let older = [set(RrType::A, &["192.0.2.4"]), text(4)];
    assert_eq!(
        batch(&wanted(&record, None), &older),
        [
            "DELETE A 192.0.2.4",
            "DELETE TXT \"regent-epoch=4 member=us-east-1\"",
            "CREATE A 192.0.2.5",
            "CREATE TXT \"regent-epoch=5 member=us-east-1\""
        ]
    );
}

#[test]
fn a_batch_always_swaps_the_companion() {
    let record = record(5, "192.0.2.5");
    for found in [
        vec![set(RrType::A, &["192.0.2.9"]), text(5)],
        vec![set(RrType::A, &["192.0.2.5"]), text(4)],
        vec![set(RrType::A, &["192.0.2.5"])],
        vec![text(5)],
        vec![],
    ] {
        let changes = batch(&wanted(&record, None), &found);
        assert!(changes.iter().any(|change| change.contains("CREATE TXT")), "{changes:?}");
        let had = found.iter().any(|set| *set.r#type() == RrType::Txt);
        assert_eq!(changes.iter().any(|change| change.contains("DELETE TXT")), had, "{changes:?}");
    }
}

#[test]
fn address_families_aliases_and_canonical_names_are_swapped_whole() {
    let six = record(5, "2001:db8::5");
    let found = [set(RrType::A, &["192.0.2.4"]), set(RrType::Aaaa, &["2001:db8::4"]), text(4)];
    let changes = batch(&wanted(&six, None), &found);
    assert_eq!(changes[..2], ["DELETE A 192.0.2.4", "DELETE AAAA 2001:db8::4"]);
    assert_eq!(changes[3], "CREATE AAAA 2001:db8::5");
    // The same address in another notation is the same address.
    let long = [set(RrType::Aaaa, &["2001:0db8:0:0:0:0:0:5"]), text(5)];
    assert_eq!(wanted(&six, None).plan(&long), Ok(Plan::InPlace));

    let four = record(5, "192.0.2.5");
    let cname = [set(RrType::Cname, &["old.example.org"])];
    assert_eq!(batch(&wanted(&four, None), &cname)[0], "DELETE CNAME old.example.org");

    let target =
        AliasTarget::builder().hosted_zone_id("Z2").dns_name("lb.example.org.").evaluate_target_health(false);
    let mut alias = set(RrType::A, &[]);
    (alias.ttl, alias.alias_target) = (None, Some(target.build().unwrap()));
    let Ok(Plan::Swap(batch)) = wanted(&four, None).plan(&[alias.clone()]) else { panic!() };
    let deleted = batch.changes()[0].resource_record_set().unwrap();
    assert_eq!(deleted.alias_target(), alias.alias_target());
    assert_eq!(deleted.resource_records, None, "an empty list is not in the schema");
}

#[test]
fn texts_of_others_stay_and_a_damaged_companion_counts_as_none() {
    let record = record(5, "192.0.2.5");
    let found = [set(RrType::Txt, &["\"v=spf1 -all\"", "\"regent-epoch=4 member=eu-north-1\""])];
    let changes = batch(&wanted(&record, None), &found);
    assert_eq!(changes[2], "CREATE TXT \"v=spf1 -all\" \"regent-epoch=5 member=us-east-1\"");
    let damaged = [set(RrType::A, &["192.0.2.5"]), set(RrType::Txt, &["\"regent-epoch=five\""])];
    assert_eq!(batch(&wanted(&record, None), &damaged).len(), 4);
}

#[test]
fn weighted_records_of_others_stay_and_simple_ones_give_way() {
    let record = record(5, "192.0.2.5");
    let weighted = Weighted { set_identifier: "regent".into(), weight: 10 };
    let mut other = set(RrType::A, &["192.0.2.77"]);
    (other.set_identifier, other.weight) = (Some("theirs".into()), Some(1));
    let simple = set(RrType::A, &["192.0.2.4"]);
    let wanted_weighted = wanted(&record, Some(&weighted));
    let changes = batch(&wanted_weighted, &[simple, other.clone()]);
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert_eq!(changes[0], "DELETE A 192.0.2.4");
    let Ok(Plan::Swap(batch)) = wanted_weighted.plan(&[]) else { panic!() };
    for change in batch.changes() {
        let set = change.resource_record_set().unwrap();
        assert_eq!((set.set_identifier(), set.weight()), (Some("regent"), Some(10)));
    }
    // The other way round it is for people to decide.
    let error = wanted(&record, None).plan(&[other]).unwrap_err().to_string();
    assert!(error.contains("theirs") && error.contains("set_identifier"), "{error}");
}

#[test]
fn names_are_compared_as_route53_writes_them() {
    assert!(same_name("PG.db.example.org.", NAME));
    assert!(same_name("\\052.db.example.org.", "*.db.example.org"));
    assert!(same_name("pg\\137one.example.org.", "pg_one.example.org"));
    assert!(!same_name("pg.db.example.org.example.org.", NAME));
}

#[test]
fn what_is_shown_is_address_epoch_and_member() {
    let found = [set(RrType::A, &["192.0.2.5"]), text(7)];
    let seen = observed(&found, None).unwrap();
    assert_eq!((seen.address.to_string(), seen.epoch), ("192.0.2.5".to_owned(), Some(Epoch(7))));
    assert_eq!(seen.member.unwrap().as_str(), "us-east-1");
    assert_eq!(observed(&[text(7)], None), None);
}
